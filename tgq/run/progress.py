"""A bar over a running Spark job: tasks count what they have done, a thread shows it twice a second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import Accumulator

from tgq.run.night import Night


@contextmanager
def watched(night: Night, label: str, total: int) -> Iterator[Accumulator]:
    """Yields the accumulator that the job's tasks add to; a task's share arrives when it ends."""
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
