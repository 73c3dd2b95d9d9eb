"""Counters of a running embed job, and the progress bar that shows them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyspark import Accumulator

from tgq.run.night import Night


@dataclass(frozen=True)
class Counters:
    """Spark accumulators of the running step; a task's counts arrive when it ends."""

    rows: Accumulator[int]
    new_features: Accumulator[int]  # rows with tower features that were not cached
    wait_s: Accumulator[float]  # the model waited for pictures
    model_s: Accumulator[float]


class Meter:
    """Shows the progress of a running job: items, rate, share of time waiting for pictures, time left."""

    def __init__(self, night: Night):
        make = night.spark.sparkContext.accumulator
        self.counters = Counters(make(0), make(0), make(0.0), make(0.0))
        self.progress = night.progress

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Update the progress twice a second while the block runs."""
        ended = threading.Event()

        def loop() -> None:
            while not ended.wait(0.5):
                self._show()

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._show()

    def _show(self) -> None:
        counters = self.counters
        busy = counters.wait_s.value + counters.model_s.value
        self.progress.update(counters.rows.value, f"waiting for pictures {counters.wait_s.value / busy:.0%}" if busy else "")
