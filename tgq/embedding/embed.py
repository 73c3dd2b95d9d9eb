"""The embed step: items whose (content_hash, model_version) has no embedding yet get one, slice by slice.

A slice is planned by bytes, encoded by one fused worker function per task (fetch, decode, preprocess, encode), staged as
Parquet and then committed to Delta. What is committed is never planned again, so a killed run goes on where it stopped and
ends with the same tables. Cost grows with the number of pending items; the plan reads keys and hashes of the whole catalog,
never its vectors or pictures.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.ingest import UNKNOWN
from tgq.catalog.source import fetch_options, folder_of
from tgq.embedding.feature_cache import keep, make_room, mark_kept, room_left, with_kept
from tgq.errors import AccountingError
from tgq.images.decode import ImageLimits
from tgq.images.fetch import FetchOptions
from tgq.registry.loading import Towers, towers_of
from tgq.run.night import Night, StepResult
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder

TEXT_COST = 32 * 1024  # bytes that an item weighs in the plan beside its picture, for the share of work that every item is
PERMANENT = ("truncated", "not_an_image", "decompression_bomb", "too_large", "no_image_and_no_text")  # whatever the model
LIGHT = 16  # how many items without a picture to read weigh as one with


@dataclass(frozen=True)
class EmbedWorker:
    """What a task needs to embed its rows: plain values, so that pickling it ships no weights."""

    model_folder: str
    device: str
    dtype: str
    batch_tokens: int
    decode_threads: int
    prefetch_mb: int
    fetch: FetchOptions
    limits: ImageLimits
    keep: bool = False

    @classmethod
    def of(cls, settings: Settings, model_folder: str, catalog_folder: str | None) -> EmbedWorker:
        images = settings.images
        return cls(
            model_folder=model_folder,
            device=settings.encoder.device,
            dtype=settings.encoder.dtype,
            batch_tokens=settings.embed.batch_tokens,
            decode_threads=settings.embed.decode_threads,
            prefetch_mb=settings.embed.prefetch_mb,
            fetch=fetch_options(catalog_folder, images),
            limits=ImageLimits(max_bytes=images.max_bytes, max_pixels=images.max_pixels),
        )  # fmt: skip

    def engine(self):
        """The inference engine of this process, on the device that Spark gave to the task."""
        from tgq.images.fetch import Fetcher
        from tgq.inference.engine import EmbeddingEngine, EngineOptions
        from tgq.registry.loading import load_encoder

        context = TaskContext.get()
        cores = context.cpus() if context else 1
        encoder = load_encoder(self.model_folder, task_device(self.device, context), self.dtype)
        options = EngineOptions(
            batch_tokens=self.batch_tokens,
            prefetch_bytes=self.prefetch_mb * 2**20,
            decode_threads=self.decode_threads or cores,
            model_threads=cores,
            limits=self.limits,
            keep=self.keep,
        )
        return EmbeddingEngine(encoder, Fetcher(self.fetch).read, options)


def task_device(wanted: str, context: TaskContext | None) -> str:
    """`wanted`, on the GPU address that Spark's resource discovery gave to this task where it gave one."""
    gpu = context.resources().get("gpu") if context else None
    return f"cuda:{gpu.addresses[0]}" if gpu and wanted != "cpu" else wanted


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


def need_model(night: Night) -> tuple[str, str]:
    """(model version, tower version) of the night's encoder; a whole night asks before it begins.

    Raises:
        ModelError: no encoder folder, no weights, or weights of another configuration.
        DeviceError: a GPU was asked for and is absent; on a cluster the first task says so.
    """
    from tgq.inference.device import choose_device
    from tgq.registry.loading import versions_of

    if night.spark.sparkContext.master.startswith("local"):
        choose_device(night.settings.encoder.device)
    return versions_of(night.model_folder)


def embed(night: Night) -> StepResult:
    """Embed what is new or changed, and account for every active item.

    Raises:
        AccountingError: an active item is neither embedded, unchanged nor quarantined.
        ModelError, DeviceError: before any task starts.
    """
    settings, warehouse = night.settings, night.warehouse
    model_version, tower_version = need_model(night)
    read = warehouse.versions("catalog_items", "item_embeddings")
    carry_quarantine(night, model_version)

    waiting = pending(night, model_version, tower_version).join(
        warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == "embed")), "item_id", "left_anti"
    )
    towers = towers_of(night.model_folder)
    plan = write_plan(night, mark_kept(night, waiting, towers))
    clock, measured = time.perf_counter(), Meter(night)
    night.progress.start("embed", sum(s.items for s in plan.slices))
    worker = EmbedWorker.of(settings, night.model_folder, folder_of(night.spark, settings.catalog))
    room, told = make_room(night, towers) if plan.slices else 0, 0
    for part in plan.slices:
        encode_slice(night, plan, part, replace(worker, keep=room > 0), towers, measured)
        if room > 0 and measured.counters.fresh.value > told:
            told = measured.counters.fresh.value
            keep(night, staged(night, plan, part), towers, (f"tgq-features-{plan.attempt}", part.number))
            room = room_left(night)
        commit_slice(night, plan, part, model_version, tower_version)
    night.progress.finish()
    remove_folder(night.staging("embed"))
    return account(night, plan, model_version, read, measured, time.perf_counter() - clock)


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


