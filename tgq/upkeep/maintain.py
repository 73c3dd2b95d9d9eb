"""One pass of upkeep over a warehouse: finds what can go, removes it, and says what was freed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from pyspark.sql import SparkSession

from tgq.run.night import Night, StepResult
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress
from tgq.run.records import run_step
from tgq.settings.sections import Settings
from tgq.storage.stores import file_system
from tgq.storage.warehouse import Warehouse
from tgq.upkeep.needed import needed
from tgq.upkeep.tasks import tasks

STEP = "maintain"


@dataclass(frozen=True)
class Removed:
    """What a task found. `bytes` is how much smaller the warehouse became; 0 in a dry run."""

    name: str
    found: int
    bytes: int


def maintain(spark: SparkSession, settings: Settings, dry_run: bool, progress: Progress) -> list[Removed]:
    """Remove what no kept generation, no next night and no continued run needs. The warehouse must be locked.

    A killed pass leaves a warehouse that works; the next pass does the rest. The pass has a row of its own in `pipeline_runs`, with the
    step `maintain`; a dry run writes nothing.

    Raises:
        WarehouseError: there is no warehouse, or a manifest to be kept is broken.
        ModelError: the next night's encoder cannot be read.
        TrackingError: MLflow does not answer.
    """
    store, now = Warehouse(spark, settings.warehouse, create=False), datetime.now(timezone.utc)
    keep = needed(settings, store.root)
    done: list[Removed] = []

    def step(_: Night) -> StepResult:
        size = bytes_of(store.root)
        for task in tasks(store, settings, keep, progress.say):
            progress.say(f"{task.name}: {task.found}")
            if task.found and not dry_run:
                task.remove()
            after = bytes_of(store.root) if task.found and not dry_run else size
            done.append(Removed(task.name, task.found, size - after))
            size = after
        return StepResult(figures={"removed": [asdict(one) for one in done if one.found], "freed_bytes": sum(one.bytes for one in done)})

    night = Night(spark, settings, store, new_run_id(now), now, progress)
    step(night) if dry_run else run_step(night, STEP, step)
    return done


def bytes_of(root: str) -> int:
    """Bytes of all files under a folder or URI."""
    system, inner = file_system(root)
    return int(system.du(inner))
