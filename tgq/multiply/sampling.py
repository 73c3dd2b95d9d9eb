"""Which items are shown how often, and which other products are at hand for each: frames of ids, without pictures.

Everything is drawn by a hash of the item id and the seed, so it depends neither on the partitioning nor on the order of the source.
The driver gets BUCKETS counts and POOL ids at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

CAST = 64  # items of each category that may stand beside the category's other items
POOL = 512  # items of all categories, as many of each as can be, that may stand beside any item
BUCKETS = 4096  # counted on the driver; items are numbered within a bucket, so no task sorts all ids
CAST_ROW = -1  # `first` of a row that is no item to show, but a member of its category's cast


@dataclass(frozen=True)
class Sampling:
    """The usable items of a catalog, and how often each is shown: `rows` variants in all, as many of each item as can be.

    Attributes:
        ids: item_id, group_id, category, hash, bucket.
        per_bucket: number of items by bucket.
        slice_rows: variants of one item that a task makes in one go.
        chunk_rows: about so many variants of a category share one copy of its cast.
    """

    ids: DataFrame
    per_bucket: Mapping[int, int]
    rows: int
    slice_rows: int = 256
    chunk_rows: int = 512

    @classmethod
    def of(cls, items: DataFrame, rows: int, seed: int, chunk_rows: int = 512) -> Sampling:
        """Args:
        items: item_id, group_id, category, and whatever else.
        """
        order = F.xxhash64("item_id", F.lit(f"multiply {seed}"))
        category, bucket = F.coalesce("category", F.lit("")).alias("category"), F.pmod(order, F.lit(BUCKETS)).alias("bucket")
        ids = items.select("item_id", "group_id", category, order.alias("hash"), bucket)
        counts = {row["bucket"]: row["count"] for row in ids.groupBy("bucket").count().collect()}
        return cls(ids, counts, rows, chunk_rows=chunk_rows)

    @property
    def items(self) -> int:
        """Number of usable items."""
        return sum(self.per_bucket.values())

    def cast(self) -> DataFrame:
        """item_id, category, hash and `rank` (from 1) of at most CAST items of each category: one of every group, then a second, and so on.

        An item never stands beside those of its own group, so a large group must not be the whole cast.
        """
        turn = F.row_number().over(Window.partitionBy("category", "group_id").orderBy("hash", "item_id"))
        rank = F.row_number().over(Window.partitionBy("category").orderBy("turn", "hash", "item_id"))
        return self.ids.withColumn("turn", turn).withColumn("rank", rank).where(F.col("rank") <= CAST).select("item_id", "category", "hash", "rank")

    def pool(self) -> DataFrame:
        """item_id of at most POOL items: the first of every category's cast, then the second of each, and so on."""
        return self.cast().orderBy("rank", "hash", "item_id").limit(POOL).select("item_id")

    def work(self, spark: SparkSession) -> DataFrame:
        """Rows (item_id, category, chunk, first, last): variants `first` to `last` - 1 of an item, or a member of the chunk's cast (CAST_ROW).

        A chunk is a part of a category of about `chunk_rows` variants. Each has the whole cast of its category.
        """
        shown = self._numbered(spark)
        per_category = shown.groupBy("category").agg(F.ceil(F.sum("copies") / self.chunk_rows).alias("chunks"))
        slices = F.explode(F.sequence(F.lit(0), F.floor((F.col("copies") - 1) / self.slice_rows).cast("int")))
        variants = shown.join(per_category, "category").select("*", slices.alias("slice")).select(
            "item_id", "category", F.pmod(F.xxhash64("item_id", "slice"), F.col("chunks")).alias("chunk"),
            (F.col("slice") * self.slice_rows).alias("first"), F.least("copies", (F.col("slice") + 1) * self.slice_rows).alias("last"),
        )  # fmt: skip
        casts = self.cast().where("category <> ''").join(variants.select("category", "chunk").distinct(), "category")
        return variants.unionByName(casts.select("item_id", "category", "chunk", F.lit(CAST_ROW).alias("first"), F.lit(0).alias("last")))

    def _numbered(self, spark: SparkSession) -> DataFrame:
        """item_id, category and `copies` of the items that are shown: each floor(rows / items) times, the first ones once more."""
        before, offsets = 0, []
        for bucket in sorted(self.per_bucket):
            offsets.append((bucket, before))
            before += self.per_bucket[bucket]
        starts = F.broadcast(spark.createDataFrame(offsets, "bucket long, before long"))
        place: Column = F.row_number().over(Window.partitionBy("bucket").orderBy("hash", "item_id")) - 1
        each, more = divmod(self.rows, self.items)
        number = F.col("before") + F.col("place")
        copies = F.lit(each) + F.when(number < more, 1).otherwise(0)
        placed = self.ids.withColumn("place", place).join(starts, "bucket")
        return placed.withColumn("copies", copies.cast("int")).where("copies > 0").select("item_id", "category", "copies")
