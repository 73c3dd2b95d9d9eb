"""Counters of a running embed job, and the progress bar that shows them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

from pyspark import Accumulator

from tgq.run.night import Night
from tgq.run.progress import repeated


@dataclass(frozen=True)
class Counters:
    """Spark accumulators of the running step; a task's counts arrive when it ends."""

    rows: Accumulator[int]
    new_features: Accumulator[int]  # rows with tower features that were not cached
    hashed: Accumulator[int]  # rows with a perceptual hash
    refused: Accumulator[int]  # rows that were quarantined
    wait_s: Accumulator[float]  # the model waited for pictures
    model_s: Accumulator[float]


class Meter:
    """Shows the progress of a running job: items, rate, share of time waiting for pictures, time left."""

    def __init__(self, night: Night):
        make = night.spark.sparkContext.accumulator
        self.counters = Counters(make(0), make(0), make(0), make(0), make(0.0), make(0.0))
        self.progress = night.progress

    def shown(self) -> AbstractContextManager[None]:
        """Update the progress twice a second while the block runs."""
        return repeated(self._show)

    def _show(self) -> None:
        counters = self.counters
        busy = counters.wait_s.value + counters.model_s.value
        self.progress.update(counters.rows.value, f"waiting for pictures {counters.wait_s.value / busy:.0%}" if busy else "")
