"""The plan of the embed step: which items are pending, in which slice and task each goes, of about equal bytes."""

from __future__ import annotations

import math
import uuid
from dataclasses import dataclass, fields

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder

TEXT_COST = 32 * 1024  # bytes that an item weighs in the plan beside its picture, for the share of work that every item is
LIGHT = 16  # how many items without a picture to read weigh as one with


def pending(night: Night, model_version: str, tower_version: str) -> DataFrame:
    """Active items without an embedding of their present content under this model.

    `replaces` tells whether the item's old vector must make way; a new item's row can simply be appended.
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
    """One commit's worth of work."""

    number: int
    items: int
    tasks: int
    replaced: int
    light: bool  # no picture to read: each is kept, or there is none


@dataclass(frozen=True)
class Plan:
    """The slices of one attempt; `attempt` makes its Delta transactions its own."""

    folder: str
    attempt: str
    slices: tuple[Slice, ...]


def write_plan(night: Night, waiting: DataFrame) -> Plan:
    """Cut the pending items into slices by hash, and each slice into tasks of about equal bytes, equal pictures side by side.

    Items that need no vision tower have slices of their own: a slice of them reads the feature cache once, and holds more.
    """
    settings = night.settings.embed
    remove_folder(night.staging("embed"))
    folder = night.staging("embed", "plan")
    parallel = max(1, night.spark.sparkContext.defaultParallelism)
    per_slice = settings.slice_items or 4 * parallel * settings.task_items
    columns = (
        "item_id", "content_hash", "category", "image_uri", "image_bytes", "image_hash", "image_size", "metadata_text",
        "encoder_title", "source_fingerprint", "replaces", "light",
    )  # fmt: skip
    counts = {row["light"]: row["n"] for row in waiting.groupBy("light").agg(F.count("*").alias("n")).collect()}
    if not counts:
        return Plan(folder, "", ())
    heavy, light = (math.ceil(counts.get(kind, 0) / size) for kind, size in ((False, per_slice), (True, LIGHT * per_slice)))
    group = F.coalesce("image_hash", "item_id")
    of_kind = F.when(F.col("light"), heavy + F.pmod(F.xxhash64(group), F.lit(max(1, light)))).otherwise(F.pmod(F.xxhash64(group), F.lit(max(1, heavy))))
    sliced = waiting.select(*columns).withColumn("slice", of_kind.cast("int"))
    whole = Window.partitionBy("slice")
    cost: Column = F.when(F.col("light"), 0).otherwise(F.coalesce("image_size", F.lit(0))) + F.lit(TEXT_COST)
    tasks = F.greatest(F.lit(1), F.ceil(F.count("*").over(whole) / F.lit(settings.task_items))).cast("int")
    before = F.sum(cost).over(whole.orderBy(group, "item_id").rowsBetween(Window.unboundedPreceding, -1))
    planned = (
        sliced.withColumn("tasks", F.when(F.col("light"), F.least(tasks, F.lit(4 * parallel))).otherwise(tasks))
        .withColumn("total", F.sum(cost).over(whole))
        .withColumn("task", F.floor(F.coalesce(before, F.lit(0)) * F.col("tasks") / F.col("total")).cast("int"))
        .drop("total")
    )
    planned.write.mode("overwrite").partitionBy("slice").parquet(folder)
    rows = (
        night.spark.read.parquet(folder)
        .groupBy("slice")
        .agg(F.count("*").alias("items"), F.max("tasks").alias("tasks"), F.sum(F.col("replaces").cast("int")).alias("replaced"),
             F.max("light").alias("light"))
        .orderBy("slice")
        .collect()
    )  # one row per slice  # fmt: skip
    return Plan(folder, uuid.uuid4().hex, tuple(Slice(*(r[f.name if f.name != "number" else "slice"] for f in fields(Slice))) for r in rows))
