"""Training as a job, on a drawn catalog through tiny towers."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tgq import config
from tgq.demo.catalog import draw_catalog
from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.errors import SourceError, UsageError
from tgq.pipeline.night import Silent
from tgq.pipeline.train import grouped_rows, train_encoder
from tgq.tracking import open_tracker
from tgq.training.split import split_of
from tgq.training.train import TrainConfig


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=120, seed=3, size=64, workers=1)
    return folder


@pytest.fixture
def run(spark, shop, tiny_encoder, tmp_path):
    shape = EncoderConfig.read(tiny_encoder)
    towers = {name: str((tiny_encoder / getattr(shape, name)).resolve()) for name in ("vision", "text")}
    options = TrainConfig(seed=5, steps=6, pairs=8, evaluate_every=3)

    def train(name="encoder", seed=5, cache=None, **more):
        return train_encoder(spark, tmp_path / name, [f"{shop}=catalogs/demo"], replace(shape, **towers), replace(options, seed=seed),
                             1000, cache, None, Silent(), **more)  # fmt: skip

    return train


def test_training_writes_an_encoder_that_loads_and_says_what_made_it(run, tmp_path, shop):
    trained = run(cache=tmp_path / "cache")
    loaded = TGQFormer.from_pretrained(tmp_path / "encoder")
    assert loaded.model_version == trained.model_version
    record = json.loads((tmp_path / "encoder" / "training.json").read_text())
    assert record["catalogs"] == ["demo=catalogs/demo"] and record["training"]["seed"] == 5
    assert 0 < trained.validation_mrr <= 1 and trained.steps == 6
    with pytest.raises(UsageError, match="already holds an encoder"):
        run()
    # the same seed makes the same weights, from the towers or from the cache; another seed makes others
    assert run("again", cache=tmp_path / "cache").model_version == trained.model_version
    assert run("other", seed=6, cache=tmp_path / "cache").model_version != trained.model_version
    # the curve is in MLflow
    settings = config.load(["local"], []).settings.tracking
    client = open_tracker(settings, str(tmp_path / "encoder")).client
    [found] = client.search_runs([client.get_experiment_by_name("tgq-training").experiment_id])
    curve = client.get_metric_history(found.info.run_id, "validation_mrr")
    assert [point.step for point in curve] == [0, 3, 6]


def test_no_item_of_a_test_group_is_trained_on_and_a_limit_leaves_whole_groups_out(spark, shop):
    settings = config.load(["local", "catalogs/demo"], [f"catalog.path={json.dumps(str(shop))}"]).settings
    rows = list(grouped_rows(spark, settings, "demo", 10_000))
    groups = {row.group for row in rows}
    assert groups and all(split_of(group) == "train" for group in groups)
    assert all(row.image for row in rows)
    few = list(grouped_rows(spark, settings, "demo", 60))
    kept = {row.group for row in few}
    assert kept < groups and len(few) == np.sum([row.group in kept for row in rows])


def test_a_catalog_without_groups_cannot_be_trained_on(spark, shop):
    settings = config.load(["local"], [f"catalog.path={json.dumps(str(shop))}", "catalog.columns.group_id=null"]).settings
    with pytest.raises(SourceError, match="no groups on the train side.*catalog.columns.group_id"):
        list(grouped_rows(spark, settings, "demo", 1000))
