"""The queries of an evaluation, their positives, and the slices that each query belongs to.

The source is `relevance_pairs` of one split, or the validation part of the training split. An item with at least one positive
(weight > 0) is a query. Pairs of weight 0 are ignored: neither hit nor miss. A positive that is active but has no embedding can
never be found and counts as a miss (position -1). A positive that is no longer active is dropped. The query itself, and with
`exclude_same_image` any item with the query's picture, or with `exclude_duplicates` a near-duplicate of it, is neither a positive nor ignored.

Cost: joins of the pairs with the ids of the catalog. The driver gets one row of totals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.catalog.pairs import split_of
from tgq.index.pool import IMAGE_CODE, NO_CATEGORY, Pool, excluded_code, item_frame
from tgq.metrics.metrics import ALL
from tgq.run.night import Night
from tgq.settings.sections import EvaluateSettings

DECILES = [i / 10 for i in range(1, 10)]


@dataclass(frozen=True)
class Totals:
    """Counts of queries and positives, before any search."""

    queries: int  # queries with an embedding
    queries_without_embedding: int
    positives: int
    positives_without_embedding: int
    ignored: int
    median_positives: float
    deciles: tuple[float, ...]  # of the queries' agreement


def evaluated_pairs(night: Night) -> DataFrame:
    """The pairs that evaluate a night: those of `evaluate.split`."""
    pairs, split = night.warehouse.read("relevance_pairs"), night.settings.evaluate.split
    return pairs if split == ALL else pairs.where(F.col("split") == split)


def validation_pairs(night: Night) -> DataFrame:
    """The pairs that compare a candidate with the champion: those of the train split whose groups training holds out for validation.

    The same hash selects them in training, so no query's group was trained on, and none belongs to the test split.
    """
    unit = F.concat("group_id", F.lit(":validation"))
    pairs = night.warehouse.read("relevance_pairs").where(F.col("split") == "train")
    return pairs.where(split_of(unit, night.settings.promote.share) == "test")


def write_queries(night: Night, pool: Pool, pairs: DataFrame, path: str) -> Totals:
    """Write the queries as Parquet, a row each: position, category_code, group_key, `image_code` (of `excluded_code`), `positives` and `ignored` as lists of
    (position, category_code, weight), and the columns that slices are made of."""
    options = night.settings.evaluate
    pairs = pairs.groupBy("query_item_id", "positive_item_id").agg(F.max("weight").alias("weight"), F.min("group_id").alias("group_id"))
    active = night.warehouse.read("catalog_items", pool.versions["catalog_items"]).where("is_active").select("item_id")
    code = excluded_code(options)
    known = active.join(item_frame(night, pool), "item_id", "left").withColumn(IMAGE_CODE, F.col(code or IMAGE_CODE)).drop("duplicate_code")
    query_items = known.withColumnsRenamed({"item_id": "query_item_id"})
    found = known.select(
        F.col("item_id").alias("positive_item_id"), F.coalesce("position", F.lit(-1)).alias("p_position"),
        F.coalesce("image_code", F.lit(0)).alias("p_image"), F.coalesce("category_code", F.lit(0)).alias("p_category"),
    )  # fmt: skip
    same = F.col("query_item_id") == F.col("positive_item_id")
    if code:
        same |= (F.col("image_code") == F.col("p_image")) & (F.col("p_image") != 0)
    joined = pairs.join(query_items, "query_item_id").join(found, "positive_item_id").where(~F.coalesce(same, F.lit(False)))
    one = F.struct(F.col("p_position").alias("position"), F.col("p_category").alias("category_code"), "weight")
    relevant = F.col("weight") > 0
    own = [c for c in query_items.columns if c != "query_item_id"]
    queries = (
        joined.groupBy("query_item_id")
        .agg(
            F.first(F.struct(*own)).alias("own"),
            F.xxhash64(F.min("group_id")).alias("group_key"),
            F.collect_list(F.when(relevant, one)).alias("positives"),
            F.collect_list(F.when(~relevant & (F.col("p_position") >= 0), one)).alias("ignored"),
        )
        .where(F.size("positives") > 0)
        .select("query_item_id", "own.*", "group_key", "positives", "ignored")
    )
    if options.max_queries:
        queries = queries.orderBy(F.xxhash64("query_item_id", F.lit(options.seed)), "query_item_id").limit(options.max_queries)
    queries.write.mode("overwrite").parquet(path)
    asked = F.col("position").isNotNull()
    missing = F.size(F.filter("positives", lambda p: p["position"] < 0))
    row = (
        night.spark.read.parquet(path)
        .agg(
            F.sum(asked.cast("long")).alias("queries"),
            F.sum((~asked).cast("long")).alias("queries_without_embedding"),
            F.sum(F.when(asked, F.size("positives"))).alias("positives"),
            F.sum(F.when(asked, missing)).alias("positives_without_embedding"),
            F.sum(F.when(asked, F.size("ignored"))).alias("ignored"),
            F.percentile_approx(F.when(asked, F.size("positives")), 0.5).alias("median_positives"),
            F.percentile_approx(F.nanvl("agreement", F.lit(None).cast("float")), DECILES).alias("deciles"),
        )
        .collect()[0]
    )
    counts = {name: row[name] or 0 for name in Totals.__dataclass_fields__ if name != "deciles"}
    return Totals(**counts, deciles=tuple(row["deciles"] or ()))


def with_slices(queries: DataFrame, names: Sequence[str], totals: Totals) -> DataFrame:
    """The queries with an embedding, with `memberships`: the slices that each belongs to, as "all" and "name=value"."""
    values = [F.concat(F.lit(f"{name}="), _slice_value(name, totals)) for name in dict.fromkeys(names)]
    return queries.where(F.col("position").isNotNull()).withColumn("memberships", F.array_compact(F.array(F.lit(ALL), *values)))


def large_slices(queries: DataFrame, options: EvaluateSettings) -> tuple[tuple[str, ...], int]:
    """Slices with at least `min_slice_queries` queries ("all" always), sorted, and the number of slices left out."""
    sizes = queries.select(F.explode("memberships").alias("slice")).groupBy("slice").count()
    kept = (F.col("count") >= options.min_slice_queries) | (F.col("slice") == ALL)
    row = sizes.agg(F.collect_list(F.when(kept, F.col("slice"))).alias("kept"), F.sum((~kept).cast("long")).alias("small")).collect()[0]
    return tuple(sorted(row["kept"])), row["small"] or 0


def _slice_value(name: str, totals: Totals) -> Column:
    """category: the path's first level; category_path: all of it; popularity: head where a query has more positives than the
    median query, else tail; agreement_decile: 1 (least) to 10, over the queries; other names: kept source columns."""
    if name == "category":
        return F.when(F.col("category") != NO_CATEGORY, F.trim(F.element_at(F.split("category", ">"), 1)))
    if name == "category_path":
        return F.when(F.col("category") != NO_CATEGORY, F.col("category"))
    if name == "popularity":
        return F.when(F.size("positives") > totals.median_positives, "head").otherwise("tail")
    if name in ("has_brand", "has_attributes"):
        return F.col(name).cast("string")
    if name == "agreement_decile":
        if not totals.deciles:
            return F.lit(None).cast("string")
        over = sum(((F.col("agreement") > F.lit(d)).cast("int") for d in totals.deciles), F.lit(1))
        return F.when(~F.isnan("agreement"), over.cast("string"))
    return F.element_at("slices", F.lit(name))
