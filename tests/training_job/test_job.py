"""Training as a job, on a drawn catalog through tiny towers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tgq.demo.catalog import draw_catalog
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, TgqError, UsageError
from tgq.nuisances import NUISANCES
from tgq.registry.tracking import open_tracker
from tgq.run.progress import Silent
from tgq.settings.load import load_settings
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of
from tgq.training.trainer import TrainConfig
from tgq.training_job.job import Source, launch, train_encoder


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=80, seed=3, size=64, workers=1)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def told():
    """A Progress that remembers what it was to say."""
    silent = Silent()
    silent.said = []
    silent.say = silent.said.append
    return silent


@pytest.fixture
def run(spark, shop, cache, tiny_encoder, mlflow_in, tmp_path, told):
    shape = EncoderConfig.read(tiny_encoder)
    towers = {name: str((tiny_encoder / getattr(shape, name)).resolve()) for name in ("vision", "text")}
    options = TrainConfig(seed=5, steps=6, pairs=8, evaluate_every=3, chunk=8)

    def train(name="encoder", sources=None, items=1000, processes=1, launcher="torchrun", views=0, fit="pad", **changed):
        sources = sources or [Source.of_catalog(f"{shop}=catalogs/demo", cache)]
        mlflow_in(tmp_path / name)
        return train_encoder(spark, tmp_path / name, sources, replace(shape, fit=fit, **towers), replace(options, **changed), items, None, told,
                             processes, launcher, views=views, cache=cache.parent / "views")  # fmt: skip

    return train


@pytest.fixture
def filled(run, cache):
    """The shop's warehouse, which the first training filled, as a source: it is not ingested again."""
    if not any(cache.iterdir()):
        run("fills the warehouse", steps=1, evaluate_every=1)
    settings = load_settings(["local", "catalogs/demo"], [f"warehouse.path={json.dumps(str(next(cache.iterdir())))}"]).settings
    return Source.of_warehouse(settings)


@pytest.fixture
def sets(monkeypatch):
    """The training sets that were trained on."""
    kept, save = [], TrainingSet.save
    monkeypatch.setattr(TrainingSet, "save", lambda rows, path: (kept.append(rows), save(rows, path)))
    return kept


def mlflow_run(folder):
    client = open_tracker(load_settings(["local"], []).settings.tracking, str(folder)).client
    [found] = client.search_runs([client.get_experiment_by_name("tgq-training").experiment_id])
    return client, found


def curve(folder):
    client, found = mlflow_run(folder)
    return {name: [(p.step, p.value) for p in client.get_metric_history(found.info.run_id, name)] for name in ("validation_mrr", "loss")}


def test_training_writes_an_encoder_that_loads_and_says_what_made_it(run, tmp_path, sets):
    trained = run()
    loaded = TGQFormer.from_pretrained(tmp_path / "encoder")
    assert loaded.model_version == trained.model_version
    record = json.loads((tmp_path / "encoder" / "training.json").read_text())
    assert record["sources"] == ["demo"] and record["training"]["seed"] == 5 and record["gflops_per_item"] > 0
    assert record["start"].keys() == {"validation_mrr", "strength", "closeup_share", "base_floor"}
    assert 0 < trained.validation_mrr <= 1 and trained.steps == 6 and not (tmp_path / "encoder" / "work").exists()
    with pytest.raises(UsageError, match="already holds an encoder"):
        run()
    [rows] = sets
    assert len(rows) > 20 and all(split_of(group) == "train" for group in rows.group), "no item of a test group is trained on"
    assert (rows.image_index >= 0).all() and (rows.group[rows.pairs[:, 0]] == rows.group[rows.pairs[:, 1]]).all()
    # the same seed makes the same weights, from what was kept
    assert run("again").model_version == trained.model_version
    told = curve(tmp_path / "encoder")
    assert [step for step, _ in told["validation_mrr"]] == [0, 3, 6] and [step for step, _ in told["loss"]] == [3, 6]
    # a limit leaves whole groups out
    run("few", items=25)
    kept = set(sets[-1].group.tolist())
    assert kept < set(rows.group.tolist()) and len(sets[-1]) == np.isin(rows.group, list(kept)).sum()


