"""From a warehouse's tables to a training set: items of one side of the split, their kept features, pairs and neighbours.

It is read on the driver, so it is a sample (`max_items`), not the catalog: 270 kB per picture with the default towers.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.catalog.fields import readable_fields
from tgq.catalog.pairs import split_of
from tgq.embedding.feature_cache import IMAGE, TEXT, with_kept
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText
from tgq.errors import SourceError
from tgq.registry.loading import towers_of
from tgq.retrieval import manifest
from tgq.run.night import Night
from tgq.training.data.dataset import Row, TrainingSet

HARD = 8  # published neighbours that are looked through for hard negatives
BATCH = 256  # rows that leave Arrow at a time


def unit() -> Column:
    """What is on one side of the split as a whole: an item's group, or the item itself."""
    return F.coalesce("group_id", "item_id")


def items_of_side(night: Night, side: str = "train", max_items: int | None = None) -> DataFrame:
    """Active items of one side; above `max_items` whole units are left out, by their hash, so that about as many stay.

    Raises:
        SourceError: no pair of items on that side, or no group of two.
    """
    place, column = night.settings.catalog.path or night.warehouse.root, night.settings.catalog.columns.group_id
    pairs = night.warehouse.read("relevance_pairs").where((F.col("split") == side) & (F.col("weight") > 0))
    if pairs.isEmpty():
        grouped = night.warehouse.read("catalog_items").where("is_active AND group_id IS NOT NULL")
        if night.settings.pairs.source in ("auto", "group") and not grouped.isEmpty():
            raise SourceError(f"no group of {place} on the {side} side has two items that answer each other",
                              f"name a column of larger groups in catalog.columns.group_id, now {column}, or a table of pairs in pairs.path")  # fmt: skip
        raise SourceError(f"{place} has no pairs of items on the {side} side",
                          "name the column of groups in catalog.columns.group_id, or a table of pairs in pairs.path")  # fmt: skip
    items = night.warehouse.read("catalog_items").where("is_active").where(split_of(unit(), night.settings.pairs.test_share) == side)
    if max_items is None:
        return items
    share = min(1.0, max_items / max(1, items.count()))
    return items.where(split_of(F.concat(unit(), F.lit(":kept")), share) == "test")


def training_set(night: Night, encoder: TGQFormer, model_folder: str, items: DataFrame, name: str, seed: int = 0) -> TrainingSet:
    """Items as arrays, in the order of their ids. `run_towers` must have run over them with the same towers.

    Args:
        encoder: whose text tower reads the careless views of the metadata; model_folder: the same encoder's folder.
        name: what its catalog is called in the set.
    """
    chosen = items.select("item_id").cache()
    try:
        columns = ("item_id", "title", "brand", "category", "attributes", "metadata_text", "encoder_title", "image_hash")
        known = with_kept(night, items.select(*columns, unit().alias("unit")), towers_of(model_folder)).orderBy("item_id")
        pairs = night.warehouse.read("relevance_pairs").select("query_item_id", "positive_item_id", "weight")
        for end in ("query_item_id", "positive_item_id"):
            pairs = pairs.join(chosen.withColumnRenamed("item_id", end), end, "left_semi")
        ends = (tuple(row) for row in _rows(pairs.dropDuplicates(["query_item_id", "positive_item_id"]).orderBy("query_item_id", "positive_item_id")))
        rows = (_row(night, dict(zip(known.columns, row, strict=True)), name, encoder) for row in _rows(known))
        return TrainingSet.build(encoder, rows, ends, published_neighbors(night, chosen), seed)
    finally:
        chosen.unpersist()


def _rows(frame: DataFrame) -> Iterator[tuple]:
    table: pa.Table = frame.toArrow()
    for batch in table.to_batches(BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _row(night: Night, item: dict, catalog: str, encoder: TGQFormer) -> Row:
    image = [item[name] for name in IMAGE]
    text = [item[name] for name in TEXT]
    fields = {name: item[name] for name in ("title", "brand", "category")} | {"attributes": dict(item["attributes"] or ())}
    return Row(
        item["item_id"], item["unit"], catalog, item["image_hash"],
        CachedImage.unpack(*image, encoder.vision.width) if image[0] is not None else None,
        CachedText.unpack(*text, encoder.text.width) if text[0] is not None else None,
        item["metadata_text"] or "", readable_fields(fields, night.settings.metadata),
    )  # fmt: skip


def published_neighbors(night: Night, chosen: DataFrame) -> dict[str, list[str]]:
    """Of the published generation, the nearest chosen items of the same category, by item; none where nothing is published."""
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
    return {row["item_id"]: [n["neighbor_id"] for n in row["near"]] for row in listed.collect()}  # a sample's, as above
