"""Progress of a running Spark job: its tasks count, and a thread shows the count twice a second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark import Accumulator

if TYPE_CHECKING:
    from tgq.run.night import Night


@contextmanager
def job_progress(night: Night, label: str, total: int) -> Iterator[Accumulator[int]]:
    """Report a job's progress while the block runs. Yields the accumulator that the tasks add to; a task's count arrives when it ends."""
    done, ended = night.spark.sparkContext.accumulator(0), threading.Event()

    def show() -> None:
        while not ended.wait(0.5):
            night.progress.update(min(done.value, total))  # a task that was run twice counts twice

    night.progress.start(label, total)
    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()
        night.progress.update(min(done.value, total))
        night.progress.finish()
