"""Progress of a running Spark job: its tasks count, and a thread shows the count twice a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark import Accumulator

from tgq.run.progress import repeated

if TYPE_CHECKING:
    from tgq.run.night import Night


@contextmanager
def job_progress(night: Night, label: str, total: int) -> Iterator[Accumulator[int]]:
    """Report a job's progress while the block runs. Yields the accumulator that the tasks add to; a task's count arrives when it ends."""
    done = night.spark.sparkContext.accumulator(0)
    night.progress.start(label, total)
    try:
        with repeated(lambda: night.progress.update(min(done.value, total))):  # a task that was run twice counts twice
            yield done
    finally:
        night.progress.finish()
