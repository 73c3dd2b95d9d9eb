"""Query towers compared on held-out training queries: which queries count, what is compared, and what a promotion of a tower changes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from tests.fixtures.nights import append, unit
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import EvidenceError, ModelError, UsageError
from tgq.evaluation import promotion as step
from tgq.query_tower.config import FOLDER, RECORD, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.split import is_validation
from tgq.registry.champion import model_path, read_history
from tgq.registry.loading import load_query_tower, query_version_of, versions_of
from tgq.registry.selection import published_folder
from tgq.registry.tracking import open_tracker
from tgq.retrieval.manifest import Manifest
from tgq.settings.load import load_settings
from tgq.settings.sections import TrackingSettings
from tgq.training.data.split import split_of
from tgq.upkeep.mlflow_runs import runs_beyond

N, KINDS, DIM = 120, 12, 16
TEXTS = [f"{colour} {noun}" for colour in ("red", "green", "blue", "black") for noun in ("shoe", "mug", "lamp")]


def tower_in(encoder, target, items=None):
    """The encoder's folder with a query tower whose map sends TEXTS to the rows of `target`, as far as it can."""
    place = Path(encoder) / FOLDER
    tower = QueryTower(QueryTowerConfig(items or versions_of(str(encoder))[0], DIM, text="../towers/text"), relative_to=place).eval()
    with torch.no_grad():
        features = torch.nn.functional.normalize(tower.pooled(TEXTS), dim=-1)
        tower.project.weight.copy_((torch.linalg.pinv(features) @ torch.from_numpy(target).float()).T)
    tower.save(place)
    return str(encoder)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Encoders by name: `good` and `bad` give the same items and differ in their towers, `other` has another item model and no tower."""
    folder, rng = tmp_path_factory.mktemp("rivals"), np.random.default_rng(3)
    centres, noise = (unit(rng.standard_normal((KINDS, DIM))) for _ in range(2))
    write_tiny_encoder(folder / "bare", seed=0, dim=DIM)
    for name, target in (("good", centres), ("bad", noise)):
        shutil.copytree(folder / "bare", folder / name)
        (folder / name / FOLDER).mkdir()
        tower_in(folder / name, target)
    write_tiny_encoder(folder / "other", seed=1, dim=DIM)
    return {name: str(folder / name) for name in ("bare", "good", "bad", "other")}, centres


@pytest.fixture
def shop(make_night, items, encoders, monkeypatch):
    """A warehouse whose items are of KINDS kinds, with a query of the train split for each and the same texts longer in the test split."""
    folders, centres = encoders
    monkeypatch.setattr("tgq.registry.selection.BUNDLED_FOLDER", Path(folders["bad"]))
    options = {"evaluate": {"replicates": 200, "min_slice_queries": 3, "exclude_same_image": False}, "promote": {"share": 0.6}, "tracking": {"enabled": False}}
    night, data = make_night(**options), items(n=N, styles=KINDS, dim=DIM)
    data.vectors = unit(centres[data.style] + 0.1 * np.random.default_rng(1).standard_normal((N, DIM))).astype(np.float32)
    data.write(night, features=False)
    night.spark.sql("DELETE FROM tgq.item_embeddings")
    data.write_vectors(night, versions_of(folders["bare"])[0], data.vectors)
    data.write_vectors(night, versions_of(folders["other"])[0], data.vectors[:, ::-1])
    data.write_pairs(night, split=split_of)
    rows = [(f"{split}-{n}", text if split == "train" else f"{text} {split}", split, n) for split in ("train", "test") for n, text in enumerate(TEXTS)]
    append(night, "relevance_queries", [
        dict(query_id=query_id, text=text.upper(), normalised_text=text, split=split, source="human", popularity=1.0, run_id="r")
        for query_id, text, split, _ in rows
    ])  # fmt: skip
    append(night, "query_judgments", [
        dict(query_id=query_id, item_id=data.ids[i], grade=3.0, weight=1.0, source="judgments", run_id="r")
        for query_id, _, _, kind in rows for i in np.flatnonzero(data.style == kind)[:4]
    ])  # fmt: skip
    return night, data, folders


def reciprocal_ranks(data, folder, texts):
    scores = np.round(load_query_tower(folder).encode_queries([text.upper() for text in texts]) @ data.vectors.T, 6)
    wanted = [np.flatnonzero(data.style == TEXTS.index(text))[:4] for text in texts]
    return [1 / (1 + (row > row[own].max()).sum()) for row, own in zip(scores, wanted, strict=True)]


def test_towers_are_compared_on_held_out_queries_alone_and_a_better_one_answers_at_once(shop, monkeypatch):
    night, data, folders = shop
    root, items = night.warehouse.root, versions_of(folders["bare"])[0]
    monkeypatch.setattr(step, "score", lambda *_: pytest.fail("items were compared"))
    held = [text for text in TEXTS if is_validation(text, 0.6)]
    assert 3 <= len(held) < KINDS
    contenders = step.contenders_of(root, folders["good"])
    assert contenders.same_items and not contenders.same and contenders.names[0] == f"{items}-{query_version_of(folders['good'])}"
    lines = list(step.dry_run(night, contenders))
    assert f"search queries: {len(held)} held-out ones" in lines and not any("to embed" in line for line in lines)

    found = step.promote(night, contenders)
    by = {(d["slice"], d["metric"]): d for d in found["differences"]}
    assert found["passed"] and found["promoted"] and found["searches"] == len(held) and found["pool_size"] == N
    assert {metric for _, metric in by} == {"query_ndcg@10", "query_mrr"}
    mrr = by["all", "query_mrr"]
    assert mrr["n_queries"] == len(held) and mrr["ci_low"] <= mrr["difference"] <= mrr["ci_high"]
    for side, name in (("candidate", "good"), ("champion", "bad")):
        assert mrr[side] == pytest.approx(np.mean(reciprocal_ranks(data, folders[name], held))), side
    assert mrr["candidate"] > mrr["champion"] + 0.2
    promotion = read_history(root).champion
    assert (promotion.name, promotion.previous) == contenders.names and promotion.figures["searches"] == len(held)
    published = Manifest("g", "r", items, "default", "2026-01-31T02:00:00+00:00")
    settings = night.settings.model_copy(update={"encoder": night.settings.encoder.model_copy(update={"path": "champion"})})
    assert published_folder(settings, published) == model_path(root, promotion.name)

    # the worse one is refused by its name; forced, it answers, and a rollback gives the better one back
    contenders = step.contenders_of(root, folders["bad"])
    refused = step.promote(night, contenders)
    error = str(step.refusal(refused))
    assert f"{contenders.names[0]} is not promoted" in error and "query_ndcg@10 is" in error and read_history(root).champion == promotion
    assert step.promote(night, contenders, force=True)["forced"] and published_folder(settings, published) == model_path(root, contenders.names[0])
    assert step.rollback_model(settings) == promotion.name and published_folder(settings, published) == model_path(root, promotion.name)
    assert step.contenders_of(root, folders["good"]).same


def test_mlflow_has_the_champions_tower_as_a_model_of_texts(shop, mlflow_in):
    night, _, folders = shop
    root = night.warehouse.root
    mlflow_in(root)
    settings = night.settings.model_copy(update={"tracking": TrackingSettings(), "encoder": night.settings.encoder.model_copy(update={"path": "champion"})})
    night = replace(night, settings=settings)
    client, name = open_tracker(settings.tracking, root).client, settings.tracking.registered_query_model

    def champion():
        return client.get_registered_model(name).aliases.get("champion")

    def vectors():
        mlflow.set_registry_uri(client.tracking_uri)
        return mlflow.pyfunc.load_model(f"models:/{name}@champion").predict(pd.Series(TEXTS))

    assert step.promote(night, step.contenders_of(root, folders["good"]))["promoted"]
    np.testing.assert_allclose(vectors(), load_query_tower(folders["good"]).encode_queries(TEXTS), atol=1e-6)
    assert client.get_model_version(name, champion()).tags["query_version"] == query_version_of(folders["good"])
    step.promote(night, step.contenders_of(root, folders["bad"]), force=True)
    assert champion() == 2
    step.rollback_model(settings)
    assert champion() == 1 and len(client.search_model_versions(f"name = '{name}'")) == 2
    step.promote(night, step.contenders_of(root, folders["bare"]), force=True)
    assert champion() is None, "an encoder without a query tower has no champion among them"
    tracker = open_tracker(settings.tracking.model_copy(update={"experiment": step.EXPERIMENT}), root)
    kept = {version.run_id for version in client.search_model_versions(f"name = '{name}'")}
    client.delete_registered_model(settings.tracking.registered_model)
    assert len(kept) == 2 and not kept & set(runs_beyond(tracker, 0)), "their runs have the files"


def test_another_item_model_is_compared_on_items_and_on_queries(shop):
    night, data, folders = shop
    contenders = step.contenders_of(night.warehouse.root, folders["other"])
    differences, figures = step.compare_metrics(step.open_comparison(night, contenders), contenders)
    metrics = [d.metric for d in differences if d.slice == "all"]
    assert metrics == ["coverage", "mrr", "hit_rate@10", "query_ndcg@10", "query_mrr"] and figures["searches"] < figures["queries"]
    champion = next(d.champion for d in differences if d.metric == "query_mrr")
    assert champion == pytest.approx(np.mean(reciprocal_ranks(data, folders["bad"], [text for text in TEXTS if is_validation(text, 0.6)])))


def test_without_held_out_queries_towers_are_not_compared_and_items_still_are(shop, monkeypatch):
    night, _, folders = shop
    root = night.warehouse.root
    night.spark.sql("DELETE FROM tgq.query_judgments WHERE query_id LIKE 'train%'")  # those of test queries stay
    contenders = step.contenders_of(root, folders["good"])
    with pytest.raises(EvidenceError, match=r"has no held-out search queries .*--force"):
        step.promote(night, contenders)
    assert "no held-out search queries" in list(step.dry_run(night, contenders))[-1]
    assert step.promote(night, contenders, force=True)["forced"] and read_history(root).champion.name == contenders.names[0]
    contenders = step.contenders_of(root, folders["other"])
    differences, _ = step.compare_metrics(step.open_comparison(night, contenders), contenders)
    assert {d.metric for d in differences} == {"coverage", "mrr", "hit_rate@10"}


def test_a_tower_of_another_item_model_is_refused(shop, tmp_path):
    night, _, folders = shop
    shutil.copytree(folders["good"], tmp_path / "wrong")
    tower_in(tmp_path / "wrong", np.eye(KINDS, DIM), items="0" * 16)
    with pytest.raises(ModelError, match="is for item embeddings of model 0000"):
        step.contenders_of(night.warehouse.root, str(tmp_path / "wrong"))


def recorded(folder, target, text):
    """A copy of an encoder with this record of its query tower's training."""
    shutil.copytree(folder, target)
    (target / FOLDER / RECORD).write_text(text)
    return str(target)


