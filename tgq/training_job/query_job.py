"""Trains a query tower on a warehouse's queries and item embeddings, and writes an encoder folder that has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tgq.encoder.layers.fusion import PlainFusion
from tgq.encoder.layers.heads import LightHead
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, UsageError
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import MAIN
from tgq.inference.device import choose_device
from tgq.query_tower.config import FOLDER, RECORD, QueryTowerConfig, version_of
from tgq.query_tower.tower import QueryTower
from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.generate import Item, generated_queries
from tgq.query_training.data.judged import Items, JudgedQueries
from tgq.query_training.data.split import is_validation
from tgq.query_training.initialisation import take_encoder_map
from tgq.query_training.item_side import ItemSide
from tgq.query_training.trainer import QuerySets, train_queries
from tgq.registry.champion import encoder_files, local_folder
from tgq.registry.loading import need_query_tower, query_version_of, versions_of
from tgq.registry.tracking import Tracker, open_tracker
from tgq.run.night import Night
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress, Silent
from tgq.run.records import git_commit
from tgq.settings.sections import Settings, TrackingSettings
from tgq.storage.artifacts import remove_folder
from tgq.storage.lock import warehouse_lock
from tgq.storage.warehouse import Warehouse
from tgq.training_job.query_sets import ItemSample, Judged, item_sample, near_items, no_embeddings, training_queries
from tgq.training_job.shifted import shifted_images

MAX_QUERIES = 50_000  # training queries on the driver
GENERATED_VALIDATION = 500  # generated queries that validate where no shopper's query does
NEAR = 20  # items near a query that are candidates for its hard negatives


@dataclass(frozen=True)
class QueryTrainingResult:
    """The result of a training."""

    version: str  # of the query tower
    model_version: str  # of the encoder; a joint training gives another one than before
    start_ndcg: float  # NDCG@10 of the validation queries after the closed-form start
    best_ndcg: float
    queries: int  # judged queries that it was trained on
    generated: int


def train_query_tower(
    spark: SparkSession, settings: Settings, out: Path, text: str | None, options: QueryTrainConfig, max_items: int, tracking_uri: str | None,
    progress: Progress, device: str = "auto",
) -> QueryTrainingResult:  # fmt: skip
    """Train a query tower for the encoder of `settings`, and write that encoder with it to the folder `out`.

    The warehouse must have embeddings of this encoder. Queries of the test split are never read. Some texts of the train split validate;
    without any judged queries, generated ones do both.

    Args:
        text: reference of the text checkpoint; None: the encoder's own.
        max_items: items on the driver, about `4 * (De + Dp + Dg)` bytes each.
        tracking_uri: of MLflow; None: a sqlite file in `out`.

    Raises:
        UsageError: `out` already holds an encoder, or a joint training was asked of an encoder with the head llm.
        SourceError: the warehouse has no embeddings of this encoder, or no text to make queries from.
        ModelError: the checkpoint cannot be loaded, or has fewer layers than are to be trained.
    """
    if (out / "config.json").exists():
        raise UsageError(f"{out} already holds an encoder", "name another folder")
    warehouse = Warehouse(spark, settings.warehouse, create=False)
    now = datetime.now(timezone.utc)
    with warehouse_lock(settings.warehouse):
        night = Night(spark, settings, warehouse, f"train-queries-{new_run_id(now)}", now, progress)
        folder = Path(local_folder(night.model_folder))
        need_query_tower(night.model_folder)  # the present one finds the hard negatives
        encoder = TGQFormer.from_pretrained(folder)  # one of its own: a joint training changes it
        side_base = _joint_base(encoder) if options.joint else None
        torch.manual_seed(options.seed)
        tower = new_tower(encoder, folder, text, options).to(choose_device(device))
        own_text = tower.config.text == encoder.config.text
        prior = False
        if own_text and isinstance(encoder.head, LightHead):
            take_encoder_map(tower, encoder.head.base)
            prior = True
        judged = training_queries(night, MAX_QUERIES)
        present = QueryEncoder(night.model_folder, "cpu", "float32")
        near = near_items(night, present.vectors(MAIN, judged.texts), NEAR) if judged.texts else None
        wanted = [item_id for items in (*judged.items, *(near or ())) for item_id in items]
        sample = item_sample(night, wanted, max_items)
        side = _item_side(night, encoder, side_base, sample) if side_base is not None else None
    progress.say(f"{len(judged.texts)} judged queries of the train split; {len(sample.ids)} items")
    sets = _sets(sample, judged, near, options)
    tracker = open_tracker(TrackingSettings(uri=tracking_uri, experiment="tgq-training"), str(out))
    tracker.start(night.run_id, {"git_commit": git_commit(), "sources": settings.warehouse.path})
    try:
        tracker.log_params({f"query.{name}": value for name, value in asdict(options).items()})
        history = _trained(tower, sample.items, sets, options, side, tracker, progress, own_text, prior)
        return _finish(out, folder, encoder, tower, history, sets, options, tracker, progress)
    except BaseException:
        tracker.finish("FAILED")
        raise


def planned(spark: SparkSession, settings: Settings) -> Iterator[str]:
    """Lines that say what a training would read. Nothing is written.

    Raises:
        SourceError: the warehouse has no embeddings of this encoder.
    """
    night = Night(spark, settings, Warehouse(spark, settings.warehouse, create=False), "train-queries", datetime.now(timezone.utc), progress=Silent())
    model_version, _ = versions_of(night.model_folder)
    embedded = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version).count()
    if not embedded:
        raise no_embeddings(night.warehouse.root, model_version)
    judged = training_queries(night, MAX_QUERIES)
    present = query_version_of(night.model_folder)
    yield f"encoder: model {model_version} in {night.model_folder}, {f'with query tower {present}' if present else 'without a query tower'}"
    yield f"items with an embedding of it: {embedded}"
    yield f"judged queries of the train split: {len(judged.texts)}, with {sum(map(len, judged.items))} judgments" + (
        "" if judged.texts else "; queries generated from titles and attributes take their place"
    )


def new_tower(encoder: TGQFormer, folder: Path, text: str | None, options: QueryTrainConfig) -> QueryTower:
    """An untrained tower for an encoder's item space. `text`: a checkpoint's reference; None: the encoder's own, in its folder."""
    reference = text or encoder.config.text
    config = QueryTowerConfig(encoder.model_version, encoder.dim, reference, trained_layers=options.trained_layers)
    return QueryTower(config, relative_to=None if text else folder)


