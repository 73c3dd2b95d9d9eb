"""Opens a run: a new one, an interrupted one, or the one with a given id."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import SparkSession

from tgq.errors import MachineError, UsageError
from tgq.messages import STARS, masked
from tgq.registry.champion import CHAMPION, DEFAULT
from tgq.registry.selection import champion_of, with_encoder
from tgq.run.imports import importing
from tgq.run.night import RUN_STEP, Night, StepResult
from tgq.run.progress import Progress, Silent
from tgq.run.records import config_digest, record
from tgq.settings.sections import Settings
from tgq.spark.session import is_alive, open_session
from tgq.storage.artifacts import remove_folder
from tgq.storage.files import Files
from tgq.storage.lock import Kept, Lock, warehouse_lock
from tgq.storage.paths import absolute, ensure_writable
from tgq.storage.warehouse import Warehouse

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")  # also the name of the run's generation, which may get a suffix


def new_run_id(now: datetime) -> str:
    """A unique id that sorts by time, e.g. `20260131T020000-1a2b3c`."""
    return f"{now:%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"


def check_run_id(run_id: str | None) -> None:
    """Check that a run id can name a generation. None is valid.

    Raises:
        UsageError: it cannot.
    """
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise UsageError(f"the run id {run_id!r} is not valid", "use at most 120 letters, digits and - _ .")


def open_night(
    spark: SparkSession, settings: Settings, run_id: str | None = None, progress: Progress | None = None, begins: bool = True, lock: Lock | None = None
) -> Night:
    """Open the warehouse, then continue a run or begin one.

    A killed run is still `running` in `pipeline_runs`. Continued under its own id, it ends with the tables and counts of an
    uninterrupted run. A run keeps the encoder that was champion when it began. A later promotion therefore applies to the next
    run, and a run that was interrupted before the promotion is not continued after it.

    Args:
        run_id: continue the run with this id in any state, or begin it. A scheduler passes the same id to every step.
        begins: whether this process runs the first step. If so and without `run_id`, an interrupted run of the same configuration
            is continued, or a new one begins. Otherwise the latest run is joined, with its catalog.
        lock: of the warehouse, which the caller holds; None: nobody else writes.

    Raises:
        UsageError: the run id is not valid, or there is no run to join.
    """
    warehouse = Warehouse(spark, settings.warehouse)
    progress, lock = progress or Silent(), lock or Kept()
    now = datetime.now(timezone.utc)
    check_run_id(run_id)
    chosen = with_encoder(settings, champion_of(settings))
    of_run: dict[str, str] = {"step": RUN_STEP}
    if run_id is not None:
        of_run |= {"run_id": run_id}
    elif begins:
        of_run |= {"status": "running", "config_digest": config_digest(chosen)}
    if found := latest(warehouse, of_run):
        settings = with_catalog(settings, found["detail"])
        if settings.encoder.path == CHAMPION:
            settings = with_encoder(settings, json.loads(found["detail"]).get("encoder") or DEFAULT)
        if begins and run_id is None:
            progress.say(f"continuing the interrupted run {found['run_id']}")
        return Night(spark, settings, warehouse, found["run_id"], found["started_at"], progress, lock)
    if not begins and run_id is None:
        raise UsageError(f"there is no run in {warehouse.root}", "begin one with `tgq ingest` or `tgq nightly`")
    night = Night(spark, chosen, warehouse, run_id or new_run_id(now), now, progress, lock)
    catalog = settings.catalog.path and absolute(settings.catalog.path)  # a later step may have another working directory
    record(night, RUN_STEP, "running", now, None, StepResult(figures={"catalog": catalog and masked(catalog), "encoder": chosen.encoder.path}))
    sweep_staging(night)
    return night


def latest(warehouse: Warehouse, where: Mapping[str, str]) -> dict[str, Any] | None:
    """The row of `pipeline_runs` with these values that began last: run_id, started_at, detail. None if there is none."""
    rows = warehouse.rows("pipeline_runs", where, "run_id", "started_at", "detail")
    return max(rows, key=lambda row: row["started_at"], default=None)


def with_catalog(settings: Settings, detail: str) -> Settings:
    """The settings; if they name no catalog, with the run's own, from the `detail` of its row.

    Raises:
        UsageError: the run's catalog was named with a password, which no row keeps.
    """
    if settings.catalog.path is not None:
        return settings
    path = json.loads(detail).get("catalog")
    if path and STARS in path:
        raise UsageError(f"the run's catalog {path} was named with a password, which is not kept", "name it again with --catalog")
    catalog = settings.catalog.model_copy(update={"path": path})
    return settings.model_copy(update={"catalog": catalog})


def sweep_staging(night: Night) -> None:
    """Remove the staging folders of other runs. Called when a run begins, so no other run is active."""
    for name in Files(night.warehouse.root).list("_staging"):
        if name != night.run_id:
            remove_folder(night.warehouse.path("_staging", name))


@contextlib.contextmanager
def held_night(
    settings: Settings, run_id: str | None, begins: bool, progress: Progress | None = None, imports: Sequence[Callable[[], object]] = ()
) -> Iterator[Night]:
    """Open a run in a new Spark session and lock the warehouse. Both end with the block.

    Args:
        imports: functions that import what the run needs and what takes seconds; they are called while the JVM starts.

    Raises:
        LockedError: another process has locked the warehouse.
        WarehouseError: the warehouse is not writable.
        MachineError: the JVM ended in the middle of the block.
    """
    check_run_id(run_id)
    root = absolute(settings.warehouse.path)
    ensure_writable(root)
    with warehouse_lock(settings.warehouse) as lock:
        with importing(*imports):
            spark = open_session(settings)
        try:
            yield open_night(spark, settings, run_id, progress, begins, lock)
        except Exception as error:
            if is_alive(spark):
                raise
            raise MachineError("Spark's JVM has ended, killed or for lack of memory", "run the same command again, which continues this run") from error
        finally:
            with contextlib.suppress(Exception):  # of a JVM that is gone
                spark.stop()