def encode_slice(night: Night, plan: Plan, part: Slice, worker: EmbedWorker, towers: Towers, measured: Meter) -> None:
    """Run the fused worker function over one slice and stage its rows as Parquet, all or nothing."""
    from tgq.inference.engine import OUTPUT_SCHEMA

    rows = night.spark.read.parquet(plan.folder).where(F.col("slice") == part.number)
    columns = ["task", "item_id", "image_uri", "image_bytes", "image_hash", "metadata_text", "encoder_title"]
    rows = rows.select(*columns)
    if part.light:
        rows = with_kept(night, rows.withColumn("image_bytes", F.lit(None).cast("binary")), towers)
    tasks = rows.repartitionById(part.tasks, F.col("task")).drop("task")
    counted = measured.counters

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in worker.engine().run(batches):
            counted.rows.add(batch.num_rows)
            counted.fresh.add(batch.num_rows - min(batch["image_tokens"].null_count, batch["text_tokens"].null_count))
            counted.wait_s.add(float(pc.sum(batch["decode_wait_s"]).as_py() or 0))
            counted.model_s.add(float(pc.sum(batch["model_s"]).as_py() or 0))
            yield batch

    with measured.watching():
        done = tasks.mapInArrow(run, from_arrow_schema(OUTPUT_SCHEMA))
        done.write.mode("overwrite").parquet(night.staging("embed", "out", str(part.number)))


def staged(night: Night, plan: Plan, part: Slice) -> DataFrame:
    """What `encode_slice` staged, beside what the plan knows of each item."""
    planned = night.spark.read.parquet(plan.folder).where(F.col("slice") == part.number)
    planned = planned.select("item_id", "content_hash", "category", "source_fingerprint", "image_hash", "metadata_text", "encoder_title")
    return night.spark.read.parquet(night.staging("embed", "out", str(part.number))).join(planned, "item_id")


def commit_slice(night: Night, plan: Plan, part: Slice, model_version: str, tower_version: str) -> None:
    """Bring a staged slice into the tables: append where nothing is replaced, else MERGE with deletion vectors."""
    warehouse = night.warehouse
    rows = staged(night, plan, part)
    good = rows.where(F.col("status") == "embedded")
    stamp = {"run_id": F.lit(night.run_id), "model_version": F.lit(model_version), "tower_version": F.lit(tower_version)}
    good = good.withColumns(stamp | {"embedded_at": F.current_timestamp()})
    tables = {"item_embeddings": ("item_id", "model_version"), "item_features": ("item_id", "tower_version")}
    bad = rows.where(F.col("status") != "embedded").select(
        F.lit(night.run_id).alias("run_id"), F.lit("embed").alias("stage"), "item_id", F.lit(0).alias("occurrence"), "reason",
        "detail", F.lit(None).cast("string").alias("fields"), "source_fingerprint", F.current_timestamp().alias("quarantined_at"),
    )  # fmt: skip
    if bad.limit(1).count():
        warehouse.upsert(bad, "quarantine", ("run_id", "stage", "item_id", "occurrence"))
    # the embeddings come last: they are what takes an item off the next plan
    for table in ("item_features", "item_embeddings"):
        frame = good.select(*warehouse.read(table).columns)
        if part.replaced:
            warehouse.upsert(frame, table, tables[table])
        else:
            warehouse.append(frame, table, transaction=(f"tgq-embed-{plan.attempt}", part.number))


def carry_quarantine(night: Night, model_version: str) -> None:
    """Items whose picture was found broken for good and has not changed since are quarantined again without a new try.

    Not those that have a vector by now, nor those whose picture's version is not known: it may have been mended.
    """
    if night.settings.embed.retry_quarantined:
        return
    earlier = night.warehouse.read("quarantine").where((F.col("stage") == "embed") & F.col("reason").isin(*PERMANENT))
    latest = Window.partitionBy("item_id").orderBy(F.desc("quarantined_at"))
    last = earlier.withColumn("n", F.row_number().over(latest)).where("n = 1").drop("n")
    done = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version)
    items = night.warehouse.read("catalog_items").where("is_active").where(~F.col("source_fingerprint").endswith(f":{UNKNOWN}"))
    items = items.join(done, ["item_id", "content_hash"], "left_anti").select("item_id", "source_fingerprint")
    again = last.join(items, ["item_id", "source_fingerprint"], "left_semi").withColumns(
        {"run_id": F.lit(night.run_id), "quarantined_at": F.current_timestamp()}
    )
    if again.limit(1).count():
        columns = night.warehouse.read("quarantine").columns
        night.warehouse.upsert(again.select(*columns), "quarantine", ("run_id", "stage", "item_id", "occurrence"))


