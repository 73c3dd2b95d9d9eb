"""Upkeep of a warehouse: what nobody needs goes, every kept generation can still be read and rolled back to."""

import shutil
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.upkeep.ageing import age
from tgq.index import build, generations
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry import loading
from tgq.registry.champion import Promotion, encoder_name, model_path, read_history, store_encoder, write_history
from tgq.registry.loading import query_version_of, versions_of
from tgq.registry.selection import with_encoder
from tgq.registry.tracking import open_tracker
from tgq.retrieval import manifest
from tgq.run.night import RUN_STEP, StepResult
from tgq.run.progress import Silent
from tgq.run.records import record
from tgq.storage.artifacts import write_json
from tgq.upkeep.maintain import STEP, maintain
from tgq.upkeep.needed import needed
from tgq.upkeep.retention import PROPERTY, kept_hours, needed_hours, next_hours

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def test_removed_files_are_kept_as_long_as_a_kept_generation_needs_them():
    assert needed_hours(None, 1, NOW) == 0 and needed_hours(NOW - timedelta(days=2), 1, NOW) == 49
    assert kept_hours({}) == 168 and kept_hours({PROPERTY: "interval 30 days"}) == 720 and kept_hours({PROPERTY: "interval 2 months"}) is None
    assert next_hours(168, 0, 0) == 168 and next_hours(168, 49, 100) == 240 and next_hours(168, 49, 1000) == 42 * 24
    assert next_hours(240, 241, 0) is None and next_hours(None, 1, 0) is None, "what is needed may already be forgotten"


@given(st.lists(st.tuples(st.integers(1, 30 * 24), st.booleans()), max_size=30), st.integers(0, 60 * 24))
def test_delta_has_forgotten_nothing_that_a_kept_generation_needs_when_a_vacuum_runs(steps, least):
    """Simulated: hours until the next maintenance, and whether a generation was published meanwhile; one generation is kept."""
    kept, now, published, remembered = 168, 0, 0, 0  # remembered: removals before this hour are forgotten
    for hours, publishes in steps:
        if publishes:
            published = now + hours // 2
        now += hours
        remembered = max(remembered, now - kept)
        wanted = next_hours(kept, now - published, least)
        if wanted is not None:
            assert remembered <= published and now - wanted <= published
            kept = wanted


@pytest.fixture
def used(make_night, items, warehouse, mlflow_in):
    """A warehouse after four published nights with changes, an encoder that was tried and left, and an interrupted run."""
    mlflow_in(warehouse.root)
    kept = {"keep_reports": 1, "keep_mlflow_runs": 2, "retain_hours": 0, "small_files": 1}
    settings = {"index": {"keep_generations": 2}, "maintain": kept, "enrich": {"text": {"refiner": "rules"}}}
    for n in range(4):
        night, data = make_night(f"night-{n}", **settings), items(n=60, styles=6)
        if n == 0:
            data.write(night)
            data.write_vectors(night, "tried", data.vectors)
            data.write_vectors(night, "replaced", data.vectors)
        else:
            night.spark.sql("DELETE FROM tgq.item_embeddings WHERE model_version = 'replaced'")  # its file is of no version that is kept
            night.spark.sql(f"UPDATE tgq.item_embeddings SET embedding = array_repeat(CAST({n}.0 AS FLOAT), 16) WHERE item_id = '{data.ids[n]}'")
        build.build_index(night)
        generations.publish_index(night, warehouse.versions("catalog_items", "item_embeddings", "item_neighbors"))
        record(night, RUN_STEP, "done", night.started_at, datetime.now(timezone.utc), StepResult())
        write_json(warehouse.path("reports", night.run_id, "evaluate.json"), {})
        tracker = open_tracker(night.settings.tracking, warehouse.root)
        tracker.start(night.run_id, began=night.started_at)
        tracker.log_text("page", "report.html")
        tracker.finish()
        age(night.spark, warehouse.root, 24 * 12 if n == 1 else 24)
    last = make_night("night-4", **settings)
    for version in ("earlier rules", needed(last.settings, warehouse.root).refiner):
        made = "current_timestamp() AS refined_at"
        row = f"SELECT 'a' AS item_id, '{version}' AS refiner_version, 'h' AS text_hash, 'kept' AS verdict, 0 AS rounds, 0L AS tokens, 'r' AS run_id, {made}"
        warehouse.append(last.spark.sql(row), "item_texts")
    record(last, RUN_STEP, "running", last.started_at, None, StepResult())
    for run in ("night-4", "dead"):
        write_json(warehouse.path("_staging", run, "pool.json"), {})
    return last.settings, data


def files_of(root) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_size for p in Path(root).rglob("*") if p.is_file()}


