"""Encodes slices of the plan in one Spark job, stages their rows and commits them to the tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.duplicates.hashes import commit_hashes
from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.executor.worker import EmbedWorker
from tgq.embedding.feature_cache import with_cached_features
from tgq.embedding.grounding import commit_grounding
from tgq.embedding.meter import Meter
from tgq.embedding.plan import OPTIONAL, Grouping, Plan, Slice
from tgq.registry.loading import Towers
from tgq.run.night import Night


@dataclass(frozen=True)
class Staged:
    """Slices whose rows are staged. What they have none of needs no Spark job to be committed."""

    batch: Sequence[Slice]
    new_features: bool  # some rows have tower features that are not cached
    hashed: bool  # some pictures have a perceptual hash that is to be kept
    refused: bool  # some rows are quarantined


def encode_slices(night: Night, plan: Plan, batch: Sequence[Slice], worker: EmbedWorker, towers: Towers, meter: Meter, grouping: Grouping) -> Staged:
    """Run the worker function over slices of one kind and stage their rows as Parquet."""
    from tgq.inference.records import OUTPUT_SCHEMA

    tasks = [grouping.tasks(part, part is batch[-1]) for part in batch]
    first_task, large_parts = (
        F.create_map(*(F.lit(n) for part, value in zip(batch, values, strict=False) for n in (part.number, value)))[F.col("slice")]
        for values in (accumulate(tasks, initial=0), [grouping.large_parts(part, part is batch[-1]) for part in batch])
    )
    short = F.ceil(large_parts / grouping.large) + F.floor((F.col("part") - large_parts) / grouping.small)
    within = F.when(F.col("part") < large_parts, F.floor(F.col("part") / grouping.large)).otherwise(short)
    rows = _planned(night, plan, batch).withColumn("task", first_task + within.cast("int"))
    columns = ["task", "item_id", "image_uri", "image_bytes", "image_hash", "metadata_text", "encoder_title"]
    rows = rows.select(*columns, *(column for column in OPTIONAL if column in rows.columns))
    if batch[0].cached:
        rows = with_cached_features(night, rows.withColumn("image_bytes", F.lit(None).cast("binary")), towers)
    rows = rows.repartitionById(sum(tasks), F.col("task")).drop("task")
    counters = meter.counters

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in worker.engine().run(batches):
            counters.rows.add(batch.num_rows)
            counters.refused.add(batch.num_rows - int(pc.sum(pc.equal(batch["status"], "embedded")).as_py() or 0))
            counters.new_features.add(batch.num_rows - min(batch["image_tokens"].null_count, batch["text_tokens"].null_count))
            counters.hashed.add(batch.num_rows - batch["perceptual_hash"].null_count)
            counters.wait_s.add(float(pc.sum(batch["decode_wait_s"]).as_py() or 0))
            counters.model_s.add(float(pc.sum(batch["model_s"]).as_py() or 0))
            yield batch

    watched = (counters.new_features, counters.hashed, counters.refused)
    before = [counter.value for counter in watched]
    with meter.shown():
        with preloaded(night.spark.sparkContext):
            done = rows.mapInArrow(run, from_arrow_schema(OUTPUT_SCHEMA))
        done.write.mode("overwrite").parquet(_output(night, batch))
    return Staged(batch, *(counter.value > value for counter, value in zip(watched, before, strict=True)))


def staged(night: Night, plan: Plan, batch: Sequence[Slice]) -> DataFrame:
    """The rows that `encode_slices` staged, joined with the planned items."""
    planned = _planned(night, plan, batch)
    kept = ("item_id", "content_hash", "category", "source_fingerprint", "image_hash", "metadata_text", "encoder_title", "detector_version")
    planned = planned.select(*(column for column in kept if column in planned.columns))
    return night.spark.read.parquet(_output(night, batch)).join(planned, "item_id")


def _planned(night: Night, plan: Plan, batch: Sequence[Slice]) -> DataFrame:
    return night.spark.read.parquet(plan.folder).where(F.col("slice").isin([part.number for part in batch]))


def _output(night: Night, batch: Sequence[Slice]) -> str:
    return night.staging("embed", "out", str(batch[0].number))


def commit_slices(night: Night, plan: Plan, encoded: Staged, model_version: str, tower_version: str) -> None:
    """Commit staged slices to the tables: append if no rows are replaced, otherwise MERGE with deletion vectors."""
    warehouse, batch = night.warehouse, encoded.batch
    rows = staged(night, plan, batch)
    good = rows.where(F.col("status") == "embedded")
    stamp = {"run_id": F.lit(night.run_id), "model_version": F.lit(model_version), "tower_version": F.lit(tower_version)}
    good = good.withColumns(stamp | {"embedded_at": F.current_timestamp()})
    tables = {"item_embeddings": ("item_id", "model_version"), "item_features": ("item_id", "tower_version")}
    if encoded.refused:
        bad = rows.where(F.col("status") != "embedded").select(
            F.lit(night.run_id).alias("run_id"), F.lit("embed").alias("stage"), "item_id", F.lit(0).alias("occurrence"), "reason",
            "detail", F.lit(None).cast("string").alias("fields"), "source_fingerprint", F.current_timestamp().alias("quarantined_at"),
        )  # fmt: skip
        warehouse.upsert(bad, "quarantine", ("run_id", "stage", "item_id", "occurrence"))
    # embeddings are committed last, because an item with an embedding is no longer pending
    replaces = any(part.replaced for part in batch)
    if "detector_version" in rows.columns:
        commit_grounding(night, plan, good, batch[0].number, replaces)
    if encoded.hashed:
        commit_hashes(night, good, (f"tgq-hashes-{plan.attempt}", batch[0].number))
    for table in ("item_features", "item_embeddings"):
        frame = good.select(*warehouse.read(table).columns)
        if replaces:
            warehouse.upsert(frame, table, tables[table])
        else:
            warehouse.append(frame, table, transaction=(f"tgq-embed-{plan.attempt}", batch[0].number))
