"""A run of the nightly pipeline (`Night`), and the result of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from tgq.registry.selection import model_folder
from tgq.run.progress import Progress, Silent
from tgq.settings.sections import Settings
from tgq.storage.lock import Kept, Lock
from tgq.storage.warehouse import Warehouse

RUN_STEP = "nightly"  # step name of the run's own row in `pipeline_runs`


@dataclass
class StepResult:
    """The result of a step, as shown in `pipeline_runs` and the summary. Counts are rows; None if a count does not apply."""

    rows_in: int | None = None
    rows_out: int | None = None
    embedded: int | None = None
    unchanged: int | None = None
    quarantined: int | None = None
    inactive: int | None = None
    versions_read: Mapping[str, int] = field(default_factory=dict)
    versions_written: Mapping[str, int] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)  # other figures, serialisable as JSON
    status: str = "done"
    seconds: float = 0.0


@dataclass(frozen=True)
class Night:
    """One run: everything that a step needs. A step is a function `step(night) -> StepResult`.

    Steps pass state through tables and `staging`, not through memory, so that a scheduler can run each step in its own process.
    """

    spark: SparkSession
    settings: Settings
    warehouse: Warehouse
    run_id: str
    started_at: datetime
    progress: Progress = field(default_factory=Silent)
    lock: Lock = field(default_factory=Kept)  # of the warehouse

    def staging(self, *parts: str) -> str:
        """A path in the run's staging folder, which every executor can reach. The folder is removed after the run."""
        return self.warehouse.path("_staging", self.run_id, *parts)

    @property
    def model_folder(self) -> str:
        """The encoder's folder, or its URI if the warehouse is on an object store; `local_folder` fetches a URI."""
        return model_folder(self.settings)
