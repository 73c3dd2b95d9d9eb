"""Progress of a running Spark job: its tasks count, and a thread shows the count twice a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa
from pyspark import Accumulator
from pyspark.sql import SparkSession

from tgq.run.progress import Progress, repeated

Rows = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


class Watched(Protocol):
    """Work on a Spark session that somebody watches, such as a `Night`."""

    @property
    def spark(self) -> SparkSession: ...
    @property
    def progress(self) -> Progress: ...


@contextmanager
def job_progress(night: Watched, label: str, total: int) -> Iterator[Accumulator[int]]:
    """Report a job's progress while the block runs. Yields the accumulator that the tasks add to; a task's count arrives when it ends."""
    done = night.spark.sparkContext.accumulator(0)
    night.progress.start(label, total)
    try:
        with repeated(lambda: night.progress.update(min(done.value, total))):  # a task that was run twice counts twice
            yield done
    finally:
        night.progress.finish()


def counted(run: Rows, done: Accumulator[int]) -> Rows:
    """A function for `mapInArrow` that yields what `run` yields, and adds the number of rows to `done`."""

    def counting(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in run(batches):
            done.add(batch.num_rows)
            yield batch

    return counting
