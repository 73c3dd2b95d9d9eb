"""One night: its identity, its settings, its open warehouse, and the record of each step in `pipeline_runs`."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tgq.errors import GateError, TgqError, UsageError
from tgq.registry.champion import BUNDLED_FOLDER, CHAMPION, DEFAULT, place_of, read_history
from tgq.retrieval.manifest import Manifest
from tgq.settings.load import flat
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.files import Files
from tgq.storage.warehouse import Warehouse, absolute

RUN_STEP = "nightly"
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")  # it becomes a generation's name, with room for a suffix


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

    def staging(self, *parts: str) -> str:
        """A scratch place of this run that every executor can reach; removed after the night."""
        return self.warehouse.path("_staging", self.run_id, *parts)

    @property
    def model_folder(self) -> str:
        """The encoder's folder, or its URI where the warehouse is on an object store: `local_folder` fetches it."""
        return model_folder(self.settings)


def model_folder(settings: Settings) -> str:
    """The encoder's folder or URI, with `champion` and `default` resolved."""
    return named_folder(champion_of(settings))


def named_folder(path: str) -> str:
    """What an encoder's path names: the bundled one for `default`, else the folder or URI."""
    return str(BUNDLED_FOLDER) if path == DEFAULT else absolute(path)


def published_folder(settings: Settings, published: Manifest | None) -> str:
    """The encoder that the published vectors were made with, for queries that are compared with them.

    It is not the champion's while no night has published since the promotion.
    """
    if published is None:
        return model_folder(settings)
    root = absolute(settings.warehouse.path)
    if read_history(root).of(published.model_version):
        return place_of(root, published.model_version)
    return named_folder(published.encoder if settings.encoder.path == CHAMPION else settings.encoder.path)


def champion_of(settings: Settings) -> str:
    """`encoder.path`, with `champion` resolved to what that is now."""
    if settings.encoder.path != CHAMPION:
        return settings.encoder.path
    root = absolute(settings.warehouse.path)
    return read_history(root).reference(root)


def with_encoder(settings: Settings, path: str) -> Settings:
    """Settings with another `encoder.path`."""
    return settings.model_copy(update={"encoder": settings.encoder.model_copy(update={"path": path})})


def config_digest(settings: Settings) -> str:
    """16 hex digits over every setting that can change a result."""
    ignored = ("spark.", "report.", "tracking.", "promote.", "embed.", "features.")
    relevant = {k: v for k, v in flat(settings).items() if not k.startswith(ignored) or k == "embed.retry_quarantined"}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=str).encode()).hexdigest()[:16]


def git_commit() -> str | None:
    """The checkout's commit; None when installed from a wheel."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


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


def run_step(night: Night, step: str, function: Callable[[Night], StepResult]) -> StepResult:
    """Run a step, time it, and write its row to `pipeline_runs` whether it ends well or not."""
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    try:
        result = function(night)
    except Exception as e:
        error = str(e) if isinstance(e, TgqError) else f"{type(e).__name__}: {str(e)[:500]}"
        status = "refused" if isinstance(e, GateError) else "failed"
        failed = StepResult(status=status, seconds=round(time.perf_counter() - clock, 3), figures={"error": error})
        with contextlib.suppress(Exception):  # the first error is the one to show
            record(night, step, status, started, datetime.now(timezone.utc), failed)
        raise
    result.seconds = round(time.perf_counter() - clock, 3)
    record(night, step, result.status, started, datetime.now(timezone.utc), result)
    return result


def record(
    night: Night, step: str, status: str, started: datetime, ended: datetime | None, result: StepResult
) -> None:
    """Write one row of `pipeline_runs`, in place of the one that may be there.

    Mostly none is, and an append takes a quarter of what a MERGE or an overwrite does; nights are serial, so nobody comes between.
    """
    row = dict(
        run_id=night.run_id, step=step, status=status, started_at=started, ended_at=ended,
        rows_in=result.rows_in, rows_out=result.rows_out, rows_quarantined=result.quarantined, rows_skipped=result.unchanged,
        versions_read=dict(result.versions_read), versions_written=dict(result.versions_written),
        git_commit=git_commit(), config_digest=config_digest(night.settings),
        detail=json.dumps(result.figures | {k: getattr(result, k) for k in ("embedded", "inactive", "seconds")}, default=str),
    )  # fmt: skip
    schema = night.warehouse.read("pipeline_runs").schema
    frame = night.spark.createDataFrame([tuple(row[f.name] for f in schema.fields)], schema)
    of_step = (F.col("run_id") == night.run_id) & (F.col("step") == step)
    if night.warehouse.read("pipeline_runs").where(of_step).isEmpty():
        night.warehouse.append(frame.coalesce(1), "pipeline_runs")
    else:
        frame.coalesce(1).writeTo(night.warehouse.qualified("pipeline_runs")).overwrite(of_step)
