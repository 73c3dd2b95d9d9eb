"""One night: its identity, its settings, its open warehouse, and the record of each step in `pipeline_runs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from tgq.registry.selection import model_folder
from tgq.run.progress import Progress, Silent
from tgq.settings.sections import Settings
from tgq.storage.warehouse import Warehouse

RUN_STEP = "nightly"


@dataclass
class StepResult:
    """What a step did, as `pipeline_runs` and the summary show it. Counts are rows; None where they mean nothing."""

    rows_in: int | None = None
    rows_out: int | None = None
    embedded: int | None = None
    unchanged: int | None = None
    quarantined: int | None = None
    inactive: int | None = None
    versions_read: Mapping[str, int] = field(default_factory=dict)
    versions_written: Mapping[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)  # JSON-able: throughput, counts by reason, paths
    status: str = "done"
    seconds: float = 0.0


@dataclass(frozen=True)
class Night:
    """Everything a step needs. A step is a function `step(night) -> StepResult`.

    State passes from step to step through tables and through `staging`, never through memory, so that a scheduler may run
    every step as a process of its own with the same run id.
    """

    spark: SparkSession
    settings: Settings
    warehouse: Warehouse
    run_id: str
    started_at: datetime
    progress: Progress = field(default_factory=Silent)
    recorded: dict[str, set[str]] = field(default_factory=dict, repr=False, compare=False)  # run id: its steps that have a row

    def staging(self, *parts: str) -> str:
        """A scratch place of this run that every executor can reach; removed after the night."""
        return self.warehouse.path("_staging", self.run_id, *parts)

    @property
    def model_folder(self) -> str:
        """The encoder's folder, or its URI where the warehouse is on an object store: `local_folder` fetches it."""
        return model_folder(self.settings)
