"""The robustness of a published night, on a drawn catalog through a tiny encoder."""

import json
import os
from dataclasses import replace
from datetime import datetime, timezone
from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tgq.catalog.ingest import ingest
from tgq.cli import app as cli
from tgq.cli.tables import robustness_tables
from tgq.demo.catalog import draw_catalog
from tgq.embedding.embed import embed
from tgq.embedding.executor.worker import EmbedWorker
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ModelError, SourceError, UsageError, WarehouseError
from tgq.images.decode import ImageLimits
from tgq.index.build import build_index
from tgq.index.generations import publish_index
from tgq.nuisances import NUISANCES, Item, apply
from tgq.registry.tracking import open_tracker
from tgq.robustness.measure import EXPERIMENT, Plan, figures, measure
from tgq.robustness.rendering import CLEAN
from tgq.robustness.worker import NOT_APPLICABLE, ViewEncoder
from tgq.run.night import Night
from tgq.run.progress import Silent
from tgq.settings.load import load_settings
from tgq.settings.sections import EvaluateSettings
from tgq.storage.warehouse import Warehouse

NAMES = ("typographic", "scene", "background", "wrong_title", "missing_brand", "missing_image")


@pytest.fixture(scope="module")
def published(spark, tmp_path_factory, tables_in, tiny_encoder):
    """Settings of a warehouse with a published generation, and the catalog's folder."""
    root = tmp_path_factory.mktemp("robustness")
    tables_in(root / "warehouse")
    draw_catalog(root / "demo", items=60, seed=5, size=64, workers=1)
    sets = [f"warehouse.path={root / 'warehouse'}", f"encoder.path={tiny_encoder}", "tracking.enabled=false", "evaluate.replicates=100"]
    settings = load_settings(["local", "catalogs/demo"], [*sets, f"catalog.path={root / 'demo'}"], {}).settings
    night = Night(spark, settings, Warehouse(spark, settings.warehouse), "night-1", datetime.now(timezone.utc))
    for step in (ingest, embed, build_index):
        step(night)
    publish_index(night, night.warehouse.versions("catalog_items", "item_embeddings"))
    return settings, root / "demo"


def plan(settings, *names, items=24, seed=0):
    return Plan.of(settings, names, items, seed)


def state(settings):
    """Every file of the warehouse, with its size."""
    root = settings.warehouse.path
    return {os.path.join(f, n): os.path.getsize(os.path.join(f, n)) for f, _, names in os.walk(root) for n in names if not n.startswith("mlflow")}


def test_what_nuisances_cost_is_measured_and_no_table_changes(spark, published):
    settings, _ = published
    before = state(settings)
    report = measure(spark, settings, plan(settings, *NAMES, items=60), Silent())
    assert state(settings) == before, "neither a table nor staging keeps anything of it"
    assert (report["items"], report["embedded"], report["pool_size"]) == (60, 60, 60) and not report["unreadable"] and not report["failed"]
    assert report["clean"]["finds_itself@1"] == 1.0 and report["clean"]["cosine_to_published"] == pytest.approx(1, abs=1e-5)
    for name in NAMES:
        told = report["nuisances"][name]
        assert told["items"] + told["not_applicable"] == 60 and 0 < told["items"] >= told["queries"]
        assert told["cosine"]["ci_low"] <= told["cosine"]["mean"] <= told["cosine"]["ci_high"] <= 1 + 1e-6 and told["cosine"]["mean"] < 1
        for figure in ("hit_rate@1", "hit_rate@10", "finds_itself@1", "finds_itself@10"):
            one = told[figure]
            assert one["drop"] == pytest.approx(one["clean"] - one["noisy"]) and one["ci_low"] <= one["drop"] <= one["ci_high"]
    assert report["nuisances"]["background"]["not_applicable"] > 0, "not every drawn picture has a plain background"
    assert json.loads(json.dumps(report)) == report and len(robustness_tables(report)) == 2
    hits = first_hits(Warehouse(spark, settings.warehouse, create=False))
    assert report["queries"] == len(hits) > 0 and report["clean"]["hit_rate@1"] == pytest.approx(np.mean(hits))


def first_hits(warehouse):
    """Hit rate at 1 of every query of the test split, from a full ranking of the published vectors in numpy."""
    rows = warehouse.spark.sql("SELECT item_id, embedding, image_hash FROM tgq.item_embeddings JOIN tgq.catalog_items USING (item_id)").collect()
    vectors, ids = np.array([r.embedding for r in rows], np.float32), [r.item_id for r in rows]
    weights = {}
    for pair in warehouse.read("relevance_pairs").where("split = 'test'").collect():
        weights.setdefault(pair.query_item_id, {})[pair.positive_item_id] = pair.weight
    hits = []
    for query, of in weights.items():
        at = ids.index(query)
        hidden = {r.item_id for r in rows if r.image_hash == rows[at].image_hash} | {i for i, w in of.items() if w == 0} | {query}
        if any(w > 0 and i not in hidden for i, w in of.items()):
            hits.append(float(of.get(next(i for i in (ids[j] for j in np.argsort(-(vectors @ vectors[at]))) if i not in hidden), 0) > 0))
    return hits