def _joint_base(encoder: TGQFormer) -> PlainFusion:
    if not isinstance(encoder.head, LightHead):
        raise UsageError(
            f"the item side of the head '{encoder.config.head}' cannot be trained with the queries, because it has no fusion of pooled features",
            "leave out joint, or use an encoder with the head light",
        )
    return encoder.head.base


def _item_side(night: Night, encoder: TGQFormer, base: PlainFusion, sample: ItemSample) -> ItemSide:
    """The item side that learns: the head's fusion. A connector with tokens stays as it is, so what it makes of the pictures is computed once."""
    if not encoder.connector.has_tokens:
        return ItemSide(base, sample.items)
    image, trust = shifted_images(night, sample.ids)
    remove_folder(night.staging())
    return ItemSide(base, replace(sample.items, image=image), trust)


def _sets(sample: ItemSample, judged: Judged, near: list[list[str]] | None, options: QueryTrainConfig) -> QuerySets:
    """Training, validation and generated queries; no generated query has a text that validates."""
    places = sample.places
    rows = judged.rows(places)
    if near is not None:
        hard = np.full((len(rows), NEAR), -1, np.int64)
        for query, ids in enumerate(near):
            found = [places[item_id] for item_id in ids if item_id in places]
            hard[query, : len(found)] = found
        rows = rows.with_hard(hard)
    validates = np.array([is_validation(query, options.validation_share) for query in judged.texts], bool)
    training, validation = rows.subset(np.flatnonzero(~validates)), rows.subset(np.flatnonzero(validates))
    generated = _generated(sample, options)
    held_out = np.array([is_validation(query, options.validation_share) for query in generated.texts], bool)
    if not len(validation.answerable()):
        validation = generated.subset(np.flatnonzero(held_out)[:GENERATED_VALIDATION])
    return QuerySets(training, validation, generated.subset(np.flatnonzero(~held_out)))


