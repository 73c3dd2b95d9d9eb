"""Runs a part of the enrich step slice by slice: each is one Spark job and one commit.

Items that have their results are no longer pending, so a killed run continues where it stopped and ends with the same table. The driver gets a row per
slice.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import pyarrow as pa
from pyspark import Accumulator, TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.executor.worker import task_cores, task_device
from tgq.enrichment.generators import GeneratorPlan
from tgq.errors import EnrichmentError
from tgq.messages import presentable
from tgq.refinement.generators.endpoint import NO_KEY, REFUSED, UNREACHABLE
from tgq.run.job_progress import job_progress
from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder

STAGE = "enrich"
TABLES = ("item_texts", "item_attributes_generated")  # of the parts
Answer = Callable[[pa.RecordBatch], pa.RecordBatch]  # the results of some items


Plan = TypeVar("Plan", bound=GeneratorPlan)


@dataclass(frozen=True)
class Work(Generic[Plan]):
    """What a part does with items.

    Attributes:
        label: of the progress bar.
        plan: how tasks are built.
        output: columns of a result as DDL, with `item_id`, `replaces`, `verdict`, `reason`, `detail` and `tokens`.
        answers: (plan, device) -> the function that gives the results of items. It is called once in each task.
        commit: (results, some replace older ones, id of the transaction). Results of items that wait are not among them.
        otherwise: what becomes of items without an answer, for a message.
    """

    label: str
    plan: Plan
    output: str
    answers: Callable[[Plan, str], Answer]
    commit: Callable[[DataFrame, bool, tuple[str, int]], None]
    otherwise: str


@dataclass(frozen=True)
class Spent:
    """What a slice cost."""

    items: int
    tokens: int
    failed: int
    unreachable: int  # of them, items for which no endpoint was found
    turned_down: int  # of them, items that the endpoint did not take
    example: str | None  # the detail of a failed item


def run_slices(night: Night, pending: DataFrame, work: Work[Plan]) -> None:
    """Work on the pending items.

    Raises:
        EnrichmentError: the language model does not answer, and `enrich.on_failure` is stop. Items that it answered for are committed.
    """
    endpoint = night.settings.enrich.text.endpoint
    folder, attempt = night.staging(STAGE, "plan"), uuid.uuid4().hex
    remove_folder(night.staging(STAGE))
    pending.write.mode("overwrite").parquet(folder)
    planned = night.spark.read.parquet(folder)
    total = planned.count()
    if not total:
        return
    slices, cores = work.plan.slices_of(total), night.spark.sparkContext.defaultParallelism
    left = None if endpoint.max_tokens is None else endpoint.max_tokens - spent_by(night)
    with job_progress(night, work.label, total) as done:
        for number in range(slices):
            if work.plan.uses_endpoint and left is not None and left <= 0:
                night.progress.say(f"the run's limit of {endpoint.max_tokens:,} tokens is reached; the other items wait for the next run")
                break
            part = planned.where(F.pmod(F.xxhash64("item_id"), F.lit(slices)) == number)
            tasks = work.plan.tasks_of(math.ceil(total / slices), cores)
            limited = replace(work, plan=replace(work.plan, tasks=min(tasks, cores), tokens=left))
            spent = _run_slice(night, limited, part.repartition(tasks), f"tgq-enrich-{attempt}", number, done)
            left = None if left is None else left - spent.tokens
            if spent.failed and _must_end(night, work, spent, number < slices - 1):
                break
    remove_folder(night.staging(STAGE))


def spent_by(night: Night) -> int:
    """Tokens that the run has spent on what it committed. Cost: a scan of two columns of both tables."""
    return sum(night.warehouse.sums(table, "run_id", "tokens").get(night.run_id, 0) for table in TABLES)


def _run_slice(night: Night, work: Work[Plan], part: DataFrame, transaction: str, number: int, done: Accumulator[int]) -> Spent:
    """Work on a slice in one job, stage its rows and commit them."""
    output = night.staging(STAGE, "out", str(number))
    plan, answers, wanted = work.plan, work.answers, night.settings.encoder.device

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        if plan.uses_torch:
            import torch

            torch.set_num_threads(task_cores())
        answer = answers(plan, task_device(wanted, TaskContext.get()))
        for batch in batches:
            for start in range(0, batch.num_rows, plan.chunk):
                rows = batch.slice(start, plan.chunk)
                yield answer(rows)
                done.add(rows.num_rows)

    with preloaded(night.spark.sparkContext, plan.uses_torch):
        part.mapInArrow(run, work.output).write.mode("overwrite").parquet(output)
    found = night.spark.read.schema(work.output).parquet(output)
    row = found.agg(
        F.count_distinct("item_id").alias("items"), F.coalesce(F.sum("tokens"), F.lit(0)).alias("tokens"), _items_of(F.col("verdict") == "failed", "failed"),
        _items_of(F.col("reason") == UNREACHABLE, "unreachable"), _items_of(F.col("reason").isin(REFUSED, NO_KEY), "turned_down"),
        F.max(F.when(F.col("verdict") == "failed", F.col("detail"))).alias("example"), F.count_if("replaces").alias("replaced"),
    ).collect()[0].asDict()  # fmt: skip
    replaced = row.pop("replaced")
    # an item that waits has no row, so the next run asks for it
    work.commit(found.where("verdict <> 'waiting'"), replaced > 0, (transaction, number))
    return Spent(**row)


def _items_of(condition, name: str):
    return F.count_distinct(F.when(condition, F.col("item_id"))).alias(name)


def _must_end(night: Night, work: Work[Plan], spent: Spent, is_more: bool) -> bool:
    """Whether no other slice is to be tried, because the model answers for no item; says so in one line.

    Raises:
        EnrichmentError: the endpoint is down or takes no item at all, and `enrich.on_failure` is stop.
    """
    found = presentable(f"{work.plan.name} has no answer for {spent.failed} of {spent.items} items ({spent.example})")
    nothing = spent.unreachable + spent.turned_down == spent.items
    if night.settings.enrich.on_failure == "stop" and (spent.unreachable or nothing):
        raise EnrichmentError(found, "repair it and run the same command again, or set enrich.on_failure=continue")
    rest = "; the others are not tried" if is_more and nothing else ""
    night.progress.say(f"{found}: they {work.otherwise}{rest}")
    return nothing