def account(night: Night, plan: Plan, model_version: str, read: dict[str, int], measured: Meter, seconds: float) -> StepResult:
    """Derive the counts from the tables, so that a run taken up again shows those of an undisturbed one."""
    items = night.warehouse.read("catalog_items").where("is_active")
    vectors = (
        night.warehouse.read("item_embeddings")
        .where(F.col("model_version") == model_version)
        .select("item_id", "content_hash", F.col("run_id").alias("embedded_by"))
    )
    refused = (
        night.warehouse.read("quarantine")
        .where((F.col("run_id") == night.run_id) & (F.col("stage") == "embed"))
        .select("item_id", F.lit(True).alias("refused"))
    )
    # an active item is in the snapshot, unless its row there was refused and its last good version stands in
    kept = night.warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == "ingest"))
    kept = kept.select("item_id", F.lit(True).alias("kept")).distinct()
    in_snapshot = F.col("kept").isNull()
    mine = F.col("embedded_by") == night.run_id

    light = sum(part.items for part in plan.slices if part.light)

    def count(condition: Column, name: str) -> Column:
        return F.coalesce(F.sum(condition.cast("long")), F.lit(0)).alias(name)

    refused_ = F.coalesce("refused", F.lit(False))
    row = (
        items.join(vectors, ["item_id", "content_hash"], "left")
        .join(refused, "item_id", "left")
        .join(kept, "item_id", "left")
        .agg(
            F.count("*").alias("active"),
            count(mine, "embedded"),
            count(mine & in_snapshot, "embedded_in_snapshot"),
            count(F.col("embedded_by").isNotNull() & ~mine, "unchanged"),
            count(F.col("embedded_by").isNotNull() & ~mine & in_snapshot, "unchanged_in_snapshot"),
            count(refused_ & F.col("embedded_by").isNull(), "quarantined"),
            count(refused_ & F.col("embedded_by").isNull() & in_snapshot, "quarantined_in_snapshot"),
            count(in_snapshot, "snapshot"),
        )
        .first()
    )
    if row["active"] != row["embedded"] + row["unchanged"] + row["quarantined"]:
        raise AccountingError(
            f"embed: {row['active']} active items, but {row['embedded']} embedded + {row['unchanged']} unchanged + "
            f"{row['quarantined']} quarantined",
            "run the embed step again; if it stays, keep the warehouse for inspection",
        )
    counters = measured.counters
    busy = counters.wait_s.value + counters.model_s.value
    return StepResult(
        rows_in=row["active"], rows_out=row["embedded"], embedded=row["embedded"], unchanged=row["unchanged"],
        quarantined=row["quarantined"], versions_read=read,
        versions_written=night.warehouse.versions("item_embeddings", "item_features"),
        figures={
            "model_version": model_version,
            "snapshot": {k: row[f"{k}_in_snapshot"] for k in ("embedded", "unchanged", "quarantined")} | {"good": row["snapshot"]},
            "encoded_now": counters.rows.value,
            "from_kept_features": light,
            "items_per_s": round(counters.rows.value / seconds, 2) if counters.rows.value else None,
            "decode_wait_share": round(counters.wait_s.value / busy, 4) if busy else None,
            "model_seconds": round(counters.model_s.value, 2),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Counters:
    """Spark accumulators of the running step; a task's share arrives when it ends."""

    rows: object
    fresh: object  # of them, those for which a tower ran and gave something to keep
    wait_s: object
    model_s: object


class Meter:
    """Draws the bar while a Spark job runs: items, items/s, wait share, time left."""

    def __init__(self, night: Night):
        make = night.spark.sparkContext.accumulator
        self.counters = Counters(make(0), make(0), make(0.0), make(0.0))
        self.progress = night.progress

    def watching(self):
        """A context manager: a thread updates the bar twice a second."""
        return _Watch(self)

    def show(self) -> None:
        counters = self.counters
        busy = counters.wait_s.value + counters.model_s.value
        self.progress.update(counters.rows.value, f"waiting for pictures {counters.wait_s.value / busy:.0%}" if busy else "")


class _Watch:
    def __init__(self, meter: Meter):
        self.meter, self.stop = meter, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        while not self.stop.wait(0.5):
            self.meter.show()

    def __exit__(self, *exc) -> None:
        self.stop.set()
        self.thread.join()
        self.meter.show()
