"""Counters of a running embed job and the bar that shows them."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pyspark import Accumulator

from tgq.run.night import Night


@dataclass(frozen=True)
class Counters:
    """Spark accumulators of the running step; a task's share arrives when it ends."""

    rows: Accumulator[int]
    fresh: Accumulator[int]  # of them, those for which a tower ran and gave something to keep
    wait_s: Accumulator[float]
    model_s: Accumulator[float]


class Meter:
    """Draws the bar while a Spark job runs: items, items/s, wait share, time left."""

    def __init__(self, night: Night):
        make = night.spark.sparkContext.accumulator
        self.counters = Counters(make(0), make(0), make(0.0), make(0.0))
        self.progress = night.progress

    def watching(self):
        """A context manager: a thread updates the bar twice a second."""
        return _Watch(self)

    def show(self) -> None:
        counters = self.counters
        busy = counters.wait_s.value + counters.model_s.value
        self.progress.update(counters.rows.value, f"waiting for pictures {counters.wait_s.value / busy:.0%}" if busy else "")


class _Watch:
    def __init__(self, meter: Meter):
        self.meter, self.stop = meter, threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._loop, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        while not self.stop.wait(0.5):
            self.meter.show()

    def __exit__(self, *exc) -> None:
        self.stop.set()
        self.thread.join()
        self.meter.show()
