"""A query tower is trained on a warehouse, and its folder is the encoder with the tower."""

import json
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np
import pytest
import torch

from tgq.demo.catalog import draw_catalog
from tgq.embedding.embed import embed
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, UsageError
from tgq.night.ingestion import ingest
from tgq.query_tower.config import FOLDER, held_out_share, version_of
from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.split import is_validation
from tgq.registry.loading import load_query_tower, versions_of
from tgq.run.night import Night
from tgq.run.progress import Silent
from tgq.settings.load import load_settings
from tgq.storage.warehouse import Warehouse
from tgq.training_job import query_job
from tgq.training_job.query_job import planned, train_query_tower
from tgq.training_job.query_sets import item_sample, training_queries

OPTIONS = QueryTrainConfig(steps=2, batch=8, others=16, evaluate_every=2, domain_queries=60, validation_share=0.3)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    from tgq.encoder.tiny import write_tiny_encoder

    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"), connector="moe_bilinear")


@pytest.fixture(scope="module")
def night(spark, tmp_path_factory, encoder):
    """A warehouse with an embedded demo catalog and its queries, but nothing published."""
    place = tmp_path_factory.mktemp("query-training")
    draw_catalog(place / "demo", items=200, seed=3, size=64, workers=1)
    named = {"catalog.path": str(place / "demo"), "warehouse.path": str(place / "warehouse"), "encoder.path": str(encoder), "tracking.enabled": False}
    settings = load_settings(["local", "catalogs/demo"], [f"{key}={json.dumps(value)}" for key, value in named.items()]).settings
    night = Night(spark, settings, Warehouse(spark, settings.warehouse), "night-1", datetime.now(timezone.utc), Silent())
    ingest(night)
    embed(night)
    return night


def test_the_folder_is_the_encoder_with_a_tower_that_answers(night, spark, encoder, tmp_path):
    told, silent = [], Silent()
    silent.say = told.append
    result = train_query_tower(spark, night.settings, tmp_path / "out", None, OPTIONS, 50, None, silent)
    out = tmp_path / "out"
    assert versions_of(str(out))[0] == versions_of(str(encoder))[0] == result.model_version, "the item embeddings stay as they are"
    assert result.version == version_of(out / FOLDER) and result.best_ndcg >= result.start_ndcg > 0
    tower = load_query_tower(str(out))
    assert tower.config.item_model == result.model_version and tower.encode_queries(["red shirt"]).shape == (1, tower.dim)
    assert (out / FOLDER / tower.config.text).is_dir() and not (out / FOLDER / tower.config.text).resolve().is_relative_to(encoder)
    record = json.loads((out / FOLDER / "training.json").read_text())
    assert record["queries"] == result.queries > 0 and record["generated"] == result.generated > 0 and record["training"]["steps"] == 2
    assert held_out_share(out / FOLDER) == OPTIONS.validation_share, "which promotion compares with its own share"
    assert any("judged queries" in line for line in told)
    with pytest.raises(UsageError, match="already holds an encoder"):
        train_query_tower(spark, night.settings, out, None, OPTIONS, 50, None, Silent())


def test_only_queries_of_the_train_split_are_read(night):
    found = training_queries(night, 1000)
    train = {row["text"] for row in night.warehouse.read("relevance_queries").where("split = 'train'").collect()}
    assert set(found.texts) <= train and len(found.texts) > 10
    assert all(max(gains) > 0 for gains in found.gains)
    assert len(training_queries(night, 3).texts) == 3
    assert {is_validation(text, 0.3) for text in found.texts} == {True, False}


def test_the_sample_holds_the_wanted_items_with_their_embeddings(night):
    stored = {row["item_id"]: row["embedding"] for row in night.warehouse.read("item_embeddings").collect()}
    wanted = sorted(stored)[:5]
    sample = item_sample(night, wanted, 20)
    assert len(sample.ids) == 20 and set(wanted) <= set(sample.ids) and sample.ids == sorted(sample.ids)
    for item_id, row in sample.places.items():
        assert np.allclose(sample.items.vectors[row], stored[item_id], atol=1e-6)
    assert sample.items.has_image.any() and sample.items.has_text.all()


def test_a_joint_training_gives_another_encoder(night, spark, encoder, tmp_path):
    options = QueryTrainConfig(**{**OPTIONS.__dict__, "joint": True, "stages": "fusion", "steps": 6, "lr": 0.01, "evaluate_every": 2})
    result = train_query_tower(spark, night.settings, tmp_path / "out", None, options, 50, None, Silent())
    assert versions_of(str(tmp_path / "out"))[0] == result.model_version
    assert load_query_tower(str(tmp_path / "out")).config.item_model == result.model_version


def test_the_head_of_a_design_with_tokens_is_trained_jointly_over_its_frozen_connector(night, spark, tiny_encoder, tmp_path):
    from tgq.registry.selection import with_encoder

    night = replace(night, settings=with_encoder(night.settings, str(tiny_encoder)), run_id="night-2")
    with pytest.raises(SourceError, match="no item embedded by model"):
        train_query_tower(spark, night.settings, tmp_path / "out", None, OPTIONS, 50, None, Silent())
    with pytest.raises(SourceError, match="no item embedded by model"):
        list(planned(spark, night.settings))
    assert not (tmp_path / "out").exists()
    embed(night)
    model = TGQFormer.from_pretrained(tiny_encoder)
    sample = item_sample(night, [], 40)
    side = query_job._item_side(night, model, model.head.base, sample)
    assert np.allclose(side.vectors(), sample.items.vectors, atol=1e-4), "it begins as the encoder itself"
    options = QueryTrainConfig(**{**OPTIONS.__dict__, "joint": True, "stages": "fusion", "steps": 6, "lr": 0.01, "evaluate_every": 2})
    result = train_query_tower(spark, night.settings, tmp_path / "out", None, options, 50, None, Silent())
    assert result.model_version == versions_of(str(tmp_path / "out"))[0] != versions_of(str(tiny_encoder))[0]
    assert load_query_tower(str(tmp_path / "out")).config.item_model == result.model_version
    before, after = (TGQFormer.from_pretrained(folder).own_state() for folder in (tiny_encoder, tmp_path / "out"))
    assert {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])} == {"base"}, "all else stays as it is"


def test_a_language_model_as_head_cannot_be_trained_jointly(night, spark, tmp_path):
    from types import SimpleNamespace

    with pytest.raises(UsageError, match="the item side of the head 'llm' cannot be trained with the queries"):
        query_job._joint_base(SimpleNamespace(head=None, config=SimpleNamespace(head="llm")))


def test_the_dry_run_says_what_would_be_read(night, spark):
    lines = "\n".join(planned(spark, night.settings))
    assert "without a query tower" in lines and "items with an embedding of it: " in lines and "judged queries of the train split: " in lines


def test_without_judged_queries_generated_ones_take_their_place(night, spark, tmp_path, monkeypatch):
    monkeypatch.setattr(query_job, "MAX_QUERIES", 0)
    result = train_query_tower(spark, night.settings, tmp_path / "out", None, OPTIONS, 50, None, Silent())
    assert result.queries == 0 and result.generated > 0 and load_query_tower(str(tmp_path / "out")) is not None
