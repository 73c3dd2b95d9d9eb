"""Trains attribute heads on the items of catalogs or warehouses, and writes their folder.

The items are those of the train side that state attributes. The driver holds at most `max_items` of a source, some 4 kB each with the default towers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq.attributes.calibration import KeyFigures
from tgq.attributes.heads import CONFIG, ItemFeatures
from tgq.attributes.training import AttributeTrainConfig, train_heads
from tgq.attributes.vocabulary import Labelled, Vocabulary
from tgq.catalog.ingest import ingest
from tgq.embedding.precompute import run_towers
from tgq.encoder.model import TGQFormer
from tgq.enrichment.head_features import FEATURES, as_asked, features_of, with_head_features
from tgq.enrichment.texts import with_readable_texts
from tgq.errors import SourceError, UsageError
from tgq.registry.champion import local_folder
from tgq.registry.loading import towers_of
from tgq.run.night import Night
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress
from tgq.storage.artifacts import remove_folder
from tgq.storage.lock import warehouse_lock
from tgq.storage.warehouse import Warehouse
from tgq.training_job.job import Source
from tgq.training_job.training_set import items_of_side, split_unit

RECORD = "training.json"


@dataclass(frozen=True)
class AttributeTraining:
    """The result of a training."""

    version: str  # of the heads
    items: int
    values: dict[str, int]  # in the vocabulary, by key
    figures: tuple[KeyFigures, ...]  # on groups that were left out


def train_attributes(
    spark: SparkSession, out: Path, sources: Sequence[Source], encoder: str, options: AttributeTrainConfig, max_items: int, progress: Progress,
) -> AttributeTraining:  # fmt: skip
    """Train heads over an encoder's towers and write them to the folder `out`, with `training.json`.

    The towers run on items without cached features; then it takes a minute or two.

    Args:
        encoder: the encoder's folder or URI.
        max_items: about how many items per source at most; above it whole groups are left out, by a hash.

    Raises:
        UsageError: the folder `out` already holds heads.
        ModelError: the encoder cannot be read.
        SourceError: a source cannot be read, or its items have no frequent attributes.
        WarehouseError: the feature cache of a warehouse is full.
    """
    need_new(out)
    towers, model = towers_of(encoder), TGQFormer.from_pretrained(local_folder(encoder))
    widths, run_id = (model.vision.pooled_width, model.text.pooled_width), new_run_id(datetime.now(timezone.utc))
    parts = [_read(spark, source, encoder, widths, run_id, max_items, progress) for source in sources]
    items = [item for of_source, _ in parts for item in of_source]
    features = ItemFeatures(*(np.concatenate([getattr(found, side) for _, found in parts]) for side in ("image", "text")))
    progress.start("train", 1)
    made = train_heads(features, items, towers.vision, towers.text, options, lambda done, total: progress.update(done, f"{done} of {total} fits"))
    progress.finish()
    values = {key: len(listed) for key, listed in made.heads.config.vocabulary.values.items()}
    record: dict[str, Any] = {
        "version": made.heads.version, "sources": [source.name for source in sources], "items": len(items), "max_items": max_items,
        "training": asdict(options), "held_out": [asdict(figures) for figures in made.figures],
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    made.heads.save(out)
    return AttributeTraining(made.heads.version, len(items), values, made.figures)


def planned(spark: SparkSession, sources: Sequence[Source], options: AttributeTrainConfig, max_items: int, progress: Progress) -> Iterator[str]:
    """Lines that say what a training would learn. No model runs; a catalog folder is read into its scratch warehouse.

    Raises:
        SourceError: a source cannot be read, or has no frequent attributes.
    """
    run_id = new_run_id(datetime.now(timezone.utc))
    items = []
    for source in sources:
        with _opened(spark, source, run_id, progress) as night:
            items += _labelled(source, _rows_of(night, max_items).select("unit", "texts").toArrow())
    vocabulary = Vocabulary.of(items, options.frequent)
    yield f"items with attributes on the train side: {len(items)}"
    for key, values in vocabulary.values.items():
        shown = ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")
        schemas = sum(key in keys for keys in vocabulary.schemas.values())
        yield f"{key}: {len(values)} values ({shown}), in {schemas} of {len(vocabulary.schemas)} schemas of categories"


def need_new(out: Path) -> None:
    """Check that a folder holds no heads.

    Raises:
        UsageError: it does.
    """
    if (out / CONFIG).exists():
        raise UsageError(f"{out} already holds attribute heads", "name another folder")


@contextlib.contextmanager
def _opened(spark: SparkSession, source: Source, run_id: str, progress: Progress) -> Iterator[Night]:
    """The source's warehouse, locked until the block ends; a scratch warehouse is ingested first."""
    if source.scratch:
        Path(source.settings.warehouse.path).mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(spark, source.settings.warehouse, create=source.scratch)
    with warehouse_lock(source.settings.warehouse):
        night = Night(spark, source.settings, warehouse, f"train-attributes-{run_id}", datetime.now(timezone.utc), progress)
        if source.scratch:
            ingest(night)
        yield night


def _rows_of(night: Night, max_items: int) -> DataFrame:
    """Rows of `catalog_items` on the train side that state attributes which the encoder may read, with `texts` and `unit`."""
    items = with_readable_texts(items_of_side(night, "train", max_items, pairs=False), night.settings.metadata)
    return items.where(F.coalesce(F.size("texts.attributes"), F.lit(0)) > 0).withColumn("unit", split_unit())


def _read(
    spark: SparkSession, source: Source, encoder: str, widths: tuple[int, int], run_id: str, max_items: int, progress: Progress,
) -> tuple[list[Labelled], ItemFeatures]:  # fmt: skip
    """The items of a source with their features, in the order of their ids."""
    with _opened(spark, source, run_id, progress) as night:
        items = as_asked(_rows_of(night, max_items))
        ran = run_towers(night, encoder, items)
        wanted = items.select("item_id", "image_hash", "metadata_text", "encoder_title", "unit", "texts")
        table = with_head_features(night, wanted, encoder).select("item_id", "unit", "texts", *FEATURES).orderBy("item_id").toArrow()
        remove_folder(night.staging())
    if not table.num_rows:
        raise SourceError(f"no item of {source.name} on the train side states an attribute that the encoder may read",
                          "name more in metadata.fields and metadata.attributes, or map them in catalog.columns.attributes")  # fmt: skip
    progress.say(f"{source.name}: {table.num_rows} items with attributes; towers ran for {ran}")
    return _labelled(source, table), features_of(table, *widths)


def _labelled(source: Source, table: pa.Table) -> list[Labelled]:
    rows = zip(table["unit"].to_pylist(), table["texts"].to_pylist(), strict=True)
    return [Labelled(f"{source.name} {unit}", texts["category"] or "", {k: v for k, v in texts["attributes"] or () if v}) for unit, texts in rows]