def test_views_are_positives_of_their_item_and_of_its_group(run, sets, cache):
    run("views", views=2, items=25)
    [rows] = sets
    clean, views = (rows.subset(np.flatnonzero(rows.catalog == name)) for name in ("demo", "demo-views"))
    kinds, parents = zip(*(item.split("~", 1) for item in views.item), strict=True)
    assert set(parents) == set(clean.item) and kinds.count("clean") == len(clean)
    assert set(kinds) - {"clean"} <= set(NUISANCES) and len(set(kinds)) > 4
    assert 1.5 * len(clean) < len(views) - len(clean) <= 2 * len(clean), "two of each item, fewer where fewer apply"
    assert {parent: group for parent, group in zip(parents, views.group, strict=True)} == dict(zip(clean.item, clean.group, strict=True))
    among = set(zip(views.pairs[:, 0].tolist(), views.pairs[:, 1].tolist(), strict=True))
    shown = views.image_index
    for one, parent in enumerate(parents):
        same = [other for other, of in enumerate(parents) if of == parent and shown[other] != shown[one]]
        assert all((one, other) in among for other in same)
    # a second training finds views and features where the first one left them
    kept = cache.parent / "views" / "demo-views-2-5" / "warehouse" / "tower_features"
    written = sorted(kept.rglob("*.parquet"))
    run("again", views=2, items=25)
    assert written and written == sorted(kept.rglob("*.parquet"))
    assert (sets[-1].image == rows.image).all()


def test_several_processes_have_the_curve_of_one(run, filled, tmp_path):
    for name, more in (("one", {}), ("torchrun", {"processes": 2}), ("spark", {"processes": 2, "launcher": "spark"})):
        run(name, sources=[filled], **more)
    one, *others = (curve(tmp_path / name) for name in ("one", "torchrun", "spark"))
    for other in others:
        for name, points in one.items():
            assert [step for step, _ in other[name]] == [step for step, _ in points]
            assert [value for _, value in other[name]] == pytest.approx([value for _, value in points], rel=1e-4)


def test_a_training_that_fails_leaves_its_curve(run, filled, tmp_path):
    with pytest.raises(TgqError, match="the loss is nan"):
        run("broken", sources=[filled], lr=1e30, base_lr=1e30, evaluate_every=1)
    points = curve(tmp_path / "broken")["validation_mrr"]
    assert len(points) > 1 and [step for step, _ in points] == list(range(len(points)))
    _, found = mlflow_run(tmp_path / "broken")
    assert found.info.status == "FAILED" and found.data.params["train.lr"] == "1e+30" and found.data.params["encoder.connector"] == "tgq"


def test_processes_that_fail_say_why(spark, tmp_path):
    with pytest.raises(TgqError, match="the training's processes failed: .*job.json"):
        launch(tmp_path, 2, "torchrun", spark, "cpu")


def test_a_warehouse_is_trained_on_without_a_tower_and_other_towers_are_said_to_run(run, told, filled, sets):
    run("first")
    run("second", sources=[filled])
    assert "towers ran for 0" in told.said[-2]
    assert (sets[0].item == sets[1].item).all() and np.array_equal(sets[0].image_tokens, sets[1].image_tokens)
    assert not any("other towers" in line for line in told.said)
    run("third", sources=[filled], fit="crop")
    assert any("is of other towers" in line for line in told.said) and "towers ran for 0" not in told.said[-2]


def test_a_catalog_without_pairs_cannot_be_trained_on(run, shop, tmp_path):
    bare = tmp_path / "bare.yaml"
    bare.write_text("catalog: {columns: {group_id: null}}\n")
    with pytest.raises(SourceError, match="no pairs of items on the train side.*catalog.columns.group_id"):
        run(sources=[Source.of_catalog(f"{shop}={bare}", tmp_path / "bare")])
