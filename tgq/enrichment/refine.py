"""Refinement of titles: items whose texts the active refiner has not seen are refined slice by slice, into `item_texts`.

A slice is one Spark job and one commit. Refined items are no longer pending, so a killed run continues where it stopped and ends with the
same table. Cost: a join of the keys of the catalog and of `item_texts`; then the refiner, for new and changed items only. The driver gets a
row per slice.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.executor.worker import task_cores, task_device
from tgq.enrichment.refiners import RefinerPlan
from tgq.enrichment.texts import with_readable_texts
from tgq.errors import EnrichmentError
from tgq.messages import presentable
from tgq.refinement.generators.endpoint import NO_KEY, REFUSED, UNREACHABLE
from tgq.refinement.refiner import ItemText
from tgq.run.job_progress import job_progress
from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder

STAGE = "enrich"
KEYS = ("item_id", "refiner_version")
OUTPUT = "item_id string, text_hash string, replaces boolean, verdict string, reason string, detail string, title string, rounds int, tokens long"


@dataclass(frozen=True)
class Spent:
    """What a slice cost."""

    items: int
    tokens: int
    failed: int
    unreachable: int  # of them, items for which no endpoint was found
    turned_down: int  # of them, items that the endpoint did not take
    example: str | None  # the detail of a failed item


def pending(night: Night, version: str) -> DataFrame:
    """Active items with a title whose texts have no result of this refiner, or had no answer in an earlier run. `replaces`: an older row is there."""
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    known = night.warehouse.read("item_texts").where(F.col("refiner_version") == version)
    known = known.select("item_id", F.col("text_hash").alias("known_hash"), (F.col("verdict") == "failed").alias("failed"), F.col("run_id").alias("of_run"))
    joined = items.where(F.length(F.trim("texts.title")) > 0).join(known, "item_id", "left")
    again = F.col("failed") & (F.col("of_run") != night.run_id)
    waiting = joined.where(~F.col("text_hash").eqNullSafe(F.col("known_hash")) | again)
    return waiting.select("item_id", "text_hash", "texts", F.col("known_hash").isNotNull().alias("replaces"))


def refine_titles(night: Night, version: str) -> None:
    """Refine the pending items into `item_texts`.

    Raises:
        EnrichmentError: the language model does not answer, and `enrich.on_failure` is stop. Items that it answered for are committed.
    """
    text, plan = night.settings.enrich.text, RefinerPlan.of(night.settings)
    folder, attempt = night.staging(STAGE, "plan"), uuid.uuid4().hex
    remove_folder(night.staging(STAGE))
    pending(night, version).write.mode("overwrite").parquet(folder)
    planned = night.spark.read.parquet(folder)
    total = planned.count()
    if not total:
        return
    slices = 1 if text.refiner == "rules" else math.ceil(total / text.slice_items)
    left = None if text.endpoint.max_tokens is None else text.endpoint.max_tokens - spent_by(night)
    with job_progress(night, "refine titles", total) as done:
        for number in range(slices):
            if plan.uses_endpoint and left is not None and left <= 0:
                night.progress.say(f"the run's limit of {text.endpoint.max_tokens:,} tokens is reached; the other items wait for the next run")
                break
            part = planned.where(F.pmod(F.xxhash64("item_id"), F.lit(slices)) == number)
            tasks = plan.tasks_of(math.ceil(total / slices), night.spark.sparkContext.defaultParallelism)
            limited = replace(plan, tasks=min(tasks, night.spark.sparkContext.defaultParallelism), tokens=left)
            spent = _refine_slice(night, limited, part.repartition(tasks), version, f"tgq-enrich-{attempt}", number, done)
            left = None if left is None else left - spent.tokens
            if spent.failed and _must_end(night, spent, number < slices - 1):
                break
    remove_folder(night.staging(STAGE))


def spent_by(night: Night) -> int:
    """Tokens that the run has spent on what it committed. Cost: a scan of two columns."""
    return night.warehouse.sums("item_texts", "run_id", "tokens").get(night.run_id, 0)


def _refine_slice(night: Night, plan: RefinerPlan, part: DataFrame, version: str, transaction: str, number: int, done) -> Spent:
    """Refine a slice in one job, stage its rows and commit them."""
    output = night.staging(STAGE, "out", str(number))
    wanted = night.settings.encoder.device

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if plan.uses_torch:
            import torch

            torch.set_num_threads(task_cores())
        refiner = plan.build(task_device(wanted, TaskContext.get()))
        for batch in batches:
            for start in range(0, batch.num_rows, plan.chunk):
                rows = batch.slice(start, plan.chunk).to_pylist()
                results = refiner.refine([_item(row["texts"]) for row in rows])
                done.add(len(rows))
                yield _output(rows, [asdict(result) for result in results])

    with preloaded(night.spark.sparkContext, plan.uses_torch):
        part.mapInArrow(run, OUTPUT).write.mode("overwrite").parquet(output)
    found = night.spark.read.schema(OUTPUT).parquet(output)
    failed = F.col("verdict") == "failed"
    row = found.agg(
        F.count("*").alias("items"), F.coalesce(F.sum("tokens"), F.lit(0)).alias("tokens"), F.count_if(failed).alias("failed"),
        F.count_if(F.col("reason") == UNREACHABLE).alias("unreachable"),
        F.count_if(F.col("reason").isin(REFUSED, NO_KEY)).alias("turned_down"), F.max(F.when(failed, F.col("detail"))).alias("example"),
        F.count_if("replaces").alias("replaced"),
    ).collect()[0].asDict()  # fmt: skip
    replaced = row.pop("replaced")
    stamp = {"run_id": F.lit(night.run_id), "refiner_version": F.lit(version), "refined_at": F.current_timestamp()}
    # an item that waits has no row, so the next run asks for it
    rows = found.where("verdict <> 'waiting'").withColumns(stamp).select(*night.warehouse.read("item_texts").columns)
    if replaced:
        night.warehouse.upsert(rows, "item_texts", KEYS)
    else:
        night.warehouse.append(rows, "item_texts", transaction=(transaction, number))
    return Spent(**row)


def _must_end(night: Night, spent: Spent, is_more: bool) -> bool:
    """Whether no other slice is to be tried, because the model answers for no item; says so in one line.

    Raises:
        EnrichmentError: the endpoint is down or takes no item at all, and `enrich.on_failure` is stop.
    """
    found = presentable(f"the language model has no answer for {spent.failed} of {spent.items} items ({spent.example})")
    nothing = spent.unreachable + spent.turned_down == spent.items
    if night.settings.enrich.on_failure == "stop" and (spent.unreachable or nothing):
        raise EnrichmentError(found, "repair it and run the same command again, or set enrich.on_failure=continue")
    rest = "; the others are not tried" if is_more and nothing else ""
    night.progress.say(f"{found}: they keep their titles{rest}")
    return nothing


def _item(texts: dict) -> ItemText:
    attributes = {name: value for name, value in texts["attributes"] or () if value}
    return ItemText(texts["title"], texts["brand"] or "", texts["category"] or "", attributes)


def _output(rows: Sequence[dict], results: Sequence[dict]) -> pa.RecordBatch:
    columns = {name: pa.array([row[name] for row in rows]) for name in ("item_id", "text_hash", "replaces")}
    kinds = {"verdict": pa.string(), "reason": pa.string(), "detail": pa.string(), "title": pa.string(), "rounds": pa.int32(), "tokens": pa.int64()}
    return pa.RecordBatch.from_pydict(columns | {name: pa.array([result[name] for result in results], kind) for name, kind in kinds.items()})
