"""Builds a training set from a warehouse: items of one side of the split, cached tower features, pairs and published neighbours.

The driver holds the training set in memory, 270 kB per image with the default towers, or 340 kB with parts of scenes. It is therefore a sample of at most
`max_items` items, not the whole catalog.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.catalog.enriched import as_read
from tgq.catalog.fields import readable_fields
from tgq.catalog.pairs import split_of
from tgq.embedding.feature_cache import IMAGE, TEXT, cached_tokens, with_cached_features
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText, unpack_tokens
from tgq.errors import SourceError
from tgq.registry.loading import towers_of
from tgq.retrieval import manifest
from tgq.run.night import Night
from tgq.training.data.dataset import Row, TrainingSet

HARD = 8  # published neighbours of an item that are candidates for hard negatives
PARTS = "parts_tokens"  # column of the pictures' parts of scenes
BATCH = 256  # rows that are converted from Arrow at a time


def split_unit() -> Column:
    """The unit of the split between training and evaluation: an item's group id, or its item id without a group."""
    return F.coalesce("group_id", "item_id")


def items_of_side(night: Night, side: str = "train", max_items: int | None = None, pairs: bool = True) -> DataFrame:
    """Active rows of `catalog_items` on one side of the split.

    Above `max_items`, whole groups are left out by a hash so that about `max_items` items remain.

    Args:
        pairs: whether there must be pairs of items.

    Raises:
        SourceError: there is no pair of items on that side, or no group with a pair.
    """
    place, column = night.settings.catalog.path or night.warehouse.root, night.settings.catalog.columns.group_id
    of_side = (F.col("split") == side) & (F.col("weight") > 0)
    if pairs and night.warehouse.read("relevance_pairs").where(of_side).isEmpty():
        grouped = night.warehouse.read("catalog_items").where("is_active AND group_id IS NOT NULL")
        if night.settings.pairs.source in ("auto", "group") and not grouped.isEmpty():
            raise SourceError(f"no group of {place} on the {side} side has a positive pair of items",
                              f"name a column of larger groups in catalog.columns.group_id, now {column}, or a table of pairs in pairs.path")  # fmt: skip
        raise SourceError(f"{place} has no pairs of items on the {side} side",
                          "name the column of groups in catalog.columns.group_id, or a table of pairs in pairs.path")  # fmt: skip
    items = night.warehouse.read("catalog_items").where("is_active").where(split_of(split_unit(), night.settings.pairs.test_share) == side)
    if max_items is None:
        return items
    share = min(1.0, max_items / max(1, items.count()))
    return items.where(split_of(F.concat(split_unit(), F.lit(":kept")), share) == "test")


def training_set(
    night: Night, encoder: TGQFormer, model_folder: str, items: DataFrame, name: str, seed: int = 0, parts: str | None = None
) -> TrainingSet:  # fmt: skip
    """The items as a training set, ordered by item id. `run_towers` must have cached their features of the same towers.

    Args:
        encoder: the encoder whose text tower encodes the second metadata view of each item.
        model_folder: the folder of the same encoder.
        items: rows of `catalog_items`.
        name: the catalog's name in the training set.
        seed: of the second metadata views.
        parts: fingerprint of the pictures' parts of scenes, which `run_parts` must have cached; None: the set has no parts.
    """
    chosen = items.select("item_id").cache()
    try:
        columns = ("item_id", "title", "brand", "category", "attributes", "metadata_text", "encoder_title", "image_hash")
        cached = with_cached_features(night, as_read(items).select(*columns, split_unit().alias("unit")), towers_of(model_folder))
        # a picture without parts is one that cannot be read any more; it is shown as it is
        of_pictures = cached_tokens(night, parts or "").withColumnsRenamed({"source_hash": "image_hash", "tokens": PARTS})
        cached = (cached.join(of_pictures, "image_hash", "left") if parts else cached.withColumn(PARTS, F.lit(None).cast("binary"))).orderBy("item_id")
        pairs = night.warehouse.read("relevance_pairs").select("query_item_id", "positive_item_id", "weight")
        for end in ("query_item_id", "positive_item_id"):
            pairs = pairs.join(chosen.withColumnRenamed("item_id", end), end, "left_semi")
        ends = (tuple(row) for row in _rows(pairs.dropDuplicates(["query_item_id", "positive_item_id"]).orderBy("query_item_id", "positive_item_id")))
        rows = (_row(night, dict(zip(cached.columns, row, strict=True)), name, encoder) for row in _rows(cached))
        return TrainingSet.build(encoder, rows, ends, published_neighbors(night, chosen), seed)
    finally:
        chosen.unpersist()


def _rows(frame: DataFrame) -> Iterator[tuple]:
    """The rows of a data frame on the driver, as tuples."""
    table: pa.Table = frame.toArrow()
    for batch in table.to_batches(BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _row(night: Night, item: dict, catalog: str, encoder: TGQFormer) -> Row:
    tokens, pooled = (item[name] for name in IMAGE)
    text_tokens, mask, text, title = (item[name] for name in TEXT)
    fields = {name: item[name] for name in ("title", "brand", "category")} | {"attributes": dict(item["attributes"] or ())}
    return Row(
        item["item_id"], item["unit"], catalog, item["image_hash"],
        CachedImage.unpack(tokens, pooled, encoder.vision.width) if tokens is not None else None,
        CachedText.unpack(text_tokens, mask, text, title, encoder.text.width) if text_tokens is not None else None,
        item["metadata_text"] or "", readable_fields(fields, night.settings.metadata),
        None if item[PARTS] is None else unpack_tokens(item[PARTS], encoder.vision.width),
    )  # fmt: skip


def published_neighbors(night: Night, chosen: DataFrame) -> dict[str, list[str]]:
    """By item id, the nearest neighbours in the published generation that are of the same category and among the chosen items.

    Empty if nothing is published. Nearest first, at most HARD each.
    """
    published = manifest.load_current(night.warehouse.root)
    if published is None:
        return {}
    near = night.warehouse.read("item_neighbors").where(F.col("model_version") == published.model_version)
    for end in ("item_id", "neighbor_id"):
        near = near.join(chosen.withColumnRenamed("item_id", end), end, "left_semi")
    category = night.warehouse.read("catalog_items").select("item_id", "category")
    near = near.join(category, "item_id").join(category.toDF("neighbor_id", "neighbor_category"), "neighbor_id")
    near = near.where(F.col("category").eqNullSafe(F.col("neighbor_category")))
    listed = near.groupBy("item_id").agg(F.slice(F.array_sort(F.collect_list(F.struct("rank", "neighbor_id"))), 1, HARD).alias("near"))
    return {row["item_id"]: [n["neighbor_id"] for n in row["near"]] for row in listed.collect()}  # small: the chosen items are a sample
