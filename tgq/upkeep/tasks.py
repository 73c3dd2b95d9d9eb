"""The tasks of upkeep: each finds what can go, and removes it. To find is cheap and changes nothing, so a dry run is the same without removing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from tgq.registry.tracking import open_tracker
from tgq.retrieval import manifest
from tgq.run.night import RUN_STEP
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.files import Files
from tgq.storage.warehouse import TABLES, Warehouse
from tgq.upkeep.mlflow_runs import delete_runs, runs_beyond
from tgq.upkeep.needed import HOUR, Needed, retention_hours

CHECK = "spark.databricks.delta.retentionDurationCheck.enabled"
LOG_DAYS = 30  # Delta's own default for the commits of a table


@dataclass(frozen=True)
class Task:
    """One kind of thing that can go.

    Attributes:
        name: what it is, for the table.
        found: how many there are.
        remove: removes them.
    """

    name: str
    found: int
    remove: Callable[[], object]


def tasks(store: Warehouse, settings: Settings, keep: Needed) -> Iterator[Task]:
    """The tasks in an order in which each may rely on those before: rows and generations, then files, then the tables' own files.

    Cost: a few counts over keys, and a list of each table's files. Nothing that grows with the catalog reaches the driver.
    """
    yield from _rows(store, keep)
    yield from _folders(store, settings, keep)
    yield from _mlflow(store, settings)
    yield from _tables(store, settings, keep)


def _rows(store: Warehouse, keep: Needed) -> Iterator[Task]:
    """Vectors, neighbours and features of models that no kept generation and no next night uses."""
    wanted: dict[str, tuple[str, frozenset[str] | None]] = {
        "item_embeddings": ("model_version", keep.models), "item_neighbors": ("model_version", keep.models), "item_features": ("tower_version", keep.towers),
    }  # fmt: skip
    for table, (column, versions) in wanted.items():
        if versions is None:
            continue
        outdated = ~F.col(column).isin(sorted(versions))
        found = store.read(table).where(outdated).count()
        yield Task(f"{table}: rows of other models", found, partial(_delete, store, table, outdated))
    gone = ~F.col("generation").isin(list(keep.generations))
    found = store.read("index_shards").where(gone).count() if keep.generations else 0
    yield Task("index_shards: rows of removed generations", found, partial(_delete, store, "index_shards", gone))


def _folders(store: Warehouse, settings: Settings, keep: Needed) -> Iterator[Task]:
    """Generations, reports and staging folders."""
    options, files = settings.maintain, Files(store.root)
    stored = set(files.list(manifest.GENERATIONS)) - set(keep.generations) if keep.generations else set()
    yield Task("generations", len(stored), partial(manifest.collect_garbage, store.root, settings.index.keep_generations))
    runs = store.rows("pipeline_runs", {"step": RUN_STEP}, "run_id", "started_at", "status")
    newest = {row["run_id"] for row in sorted(runs, key=lambda row: row["started_at"])[-options.keep_reports :]}
    reports = [name for name in files.list("reports") if not name.endswith(".html") and name not in newest | keep.runs]
    yield Task("reports", len(reports), partial(_remove, store, "reports", reports))
    # an interrupted run continues with what it staged, until a later run begins
    latest = max(runs, key=lambda row: row["started_at"], default=None)
    waiting = {latest["run_id"]} if latest and latest["status"] == "running" else set()
    staged = [name for name in files.list("_staging") if name not in waiting]
    yield Task("staging of ended runs", len(staged), partial(_remove, store, "_staging", staged))


def _mlflow(store: Warehouse, settings: Settings) -> Iterator[Task]:
    tracker = open_tracker(settings.tracking, store.root)
    runs = runs_beyond(tracker, settings.maintain.keep_mlflow_runs)
    yield Task("MLflow runs", len(runs), partial(delete_runs, tracker, runs))


def _tables(store: Warehouse, settings: Settings, keep: Needed) -> Iterator[Task]:
    """Small files of the tables, and files of versions that no generation is pinned to."""
    options, now = settings.maintain, datetime.now(timezone.utc)
    hours = retention_hours(keep.since, options.retain_hours, now)
    for table in TABLES:
        detail = store.delta(table).detail().select("numFiles", "sizeInBytes").collect()[0]
        needed = max(1, -(-detail["sizeInBytes"] // (options.file_mb * 2**20)))
        small = detail["numFiles"] if detail["numFiles"] >= options.small_files + needed else 0
        yield Task(f"{table}: small files to join", small, partial(_join, store, table))
    with _without_check(store.spark):
        for table in TABLES:
            name = store.qualified(table)
            found = store.spark.sql(f"VACUUM {name} RETAIN {hours:f} HOURS DRY RUN").count()
            yield Task(f"{table}: files of old versions", found, partial(_vacuum, store, name, hours))


@contextmanager
def _without_check(spark: SparkSession) -> Iterator[None]:
    """Delta refuses less than a week, because other writers may be at work; here the warehouse is locked."""
    before = spark.conf.get(CHECK, "true")
    spark.conf.set(CHECK, "false")
    try:
        yield
    finally:
        spark.conf.set(CHECK, before or "true")


def _delete(store: Warehouse, table: str, rows: Column) -> None:
    store.delta(table).delete(rows)


def _join(store: Warehouse, table: str) -> None:
    store.delta(table).optimize().executeCompaction()


def _vacuum(store: Warehouse, name: str, hours: float) -> None:
    # the commits must be there as long as the files, or a pinned version could not be read
    days = max(LOG_DAYS, int(hours * HOUR / 86400) + 2)
    if days > LOG_DAYS:
        store.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.logRetentionDuration' = 'interval {days} days')")
    store.spark.sql(f"VACUUM {name} RETAIN {hours:f} HOURS")


def _remove(store: Warehouse, folder: str, names: Sequence[str]) -> None:
    for name in names:
        remove_folder(store.path(folder, name))
