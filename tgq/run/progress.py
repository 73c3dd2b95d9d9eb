"""Progress of a step: who is told, and a running Spark job that tells it twice a second."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pyspark import Accumulator

if TYPE_CHECKING:
    from tgq.run.night import Night


class Progress(Protocol):
    """Where a step says how far it is; the command line draws a bar, a scheduler's log gets lines."""

    def start(self, label: str, total: int) -> None: ...
    def update(self, done: int, note: str = "") -> None: ...
    def finish(self) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    """A Progress that says nothing."""

    def start(self, label: str, total: int) -> None: ...
    def update(self, done: int, note: str = "") -> None: ...
    def finish(self) -> None: ...
    def say(self, line: str) -> None: ...


@contextmanager
def job_progress(night: Night, label: str, total: int) -> Iterator[Accumulator[int]]:
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
