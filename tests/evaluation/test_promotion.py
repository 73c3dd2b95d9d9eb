"""Promotion on items whose vectors are known, then between two nights with encoders that really run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tgq.demo.catalog import draw_catalog
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import EvidenceError, TrackingError, UsageError, WarehouseError
from tgq.evaluation import promotion as step
from tgq.evaluation.queries import validation_pairs
from tgq.index.search import search
from tgq.night.nightly import STEPS, Nightly
from tgq.registry.champion import model_path, read_history
from tgq.registry.loading import versions_of
from tgq.registry.tracking import open_tracker
from tgq.retrieval import manifest
from tgq.run.night import StepResult
from tgq.run.opening import open_night
from tgq.run.records import record
from tgq.settings.load import load_settings
from tgq.training.data.split import split_of
from tgq.training.trainer import TrainConfig


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Three encoders by name, of other towers and widths; `first` stands for the bundled one."""
    folder = tmp_path_factory.mktemp("encoders")
    return {name: str(write_tiny_encoder(folder / name, seed=seed, dim=32 + 16 * seed)) for seed, name in enumerate(("first", "equal", "bad"))}


@pytest.fixture
def bundled(encoders, monkeypatch):
    monkeypatch.setattr("tgq.registry.selection.BUNDLED_FOLDER", Path(encoders["first"]))


@pytest.fixture
def shop(make_night, items, encoders, bundled, mlflow_in):
    """A warehouse where all three encoders have embedded everything: `equal` is `first` in other coordinates, `bad` is noise."""
    night, data = make_night(evaluate={"replicates": 200, "exclude_same_image": False}, promote={"share": 0.5}), items(n=240, styles=40)
    mlflow_in(night.warehouse.root)
    data.write(night, features=False)
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((data.dim, data.dim)))[0]
    noise = rng.standard_normal(data.vectors.shape)
    data.by = {"first": data.vectors, "equal": data.vectors @ rotation, "bad": noise / np.linalg.norm(noise, axis=1, keepdims=True)}
    night.spark.sql("DELETE FROM tgq.item_embeddings")
    for name, folder in encoders.items():
        data.write_vectors(night, versions_of(folder)[0], data.by[name])
    data.write_pairs(night, split=split_of)
    record(night, "nightly", "done", night.started_at, night.started_at, StepResult(figures={"catalog": None, "encoder": "default"}))
    return night, data


def held_out(unit_id, share):
    return split_of(unit_id) == "train" and split_of(f"{unit_id}:validation", share) == "test"


def mean_reciprocal_rank(data, vectors, share):
    """Over the validation queries: of the best positive's rank in the whole pool, without what is not judged."""
    scores, found = np.round(vectors @ vectors.T, 6), []
    for i in range(data.n):
        if not held_out(f"g{data.style[i]}", share):
            continue
        others = {j: w for q, j, w in data.pairs() if q == i}
        ranked = [j for j in np.argsort(-scores[i], kind="stable") if j != i and others.get(j, 1.0) > 0]
        found.append(1 / (1 + next(n for n, j in enumerate(ranked) if j in others)))
    return float(np.mean(found)), len(found)


def alias(night):
    client = open_tracker(night.settings.tracking, night.warehouse.root).client
    return client.get_model_version_by_alias("tgq-encoder", "champion").tags["model_version"]


def test_the_validation_pairs_are_those_that_training_holds_out(make_night, items):
    assert load_settings([], [], {}).settings.promote.share == TrainConfig().validation_share
    data = items(n=600, styles=300)
    data.write_pairs(make_night(), split=split_of)
    for share in (0.15, 0.5):
        found = {row.group_id for row in validation_pairs(make_night(promote={"share": share})).select("group_id").collect()}
        assert found == {f"g{style}" for style in data.style if held_out(f"g{style}", share)} and found


