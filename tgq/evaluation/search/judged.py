"""The search queries of an evaluation with their judged items, and the slices that each query belongs to.

The source is `relevance_queries` of `evaluate.split` with `query_judgments`. The gain of an item is its grade minus
`queries.irrelevant_grade`; one with a positive gain is a positive of its query, any other judged one is a negative. Judgments of weight 0
and of items that are no longer active are dropped. A positive that is active but has no embedding can never be found and counts as a miss
(position -1). A query is evaluated if it has a positive.

Cost: joins of the judgments with the ids of the catalog. The driver gets one row of totals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tgq.index.pool import Pool, item_frame
from tgq.metrics.metrics import ALL
from tgq.run.night import Night

TABLES = ("relevance_queries", "query_judgments")
DIGITS = 5  # of grades, which are float32: 2.33 read as a double is not 2.33
LONG = 4  # words: longer queries are in one slice


@dataclass(frozen=True)
class Judged:
    """Counts of queries and judged items, before any search."""

    queries: int
    positives: int
    positives_without_embedding: int
    negatives: int  # judged items without a gain


def splits_of(night: Night) -> tuple[str, ...]:
    """The values of `split` whose queries are evaluated."""
    split = night.settings.evaluate.split
    return ("train", "test") if split == ALL else (split,)


def has_queries(night: Night) -> bool:
    """Whether there are judged queries of the split at all. A night without them pays for nothing else."""
    return night.warehouse.has_rows(TABLES[0], {"split": splits_of(night)}) and night.warehouse.has_rows(TABLES[1], {"source": ("judgments", "clicks")})


def write_judged(night: Night, pool: Pool, path: str) -> Judged:
    """Write the queries as Parquet, a row each: query_id, text, group_key, `positives` as a list of (position, gain, relevant), `ignored`
    (judged items in the pool without a gain) as a list of (position), best_item, and the columns that slices are made of."""
    settings = night.settings
    options, lowest, relevant = settings.evaluate, settings.queries.irrelevant_grade, settings.queries.relevant_grade
    active = night.warehouse.read("catalog_items", pool.versions["catalog_items"]).where("is_active")
    items = active.select("item_id", "category", F.col("image_hash").isNotNull().alias("has_picture"))
    positions = item_frame(night, pool).select("item_id", "position")
    asked = night.warehouse.read("relevance_queries").where(F.col("split").isin(*splits_of(night)))
    asked = asked.select("query_id", F.struct("text", "normalised_text", "source", "popularity").alias("asked"))
    gain = F.round(F.col("grade").cast("double") - F.lit(lowest), DIGITS)
    judged = night.warehouse.read("query_judgments").where("weight > 0").select("query_id", "item_id", "grade", gain.alias("gain"))
    judged = judged.join(asked, "query_id").join(items, "item_id").join(positions, "item_id", "left")
    is_relevant = F.lit(True) if relevant is None else F.round(F.col("grade").cast("double"), DIGITS) >= F.lit(relevant)
    at = F.coalesce("position", F.lit(-1)).alias("position")
    positive = F.struct(at, "gain", is_relevant.alias("relevant"))
    # of several best items the one that the pool has, then the first by id
    best = F.struct((-F.col("gain")).alias("order"), F.col("position").isNull().alias("missing"), "item_id", "category", "has_picture")
    listed = judged.groupBy("query_id").agg(
        F.first("asked").alias("asked"),
        F.sort_array(F.collect_list(F.when(F.col("gain") > 0, positive))).alias("positives"),
        F.sort_array(F.collect_list(F.when((F.col("gain") <= 0) & F.col("position").isNotNull(), F.struct("position")))).alias("ignored"),
        F.min(best).alias("best"),
    ).where(F.size("positives") > 0)  # fmt: skip
    found = listed.select(
        "query_id", "asked.text", F.xxhash64("asked.normalised_text").alias("group_key"), "positives", "ignored",
        F.col("best.item_id").alias("best_item"), *slice_columns(),
    )  # fmt: skip
    if options.max_queries:
        found = found.orderBy(F.xxhash64("query_id", F.lit(options.seed)), "query_id").limit(options.max_queries)
    found.write.mode("overwrite").parquet(path)
    missing = F.size(F.filter("positives", lambda p: p["position"] < 0))
    sums = {"positives": F.size("positives"), "positives_without_embedding": missing, "negatives": F.size("ignored")}
    totals = night.spark.read.parquet(path).agg(F.count("*").alias("queries"), *(F.sum(column).alias(name) for name, column in sums.items()))
    return Judged(**{name: value or 0 for name, value in totals.collect()[0].asDict().items()})


def slice_columns() -> list[Column]:
    """The columns that slices are made of: source, length, category and has_picture of the best item, popularity."""
    words = F.size(F.split("asked.normalised_text", " "))
    top = F.trim(F.element_at(F.split("best.category", ">"), 1))
    return [
        F.col("asked.source"),
        F.when(words >= LONG, f"{LONG}+").otherwise(words.cast("string")).alias("length"),
        F.when(top != "", top).alias("category"),
        F.col("best.has_picture").cast("string").alias("has_picture"),
        F.col("asked.popularity"),
    ]


def with_memberships(queries: DataFrame, names: Sequence[str]) -> DataFrame:
    """The queries with `memberships`: the slices that each belongs to, as "all" and "name=value"."""
    if "popularity" in names:
        queries = with_share(queries)
    values = [F.concat(F.lit(f"{name}="), F.col("share" if name == "popularity" else name)) for name in dict.fromkeys(names)]
    return queries.withColumn("memberships", F.array_compact(F.array(F.lit(ALL), *values)))


def with_share(queries: DataFrame) -> DataFrame:
    """The queries with `share`: head for those where more popular ones make less than a third of all searches, tail where less popular ones
    do, else torso; null where the popularity is not known. So equally popular queries are in one slice. Cost: a sort of the queries."""
    searches = F.sum("popularity")
    order = Window.orderBy(F.desc("popularity"))
    known = queries.where(F.col("popularity").isNotNull()).groupBy("popularity").agg(searches.alias("own"))
    up_to, total = F.sum("own").over(order), F.sum("own").over(Window.partitionBy())
    share = F.when(3 * (up_to - F.col("own")) < total, "head").when(3 * (total - up_to) < total, "tail").otherwise("torso")
    return queries.join(F.broadcast(known.select("popularity", share.alias("share"))), "popularity", "left")
