"""Progress of a running Spark job: its tasks count, and a thread shows the count twice a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pyspark import Accumulator
from pyspark.sql import SparkSession

from tgq.run.progress import Progress, repeated


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