def test_a_picture_that_cannot_be_read_is_counted_and_named_and_figures_are_in_mlflow(spark, published, tmp_path):
    settings, shop = published
    tracking = settings.tracking.model_copy(update={"enabled": True, "uri": f"sqlite:///{tmp_path / 'mlflow.db'}"})
    victim = sorted((shop / "images").rglob("*.*"))[0]
    data = victim.read_bytes()
    victim.write_bytes(data[: len(data) // 2])
    try:
        report = measure(spark, settings.model_copy(update={"tracking": tracking}), plan(settings, "crop", "wrong_title", items=60), Silent())
    finally:
        victim.write_bytes(data)
    lost = len(report["unreadable"])
    assert lost >= 1 and {row["reason"] for row in report["unreadable"]} == {"truncated"} and all(row["item_id"] for row in report["unreadable"])
    assert report["embedded"] == 60 - lost and report["items"] == 60
    for name in ("crop", "wrong_title"):
        assert report["nuisances"][name]["items"] + report["nuisances"][name]["not_applicable"] == 60 - lost
    client = open_tracker(tracking, settings.warehouse.path).client
    [run] = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.info.run_id == report["mlflow_run"] and run.info.status == "FINISHED" and run.data.tags["published_run"] == "night-1"
    assert run.data.metrics["robustness/crop/hit_rate_at_10_drop"] == pytest.approx(report["nuisances"]["crop"]["hit_rate@10"]["drop"])
    assert list((tmp_path / "mlartifacts").rglob("robustness.json")), "beside the database, not where the command was called"
    assert run.data.metrics["robustness/crop/cosine_mean"] < 1 and run.data.metrics["robustness/clean/finds_itself_at_1"] == 1


def test_pictures_that_are_all_gone_are_one_error(spark, published):
    settings, shop = published
    away = shop.rename(shop.with_name("away"))
    try:
        shop.mkdir()
        with pytest.raises(SourceError, match="none of the 6 sampled items can be embedded \\(not_found 6\\): check that the pictures"):
            measure(spark, settings, plan(settings, "crop", items=6), Silent())
    finally:
        shop.rmdir()
        away.rename(shop)


def test_what_is_not_there_is_said_before_any_work(spark, published, tmp_path, capsys, monkeypatch):
    settings, _ = published
    with pytest.raises(UsageError, match="no nuisance named 'blur': choose from typographic"):
        plan(settings, "blur")
    with pytest.raises(WarehouseError, match="nothing is published"):
        plan(settings.model_copy(update={"warehouse": settings.warehouse.model_copy(update={"path": str(tmp_path / "none")})}))
    other = write_tiny_encoder(tmp_path / "other", seed=9)
    with pytest.raises(ModelError, match="set encoder.path to the encoder of run night-1"):
        plan(settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"path": str(other)})}))
    before = state(settings)
    monkeypatch.setattr("tgq.spark.session.open_session", lambda *a: pytest.fail("a dry run needs no Spark"))
    sets = ["--set", f"encoder.path={settings.encoder.path}", "--warehouse", settings.warehouse.path]
    with pytest.raises(SystemExit) as ended:
        cli.main(["robustness", *sets, "--dry-run", "--items", "10", "--nuisance", "scene", "--nuisance", "banner"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "would embed 10 items (seed 0) clean and disturbed, up to 30 views" in said and state(settings) == before
    assert said.index("banner") < said.index("scene") and NUISANCES["scene"].text in said and "jpeg" not in said


def test_a_catalog_of_words_without_pairs_is_measured_by_finding_itself(make_night, items, spark):
    night, data = make_night(tracking={"enabled": False}), items(n=30, dim=32)
    data.write(night)
    build_index(night)
    publish_index(night, night.warehouse.versions("catalog_items", "item_embeddings"))
    with pytest.raises(UsageError, match="none of the 10 sampled items has a picture: name nuisances of the metadata"):
        measure(spark, night.settings, plan(night.settings, items=10), Silent())
    report = measure(spark, night.settings, plan(night.settings, "wrong_title", "missing_text", items=10), Silent())
    told = report["nuisances"]["wrong_title"]
    assert told["items"] == 10 and report["nuisances"]["missing_text"] | {"items": 0, "not_applicable": 10} == report["nuisances"]["missing_text"]
    assert report["queries"] == told["queries"] == 0 and report["clean"]["hit_rate@10"] is None
    assert "finds_itself@1" in told and "hit_rate@1" not in told and len(robustness_tables(report)) == 1


def test_views_are_the_same_in_every_partitioning_and_wear_one_nuisance_each(spark, tiny_encoder, tmp_path):
    """Straight through the worker: rows in two orders and batches; and vectors equal to those of views made by hand."""
    import pyarrow.parquet as pq
    import torch

    from tgq.encoder.text import metadata_text
    from tgq.registry.loading import load_encoder

    rng, rows = np.random.default_rng(0), []
    for n in range(5):
        stored = BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(stored, "PNG")
        rows.append({"item_id": f"item {n}", "title": f"red shoe {n}", "brand": "" if n else "acme", "category": "shoes", "attributes": None,
                     "group_id": None, "image_uri": None, "image_bytes": stored.getvalue()})  # fmt: skip
    rows[4]["image_bytes"] = b"no picture"
    schema = pa.schema([(k, pa.string()) for k in ("item_id", "title", "brand", "category")] + [("attributes", pa.map_(pa.string(), pa.string()))]
                       + [("group_id", pa.string()), ("image_uri", pa.string()), ("image_bytes", pa.binary())])  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows[:4], schema), tmp_path / "cast.parquet")
    settings = load_settings(["local"], [f"encoder.path={tiny_encoder}"], {}).settings
    worker = EmbedWorker.of(settings, str(tiny_encoder), None)
    view_encoder = ViewEncoder(replace(worker, limits=ImageLimits(max_bytes=8000)), settings.metadata, tuple(NUISANCES), 7, str(tmp_path / "cast.parquet"))

    def run(order, size):
        batches = [pa.RecordBatch.from_pylist([rows[i] for i in order[at : at + size]], schema) for at in range(0, 5, size)]
        return {(row["item_id"], row["view"]): row for batch in view_encoder.run(iter(batches)) for row in batch.to_pylist()}

    one, two = run([0, 1, 2, 3, 4], 5), run([4, 2, 0, 3, 1], 2)
    assert one.keys() == two.keys()
    for key, row in one.items():
        assert row["reason"] == two[key]["reason"] and np.allclose(row["embedding"] or [], two[key]["embedding"] or [], atol=1e-6)
    assert one["item 4", CLEAN]["reason"] == "not_an_image" and ("item 4", "jpeg") not in one
    assert one["item 0", "missing_brand"]["embedding"] and one["item 1", "missing_brand"]["reason"] == NOT_APPLICABLE
    assert one["item 0", "shuffled_attributes"]["reason"] == NOT_APPLICABLE

    encoder = load_encoder(str(tiny_encoder), "cpu", "float32")
    item = Item("item 0", Image.open(BytesIO(rows[0]["image_bytes"])), "red shoe 0", "acme", "shoes")
    for name in ("crop", "typographic_own", "missing_brand"):
        view = apply(name, item, [], 7)
        words = metadata_text(view.title, view.brand, view.category, None)
        vector = encoder.encode(encoder.vision.preprocess(view.image)[None], torch.tensor([0]), [words], [view.title]).embedding.numpy()[0]
        assert np.allclose(one["item 0", name]["embedding"], vector, atol=1e-5), name


def test_figures_are_paired():
    """Two queries that fall and rise: no drop; an interval of differences, not of rates."""
    n = 40
    clean, noisy = np.tile([1.0, 0.0], n // 2), np.tile([1.0, 0.0], n // 2)
    noisy[0] = 0.0
    table = pa.table({
        "kind": ["hit_rate"] * n + ["finds_itself"] * n, "group_key": np.tile(np.arange(n), 2), "cosine": np.full(2 * n, 0.5),
        **{f"at_{k}": np.tile(noisy, 2) for k in (1, 10)}, **{f"clean_at_{k}": np.tile(clean, 2) for k in (1, 10)},
    })  # fmt: skip
    told = figures(table, EvaluateSettings(replicates=400))
    assert (told["items"], told["queries"]) == (n, n) and told["cosine"] == {"mean": 0.5, "ci_low": 0.5, "ci_high": 0.5}
    one = told["hit_rate@1"]
    assert one["drop"] == pytest.approx(1 / n) and 0 <= one["ci_low"] and one["ci_high"] < 0.1, "the rates themselves vary by 0.15"
    assert figures(table.slice(n), EvaluateSettings(replicates=10)).keys() == {"items", "queries", "cosine", "finds_itself@1", "finds_itself@10"}
