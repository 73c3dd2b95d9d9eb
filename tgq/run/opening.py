"""Opening a run: a new one, the one that was interrupted, or the one that a scheduler named."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tgq.errors import UsageError
from tgq.registry.champion import CHAMPION, DEFAULT
from tgq.registry.selection import champion_of, with_encoder
from tgq.run.night import RUN_STEP, Night, StepResult
from tgq.run.progress import Progress, Silent
from tgq.run.records import config_digest, record
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.files import Files
from tgq.storage.lock import warehouse_lock
from tgq.storage.paths import absolute, ensure_writable
from tgq.storage.session import open_session
from tgq.storage.warehouse import Warehouse

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")  # it becomes a generation's name, with room for a suffix


def new_run_id(now: datetime) -> str:
    """Sortable by time, unique: `20260131T020000-1a2b3c`."""
    return f"{now:%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"


def check_run_id(run_id: str | None) -> None:
    """UsageError for one that cannot name a generation; None is fine."""
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise UsageError(f"run id {run_id!r}", "use at most 120 letters, digits and - _ . only")


def open_night(
    spark: SparkSession, settings: Settings, run_id: str | None = None, progress: Progress | None = None, begins: bool = True
) -> Night:
    """Open the warehouse and find the run to take part in, or begin one.

    A killed night left its row `running`; taking up its run id makes the second attempt's tables and counts those of an
    undisturbed run. A run keeps the encoder that was champion when it began: a promotion between two of its steps is the next
    run's, and a run that was interrupted before the promotion is not taken up after it.

    Args:
        run_id: take part in this run, whatever its state; a scheduler passes the same id to every step.
        begins: this is a whole night or its first step: only an interrupted run of the same configuration is taken up, else
            a new one begins. A later step joins the run that began last instead, and its catalog.

    Raises:
        UsageError: a run id with other characters than letters, digits and - _ . or too long, or a later step without any run.
    """
    warehouse = Warehouse(spark, settings.warehouse)
    progress = progress or Silent()
    now = datetime.now(timezone.utc)
    check_run_id(run_id)
    chosen = with_encoder(settings, champion_of(settings))
    runs = warehouse.read("pipeline_runs").where(F.col("step") == RUN_STEP)
    if run_id is not None:
        runs = runs.where(F.col("run_id") == run_id)
    elif begins:
        runs = runs.where((F.col("status") == "running") & (F.col("config_digest") == config_digest(chosen)))
    found = runs.orderBy(F.desc("started_at")).first()
    if found:
        settings = with_catalog(settings, found["detail"])
        if settings.encoder.path == CHAMPION:
            settings = with_encoder(settings, json.loads(found["detail"]).get("encoder") or DEFAULT)
        if begins and run_id is None:
            progress.say(f"taking up run {found['run_id']}, which was interrupted")
        return Night(spark, settings, warehouse, found["run_id"], found["started_at"].astimezone(timezone.utc), progress)
    if not begins and run_id is None:
        raise UsageError(f"no run in {warehouse.root}", "begin with `tgq ingest` or `tgq nightly`")
    night = Night(spark, chosen, warehouse, run_id or new_run_id(now), now, progress)
    catalog = settings.catalog.path and absolute(settings.catalog.path)  # a later step may be started in another folder
    record(night, RUN_STEP, "running", now, None, StepResult(figures={"catalog": catalog, "encoder": chosen.encoder.path}))
    sweep_staging(night)
    return night


def with_catalog(settings: Settings, detail: str) -> Settings:
    """The settings with a run's catalog, which stands in the `detail` of its first row, where they name none."""
    if settings.catalog.path is not None:
        return settings
    catalog = settings.catalog.model_copy(update={"path": json.loads(detail).get("catalog")})
    return settings.model_copy(update={"catalog": catalog})


def sweep_staging(night: Night) -> None:
    """Remove what runs that will not go on have left in staging: a new run begins, and nights are serial."""
    for name in Files(night.warehouse.root).list("_staging"):
        if name != night.run_id:
            remove_folder(night.warehouse.path("_staging", name))


@contextlib.contextmanager
def held_night(settings: Settings, run_id: str | None, begins: bool, progress: Progress | None = None) -> Iterator[Night]:
    """A night in a Spark session of its own, with the warehouse held against other processes; both end with the block.

    Raises:
        LockedError: another process holds the warehouse.
        WarehouseError: the warehouse cannot be written.
    """
    check_run_id(run_id)
    root = absolute(settings.warehouse.path)
    ensure_writable(root)
    with warehouse_lock(root):
        spark = open_session(settings)
        try:
            yield open_night(spark, settings, run_id, progress, begins)
        finally:
            spark.stop()