def test_a_tower_that_was_trained_on_the_queries_of_the_comparison_is_refused(shop, tmp_path):
    night, _, folders = shop
    root, share = night.warehouse.root, night.settings.promote.share

    def contenders(name, text):
        return step.contenders_of(root, recorded(folders["good"], tmp_path / name, text))

    said = "was trained with validation_share=0.15, so it has seen queries that promote.share=0.6 compares on: lower promote.share, or train it again"
    seen = contenders("seen", '{"training": {"validation_share": 0.15}}')
    for comparison in (lambda: step.promote(night, seen), lambda: step.promote(night, seen, force=True), lambda: list(step.dry_run(night, seen))):
        with pytest.raises(UsageError, match=said):
            comparison()
    assert not night.warehouse.rows("pipeline_runs", {"step": step.STEP}, "run_id"), "before anything is done"
    with pytest.raises(ModelError, match="training.json is not the record of a query tower's training"):
        step.promote(night, contenders("broken", "{}"))
    unseen = contenders("unseen", json.dumps({"training": {"validation_share": share}}))
    assert step.promote(night, unseen)["promoted"]
    night.spark.sql("DELETE FROM tgq.relevance_queries WHERE split = 'train'")
    assert list(step.dry_run(night, seen)), "without training queries no tower has seen any"


def test_training_and_promotion_hold_out_the_same_queries_by_default():
    assert load_settings([], [], {}).settings.promote.share == QueryTrainConfig().validation_share
