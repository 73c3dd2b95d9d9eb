"""Reads what a query tower is trained on from a warehouse: item embeddings, frozen features, queries and their graded items.

The driver holds a sample of at most `max_items` items: those that are judged for training queries or that the published index finds for
them, and random others, which are the candidates that a query must not prefer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from tgq.catalog.enriched import as_read
from tgq.catalog.fields import readable_fields
from tgq.errors import SourceError
from tgq.index.pool import half_matrix, list_matrix
from tgq.query_training.data.judged import Items, JudgedQueries
from tgq.registry.loading import versions_of
from tgq.retrieval import manifest
from tgq.retrieval.shards import open_shards, search_shards
from tgq.run.night import Night


@dataclass(frozen=True)
class ItemSample:
    """Some items of a warehouse, in the order of their ids."""

    ids: list[str]
    items: Items
    fields: list[dict[str, Any]]  # title, brand, category and attributes, less what the encoder must not read

    @property
    def places(self) -> dict[str, int]:
        """Row by item id."""
        return {item_id: row for row, item_id in enumerate(self.ids)}


@dataclass(frozen=True)
class Judged:
    """Training queries with the ids of their judged items."""

    texts: list[str]
    items: list[list[str]]
    gains: list[list[float]]  # at least 0

    def rows(self, places: dict[str, int]) -> JudgedQueries:
        """The same with rows of a sample in place of ids; items that are not in it are left out."""
        kept = [[(places[i], gain) for i, gain in zip(*both, strict=True) if i in places] for both in zip(self.items, self.gains, strict=True)]
        flat = [pair for pairs in kept for pair in pairs]
        offsets = np.concatenate([[0], np.cumsum([len(pairs) for pairs in kept])]).astype(np.int64)
        rows, gains = np.array([row for row, _ in flat], np.int64), np.array([gain for _, gain in flat], np.float64)
        return JudgedQueries(self.texts, offsets, rows, gains, np.full((len(kept), 0), -1, np.int64))


def training_queries(night: Night, max_queries: int) -> Judged:
    """The queries of the train split with their judged items, those that are searched most first, at most `max_queries`.

    A judgment's gain is its grade above `queries.irrelevant_grade`, times its weight. Queries without any gain are left out.
    """
    settings = night.settings.queries
    gain = F.greatest(F.lit(0.0), F.col("grade") - F.lit(settings.irrelevant_grade)) * F.col("weight")
    judged = night.warehouse.read("query_judgments").select("query_id", "item_id", gain.cast("double").alias("gain"))
    queries = night.warehouse.read("relevance_queries").where(F.col("split") == "train").select("query_id", "text", "popularity")
    listed = judged.groupBy("query_id").agg(F.sort_array(F.collect_list(F.struct("item_id", "gain"))).alias("judged"), F.max("gain").alias("most"))
    found = queries.join(listed.where("most > 0"), "query_id").orderBy(F.desc_nulls_last("popularity"), F.xxhash64("query_id"), "query_id")
    rows = found.select("text", "judged.item_id", "judged.gain").limit(max_queries).collect()
    return Judged([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def near_items(night: Night, vectors: np.ndarray, k: int) -> list[list[str]] | None:
    """Ids of the items that the published shards find for each query, at most k; None if nothing of this model is published.

    Args:
        vectors: float32 [Q, De] of the queries.
    """
    published = manifest.load_current(night.warehouse.root)
    if published is None or published.model_version != versions_of(night.model_folder)[0]:
        return None
    ids = search_shards(open_shards(night.warehouse.root, published.shards), vectors, k)[1]
    return [[item_id for item_id in row if item_id is not None] for row in ids]


def item_sample(night: Night, wanted: Sequence[str], max_items: int) -> ItemSample:
    """The wanted items and random others, `max_items` together, with embeddings and features of the night's encoder.

    Raises:
        SourceError: the warehouse has no embedding of this encoder.
    """
    model_version, tower_version = versions_of(night.model_folder)
    warehouse = night.warehouse
    items = as_read(warehouse.read("catalog_items")).where("is_active").select("item_id", "content_hash", "title", "brand", "category", "attributes")
    embedded = warehouse.read("item_embeddings").where(F.col("model_version") == model_version).select("item_id", "content_hash", "embedding")
    features = warehouse.read("item_features").where(F.col("tower_version") == tower_version)
    features = features.select("item_id", "content_hash", "image_features", "text_features")
    first = night.spark.createDataFrame([(item_id,) for item_id in dict.fromkeys(wanted)], "item_id string").withColumn("wanted", F.lit(True))
    rows = items.join(embedded, ["item_id", "content_hash"]).join(first, "item_id", "left")
    rows = rows.orderBy(F.col("wanted").isNull(), F.xxhash64("item_id"), "item_id").limit(max_items)
    table = rows.join(features, ["item_id", "content_hash"], "left").orderBy("item_id").toArrow()
    if not table.num_rows:
        raise no_embeddings(warehouse.root, model_version)
    text, image = (half_matrix(table[f"{side}_features"]).astype(np.float32) for side in ("text", "image"))
    found = Items(list_matrix(table["embedding"]).copy(), text, image)  # a copy, because Arrow's memory is read-only
    fields = [
        readable_fields({**row, "attributes": dict(row["attributes"] or ())}, night.settings.metadata)
        for row in table.select(["title", "brand", "category", "attributes"]).to_pylist()
    ]
    return ItemSample(table["item_id"].to_pylist(), found, fields)


def no_embeddings(root: str, model_version: str) -> SourceError:
    """The error of a warehouse without embeddings of an encoder."""
    return SourceError(f"{root} has no item embedded by model {model_version}", "run `tgq nightly` with this encoder first")