def test_an_equal_is_promoted_a_bad_one_is_not_and_force_is_remembered(shop, encoders, monkeypatch):
    night, data = shop
    root, store = night.warehouse.root, night.warehouse
    version = {name: versions_of(folder)[0] for name, folder in encoders.items()}
    vectors = store.version("item_embeddings")
    contenders = step.contenders_of(root, encoders["equal"])
    assert (contenders.candidate, contenders.champion) == (version["equal"], version["first"])

    # what would be done, before anything is
    lines = list(step.dry_run(night, contenders))
    expected, n = mean_reciprocal_rank(data, data.vectors, 0.5)
    assert f"queries: {n} of {len({s for s in data.style if held_out(f'g{s}', 0.5)})} validation groups, over a pool of 240 active items" in lines
    assert "to embed for the candidate: 0 items" in lines and not Path(root, "models").exists()

    # killed in the middle, and once more right before the pointer moves
    with monkeypatch.context() as patch:
        patch.setattr(step, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            step.promote(night, contenders)
    [begun] = store.read("pipeline_runs").where("step = 'promote'").collect()
    with monkeypatch.context() as patch:
        patch.setattr(step, "write_history", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            step.promote(night, contenders)
    [ended] = store.read("pipeline_runs").where("step = 'promote'").collect()
    assert begun.status == "running" and (ended.run_id, ended.status) == (begun.run_id, "done")
    assert step.contenders_of(root, encoders["equal"]) == contenders, "the pointer is the last to move"
    found = step.promote(night, contenders)
    assert found["promoted"] and found["passed"] and not found["forced"] and step.refusal(found) is None
    by = {(d["slice"], d["metric"]): d for d in found["differences"]}
    assert by["all", "mrr"]["champion"] == pytest.approx(expected) == by["all", "mrr"]["candidate"] and by["all", "mrr"]["n_queries"] == n
    assert by["all", "coverage"]["difference"] == 0 and ("has_brand=true", "hit_rate@10") in by
    assert all(abs(d["difference"]) < 1e-9 and d["ci_low"] > -1e-9 for d in by.values())
    history = read_history(root)
    [made] = history.promotions
    assert (made.model_version, made.previous, made.forced) == (version["equal"], version["first"], False)
    assert made.figures["queries"] == n and {d["slice"] for d in made.figures["differences"]} == {"all"}
    assert versions_of(model_path(root, version["equal"]))[0] == version["equal"] == alias(night)
    assert step.contenders_of(root, encoders["equal"]).same
    assert store.version("item_embeddings") == vectors and manifest.load_current(root) is None and store.read("retrieval_metrics").isEmpty()

    # a worse one is refused by name, and nothing moves
    contenders = step.contenders_of(root, encoders["bad"])
    refused = step.promote(night, contenders)
    worse, _ = mean_reciprocal_rank(data, data.by["bad"], 0.5)
    by = {(d["slice"], d["metric"]): d for d in refused["differences"]}
    overall = by["all", "mrr"]
    assert overall["candidate"] == pytest.approx(worse) and overall["ci_low"] < overall["difference"] < overall["ci_high"] < 0
    error = str(step.refusal(refused))
    assert step.refusal(refused).exit_code == 3 and f"mrr is {worse:.4f}, the champion's {expected:.4f}: difference {worse - expected:+.4f}" in error
    assert "hit_rate@10 in overlay=yes" not in error and "mrr in popularity=tail" in error
    assert read_history(root) == history and alias(night) == version["equal"]
    last = store.read("pipeline_runs").where("step = 'promote'").orderBy("started_at").collect()[-1]
    assert last.status == "refused" and json.loads(last.detail)["reasons"] == refused["reasons"]

    # MLflow that takes no encoder leaves the champion
    with monkeypatch.context() as patch:
        patch.setattr("tgq.registry.tracking.Tracker.publish_encoder", lambda self, *_, **__: self.problems.append("MLflow: full"))
        with pytest.raises(TrackingError, match="the champion stays, because of MLflow: full"):
            step.promote(night, contenders, force=True)
    assert read_history(root) == history
    forced = step.promote(night, contenders, force=True)
    assert forced["forced"] and forced["promoted"] and not forced["passed"] and read_history(root).champion.forced
    assert alias(night) == version["bad"]

    # and back, one by one
    assert step.rollback_model(night.settings) == version["equal"] == alias(night)
    assert step.rollback_model(night.settings) == version["first"] == alias(night)
    assert read_history(root).champion is None and len(read_history(root).promotions) == 2
    with pytest.raises(WarehouseError, match="every promotion was rolled back"):
        step.rollback_model(night.settings)


def test_items_that_only_the_champion_can_embed_speak_against_the_candidate(shop, encoders, monkeypatch):
    night, data = shop
    candidate = versions_of(encoders["equal"])[0]
    night.spark.sql(f"DELETE FROM tgq.item_embeddings WHERE model_version = '{candidate}' AND item_id < 'item-0012'")
    monkeypatch.setattr(step, "embed", lambda night: None)
    contenders = step.contenders_of(night.warehouse.root, encoders["equal"])
    differences, figures = step.compare_metrics(step.open_comparison(night, contenders), contenders)
    assert differences[0].metric == "coverage" and differences[0].ci_low == pytest.approx(-12 / 240) and figures["pool_size"] == 228


def test_too_few_queries_are_an_error_before_anything_is_embedded(shop, encoders, monkeypatch):
    night, _ = shop
    monkeypatch.setattr(step, "embed", lambda night: pytest.fail("embedded"))
    few = replace(night, settings=night.settings.model_copy(update={"tracking": night.settings.tracking.model_copy(update={"enabled": False})}))
    night.spark.sql("DELETE FROM tgq.relevance_pairs WHERE split = 'train'")
    contenders = step.contenders_of(night.warehouse.root, encoders["equal"])
    with pytest.raises(EvidenceError, match=r"has no validation queries, and 20 are needed.*--force"):
        step.promote(few, contenders)
    assert "no validation queries" in list(step.dry_run(few, contenders))[-1] and read_history(night.warehouse.root).champion is None
    forced = step.promote(few, contenders, force=True)
    assert forced["forced"] and forced["differences"] == [] and read_history(night.warehouse.root).champion.forced


def test_nights_of_another_encoder_have_no_champion():
    with pytest.raises(UsageError, match="encoder.path is default"):
        step.need_champion(load_settings([], ["encoder.path=default"], {}).settings)


def test_the_next_night_embeds_with_the_champion_and_queries_go_to_what_is_published(spark, tmp_path, empty_tables, encoders, bundled):
    draw_catalog(tmp_path / "shop", items=90, seed=5, size=64, workers=1)
    sets = [f"warehouse.path={tmp_path / 'warehouse'}", f"catalog.path={tmp_path / 'shop'}", "evaluate.replicates=50", "gate.enabled=false",
            "promote.share=1"]  # fmt: skip
    settings = load_settings(["local", "catalogs/demo"], sets, {}).settings
    first, second = (versions_of(encoders[name])[0] for name in ("first", "equal"))

    def night():
        run = Nightly(open_night(spark, settings))
        run.run(list(STEPS))
        return run.summary()

    before = night()
    root = settings.warehouse.path
    joined = open_night(spark, settings, begins=False)
    assert before["published"] and before["model_version"] == first == alias(joined)
    found = step.promote(joined, step.contenders_of(root, encoders["equal"]), force=True)
    rows = joined.warehouse.read("item_embeddings").groupBy("model_version").count().collect()
    assert {row["model_version"]: row["count"] for row in rows} == {first: 90, second: 90} and found["promoted"]
    assert alias(joined) == second and manifest.load_current(root).model_version == first
    assert len(search(settings, text="red shoe", k=3)) == 3, "asked of the published model, not of the champion"

    after = night()
    assert after["published"] and after["model_version"] == second == alias(joined)
    assert (after["rows"]["embedded"], after["rows"]["unchanged"]) == (0, 90), "the candidate's vectors are found there"
    assert manifest.load_current(root).model_version == second and len(search(settings, text="red shoe", k=3)) == 3
    assert step.rollback_model(settings) == first == alias(joined) and manifest.load_current(root).model_version == second
    assert len(search(settings, text="red shoe", k=3)) == 3, "the published model is still in the warehouse"