def _generated(sample: ItemSample, options: QueryTrainConfig) -> JudgedQueries:
    texts = [
        Item(item["title"] or "", item["brand"] or "", item["category"] or "", dict(item["attributes"] or ())) for item in sample.fields
    ]  # fmt: skip
    per_item = max(1, -(-options.domain_queries // max(1, len(texts))))
    found = generated_queries(texts, per_item, options.seed)
    if len(found) > options.domain_queries:
        chosen = np.sort(np.random.default_rng(options.seed).choice(len(found), options.domain_queries, replace=False))
        found = [found[i] for i in chosen]
    if not found:
        raise SourceError("no item has a text that the encoder may read, so there are no words to learn", "name more in metadata.fields")
    return JudgedQueries.of_single_items([query.text for query in found], np.array([query.item for query in found], np.int64))


def _trained(
    tower: QueryTower, items: Items, sets: QuerySets, options: QueryTrainConfig, side: ItemSide | None, tracker: Tracker, progress: Progress,
    own_text: bool, prior: bool,
) -> list[dict[str, float | str]]:  # fmt: skip
    total = options.steps * len(options.order)
    progress.say(f"{len(sets.training)} training queries, {len(sets.validation)} for validation, {len(sets.generated)} generated")
    progress.start("train", total)

    def log(stage: str, step: int, values: dict[str, float]) -> None:
        done = (options.order.index(stage) * options.steps if stage in options.order else 0) + step
        tracker.log_metrics({f"{stage}.{name}": value for name, value in values.items()}, step)
        progress.update(done, f"{stage}: validation NDCG@10 {values['validation_ndcg']:.4f}")

    try:
        return train_queries(tower, items, sets, options, side, log, own_text, prior)
    finally:
        progress.finish()


def _finish(
    out: Path, folder: Path, encoder: TGQFormer, tower: QueryTower, history: list[dict[str, float | str]], sets: QuerySets, options: QueryTrainConfig,
    tracker: Tracker, progress: Progress,
) -> QueryTrainingResult:  # fmt: skip
    """Write the encoder with its tower; the folder's `config.json` last, so that a killed training leaves no folder that looks complete."""
    values = [float(row["validation_ndcg"]) for row in history]
    files = () if options.joint else sorted(encoder_files(folder), key=lambda file: file[0] == "config.json")
    for name, data in files[:-1]:
        if not name.startswith(f"{FOLDER}/"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(data)
    if options.joint:
        tower.config = replace(tower.config, item_model=encoder.model_version)
    if tower.relative_to is not None and (out / tower.config.text).is_dir():
        tower.relative_to = out  # the copy of the encoder's own checkpoint
    tower.to("cpu").save(out / FOLDER)
    record: dict[str, Any] = {
        "version": version_of(out / FOLDER), "item_model": tower.config.item_model, "queries": len(sets.training), "validation": len(sets.validation),
        "generated": len(sets.generated), "training": asdict(options), "history": history,
    }  # fmt: skip
    (out / FOLDER / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    if options.joint:
        encoder.save_pretrained(out)
    for name, data in files[-1:]:
        (out / name).write_bytes(data)
    tracker.log_metrics({"validation_ndcg": max(values)})
    tracker.log_artifact(out / FOLDER / RECORD, FOLDER)
    tracker.finish()
    for problem in tracker.problems:
        progress.say(f"MLflow: {problem}")
    return QueryTrainingResult(record["version"], encoder.model_version, values[0], max(values), len(sets.training), len(sets.generated))
