"""The plan of the embed step: the pending items, in slices (one commit each) and parts of tasks, of about equal bytes."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tgq.duplicates.hashes import WANTED
from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder

ITEM_COST = 32 * 1024  # bytes that the plan adds to each item's picture for work that does not depend on it
CACHED_FACTOR = 16  # a slice of cached items holds this many times the items of another slice
PARTS = 4  # the plan cuts `embed.task_items` into this many parts; a task takes one of them or, if that is little work, several
MOST_PARTS = 8 * PARTS
GROUNDING = ("phrase", "detector_version", "known")  # what a detector is asked for, the version of the crop, and what was found earlier
OPTIONAL = (*GROUNDING, WANTED)  # columns of the plan that only some settings need
TASK_S, LAST_TASK_S = 10.0, 1.0  # seconds of a task, as far as whole parts allow; the last ones of a job are short, as the other cores wait for them


def pending(night: Night, model_version: str, tower_version: str) -> DataFrame:
    """Active items that have no embedding of their present content from this model.

    The column `replaces` is true if the new rows replace old ones; otherwise they can be appended.
    """
    items = night.warehouse.read("catalog_items").where("is_active")
    done = (
        night.warehouse.read("item_embeddings")
        .where(F.col("model_version") == model_version)
        .select("item_id", F.col("content_hash").alias("embedded_hash"))
    )
    known = (
        night.warehouse.read("item_features")
        .where(F.col("tower_version") == tower_version)
        .select("item_id", F.lit(True).alias("has_features"))
    )
    joined = items.join(done, "item_id", "left").where(~F.col("content_hash").eqNullSafe(F.col("embedded_hash")))
    return joined.join(known, "item_id", "left").withColumn(
        "replaces", F.col("embedded_hash").isNotNull() | F.coalesce("has_features", F.lit(False))
    )


@dataclass(frozen=True)
class Slice:
    """Items that are committed together, alone or with those of following slices."""

    number: int
    items: int
    parts: int  # of tasks
    replaced: int  # items whose old rows are replaced
    cached: bool  # no item's picture has to be read


@dataclass(frozen=True)
class Plan:
    """The slices of one attempt."""

    folder: str  # Parquet with the planned items
    attempt: str  # unique; part of the ids of the attempt's Delta transactions
    slices: tuple[Slice, ...]


def next_batch(slices: Sequence[Slice], items_per_s: float | None, seconds: float) -> Sequence[Slice]:
    """The first slices that are worth `seconds` of work, at least one; only one if the rate is not known yet.

    All are of one kind, cached or not, and either all of them replace rows or none, so that a batch is either appended or merged.
    """
    kind, taken, items = (slices[0].cached, slices[0].replaced > 0), 0, 0
    for part in slices:
        if taken and ((part.cached, part.replaced > 0) != kind or items_per_s is None or items + part.items > items_per_s * seconds):
            break
        taken, items = taken + 1, items + part.items
    return slices[:taken]


@dataclass(frozen=True)
class Grouping:
    """How many parts of a slice the tasks of a job take: `large` each, and `small` each at the end of the job, when cores run out of work."""

    large: int
    small: int
    cores: int

    @classmethod
    def of(cls, items_per_s: float | None, cores: int, task_items: int) -> Grouping:
        """For a rate of all cores; one part each if it is not known yet."""

        def parts(seconds: float) -> int:
            part = max(1, task_items // PARTS)
            return 1 if items_per_s is None else max(1, min(MOST_PARTS, round(items_per_s / cores * seconds / part)))

        return cls(parts(TASK_S), parts(LAST_TASK_S), cores)

    def large_parts(self, part: Slice, is_last: bool) -> int:
        """The first parts of a slice that are taken `large` at a time: all, apart from one large task per core at the end of the last slice."""
        return max(0, part.parts - self.cores * self.large) // self.large * self.large if is_last else part.parts

    def tasks(self, part: Slice, is_last: bool) -> int:
        """The number of tasks of a slice."""
        taken = self.large_parts(part, is_last)
        return -(-taken // self.large) + -(-(part.parts - taken) // self.small)


def write_plan(night: Night, waiting: DataFrame, counts: Mapping[bool, int]) -> Plan:
    """Split the pending items into slices by hash, and each slice into parts of about equal bytes. Items with the same picture go to
    the same slice, next to each other. Cached items have slices of their own, which are larger, because each reads the whole cache.

    Args:
        waiting: the items, with the columns `replaces` and `cached`, and of OPTIONAL those that the settings need.
        counts: how many of them are not cached (False) and cached (True).
    """
    settings = night.settings.embed
    remove_folder(night.staging("embed"))
    folder = night.staging("embed", "plan")
    parallel = max(1, night.spark.sparkContext.defaultParallelism)
    per_slice = settings.slice_items or 4 * parallel * settings.task_items
    columns = (
        "item_id", "content_hash", "category", "image_uri", "image_bytes", "image_hash", "image_size", "metadata_text",
        "encoder_title", "source_fingerprint", "replaces", "cached",
    )  # fmt: skip
    if not sum(counts.values()):
        return Plan(folder, "", ())
    uncached, cached = (math.ceil(counts.get(kind, 0) / size) for kind, size in ((False, per_slice), (True, CACHED_FACTOR * per_slice)))
    group = F.coalesce("image_hash", "item_id")
    hashed = F.xxhash64(group)
    number = F.when(F.col("cached"), uncached + F.pmod(hashed, F.lit(max(1, cached)))).otherwise(F.pmod(hashed, F.lit(max(1, uncached))))
    sliced = waiting.select(*columns, *(column for column in OPTIONAL if column in waiting.columns)).withColumn("slice", number.cast("int"))
    whole = Window.partitionBy("slice")
    cost: Column = F.when(F.col("cached"), 0).otherwise(F.coalesce("image_size", F.lit(0))) + F.lit(ITEM_COST)
    parts = F.greatest(F.lit(1), F.ceil(F.count("*").over(whole) * PARTS / F.lit(settings.task_items))).cast("int")
    before = F.sum(cost).over(whole.orderBy(group, "item_id").rowsBetween(Window.unboundedPreceding, -1))
    planned = (
        sliced.withColumn("parts", F.when(F.col("cached"), F.least(parts, F.lit(4 * parallel * PARTS))).otherwise(parts))
        .withColumn("total", F.sum(cost).over(whole))
        .withColumn("part", F.floor(F.coalesce(before, F.lit(0)) * F.col("parts") / F.col("total")).cast("int"))
        .drop("total")
    )
    planned.write.mode("overwrite").partitionBy("slice").parquet(folder)
    rows = (
        night.spark.read.parquet(folder)
        .groupBy("slice")
        .agg(F.count("*").alias("items"), F.max("parts").alias("parts"), F.sum(F.col("replaces").cast("int")).alias("replaced"),
             F.max("cached").alias("cached"))
        .orderBy("slice")
        .collect()
    )  # one row per slice  # fmt: skip
    return Plan(folder, uuid.uuid4().hex, tuple(Slice(*(r[f.name if f.name != "number" else "slice"] for f in fields(Slice))) for r in rows))