def test_what_nothing_needs_is_removed_and_what_is_kept_still_works(spark, warehouse, used):
    settings, data = used
    root, before = Path(warehouse.root), files_of(warehouse.root)
    pinned = {made.generation: made.tables["item_embeddings"] for made in manifest.history(root)[:2]}
    vectors = {name: warehouse.read("item_embeddings", version).where("model_version <> 'tried'").collect() for name, version in pinned.items()}
    assert list(pinned) == ["night-3", "night-2"]

    planned = {one.name: one.found for one in maintain(spark, settings, True, Silent())}
    assert files_of(root) == before, "a dry run writes nothing"
    assert planned["item_embeddings: rows of other models"] == 60 and planned["staging of ended runs"] == 5
    assert planned["reports"] == 2 and planned["MLflow runs"] == 2, "reports of the kept generations' runs stay"

    done = {one.name: one for one in maintain(spark, settings, False, Silent())}
    tables = ("to join", "of old versions")  # depend on the rows that were removed before
    assert {name: one.found for name, one in done.items() if not name.endswith(tables)} == {n: f for n, f in planned.items() if not n.endswith(tables)}
    assert done["index_shards: rows of removed generations"].found == 6 and done["item_embeddings: small files to join"].found > 1
    assert done["item_embeddings: files of old versions"].found > 0 and done["item_embeddings: files of old versions"].bytes > 0
    assert done["reports"].bytes > 0 and done["staging of ended runs"].bytes > 0
    assert sorted(p.name for p in (root / "reports").iterdir()) == ["night-2", "night-3"]
    assert [p.name for p in (root / "_staging").iterdir()] == ["night-4"], "the interrupted run can still be continued"
    assert warehouse.read("item_embeddings").where("model_version = 'tried'").count() == 0
    assert planned["item_texts: rows of other models"] == 1 and warehouse.read("item_texts").count() == 1
    assert {r.generation for r in warehouse.read("index_shards").collect()} == set(pinned)
    tracker = open_tracker(settings.tracking, warehouse.root)
    experiment = tracker.client.get_experiment_by_name(settings.tracking.experiment)
    assert sorted(r.info.run_name for r in tracker.client.search_runs([experiment.experiment_id])) == ["night-2", "night-3"]
    assert len(list((root / "mlartifacts").rglob("report.html"))) == 2
    [row] = warehouse.rows("pipeline_runs", {"step": STEP})
    assert row["status"] == "done" and "freed_bytes" in row["detail"]

    # both generations can be read at their versions, and rolled back to
    for name, version in pinned.items():
        found = warehouse.read("item_embeddings", version).where("model_version <> 'tried'").collect()
        assert sorted(found, key=str) == sorted(vectors[name], key=str)

    again = {one.name: one.found for one in maintain(spark, settings, False, Silent())}
    own = "pipeline_runs: small files to join"  # the pass before has written a row of its own
    assert not any(found for name, found in again.items() if name != own), again
    assert generations.rollback(warehouse).generation == "night-2"


def test_an_encoder_that_cannot_be_read_keeps_its_features(make_night, items, warehouse, tiny_encoder, tmp_path):
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "encoder"))
    night = make_night()
    night = replace(night, settings=with_encoder(night.settings, str(folder)))
    items(n=30, styles=3).write(night)
    build.build_index(night)
    generations.publish_index(night, warehouse.versions("catalog_items", "item_embeddings"))
    model, tower = versions_of(str(folder))
    keep = needed(night.settings, warehouse.root)
    assert (keep.models, keep.towers, keep.generations) == ({model}, {tower}, ("night-1",))
    (folder / "config.json").unlink()
    loading._identity.cache_clear()
    lost = needed(with_encoder(night.settings, str(tiny_encoder)), warehouse.root)
    assert lost.towers is None and model in lost.models


def test_every_promoted_query_tower_stays(spark, make_night, items, warehouse, tiny_encoder, tmp_path, mlflow_in):
    """Also that of a promotion before the champion's, which a rollback gives back; and features of the published model are known as its own."""
    mlflow_in(warehouse.root)
    root, (model, tower) = warehouse.root, versions_of(str(tiny_encoder))
    names = [model]
    for seed in (0, 1):
        folder = Path(shutil.copytree(tiny_encoder, tmp_path / f"encoder-{seed}"))
        torch.manual_seed(seed)
        QueryTower(QueryTowerConfig(model, 16, text="towers/text"), relative_to=folder).save(folder / FOLDER)
        version = query_version_of(str(folder)) or ""
        names.append(encoder_name(model, version))
        files = store_encoder(root, str(folder), names[-1])
        write_history(root, read_history(root).promoted(Promotion(model, f"2026-01-0{seed + 1}", names[-2], False, files, {}, query_version=version)))
    night, data = make_night(), items(n=30, styles=3)
    night = replace(night, settings=with_encoder(night.settings, "champion"))
    data.write(night)
    data.write_vectors(night, "tried", data.vectors)
    build.build_index(night)
    generations.publish_index(night, warehouse.versions("catalog_items", "item_embeddings"))
    assert needed(night.settings, root).towers == {tower}

    before = files_of(Path(root) / "models")
    done = {one.name: one.found for one in maintain(spark, night.settings, False, Silent())}
    assert done["item_embeddings: rows of other models"] == 30 and files_of(Path(root) / "models") == before
    for name in names[1:]:
        query_version_of.cache_clear()
        assert name.endswith(str(query_version_of(model_path(root, name))))
