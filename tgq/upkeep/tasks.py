"""The tasks of upkeep: each finds what can go, and removes it. To find is cheap and changes nothing, so a dry run is the same without removing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.registry.tracking import open_tracker
from tgq.retrieval import manifest
from tgq.run.night import RUN_STEP
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.files import Files
from tgq.storage.warehouse import TABLES, Warehouse
from tgq.upkeep.mlflow_runs import delete_runs, runs_beyond
from tgq.upkeep.needed import Needed
from tgq.upkeep.retention import PROPERTY, kept_hours, needed_hours, next_hours

LOG_AHEAD_HOURS = 48  # by which commits are kept longer than the files that they name; a version without its files cannot be read


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


def tasks(store: Warehouse, settings: Settings, keep: Needed, say: Callable[[str], None]) -> Iterator[Task]:
    """The tasks in an order in which each may rely on those before: rows and generations, then files, then the tables' own files.

    Args:
        say: is told what cannot be removed now, and why.

    Cost: a few counts over keys, and a list of each table's files. Nothing that grows with the catalog reaches the driver.
    """
    yield from _rows(store, keep)
    yield from _folders(store, settings, keep)
    yield from _mlflow(store, settings)
    yield from _tables(store, settings, keep, say)


def _rows(store: Warehouse, keep: Needed) -> Iterator[Task]:
    """Vectors, neighbours and features of models that no kept generation and no next night uses, what earlier models of enrichment made,
    and hashes of pictures that no item has."""
    wanted: dict[str, tuple[str, frozenset[str] | None]] = {
        "item_embeddings": ("model_version", keep.models), "item_neighbors": ("model_version", keep.models), "item_features": ("tower_version", keep.towers),
    }  # fmt: skip
    for table, (column, versions) in wanted.items():
        if versions is None:
            continue
        outdated = ~F.col(column).isin(sorted(versions))
        found = store.read(table).where(outdated).count()
        yield Task(f"{table}: rows of other models", found, partial(_delete, store, table, outdated))
    for table, column, version in (("item_texts", "refiner_version", keep.refiner), ("item_attributes_generated", "source_version", keep.source)):
        if version:
            outdated = F.col(column) != version
            yield Task(f"{table}: rows of other models", store.read(table).where(outdated).count(), partial(_delete, store, table, outdated))
    pictures = store.read("catalog_items").where("image_hash IS NOT NULL").select("image_hash").distinct()
    found = store.read("picture_hashes").join(pictures, "image_hash", "left_anti").count()
    yield Task("picture_hashes: rows of pictures that no item has", found, partial(_keep_only, store, "picture_hashes", pictures, "image_hash"))
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


def _tables(store: Warehouse, settings: Settings, keep: Needed, say: Callable[[str], None]) -> Iterator[Task]:
    """Small files of the tables, and files of versions that no generation is pinned to."""
    options = settings.maintain
    for table in TABLES:
        detail = store.delta(table).detail().select("numFiles", "sizeInBytes").collect()[0]
        needed = max(1, -(-detail["sizeInBytes"] // (options.file_mb * 2**20)))
        small = detail["numFiles"] if detail["numFiles"] >= options.small_files + needed else 0
        yield Task(f"{table}: small files to join", small, partial(_join, store, table))
    oldest, hours = needed_hours(keep.since, options.clock_margin_hours, datetime.now(timezone.utc)), {}
    for table in TABLES:
        kept = kept_hours(store.delta(table).detail().select("properties").collect()[0][0])
        wanted = next_hours(kept, oldest, options.retain_hours)
        if wanted is None:
            say(f"{table}: files of old versions stay, because a kept generation is {oldest:.0f} hours old and Delta keeps them for {kept or '?'}")
        else:
            hours[table] = (kept, wanted)
    changed = {table: wanted for table, (kept, wanted) in hours.items() if kept != wanted}
    yield Task("tables that keep old versions for longer or shorter", len(changed), partial(_keep_for, store, changed))
    for table in hours:
        name = store.qualified(table)
        found = store.spark.sql(f"VACUUM {name} DRY RUN").count()
        yield Task(f"{table}: files of old versions", found, partial(store.spark.sql, f"VACUUM {name}"))


def _delete(store: Warehouse, table: str, rows: Column) -> None:
    store.delta(table).delete(rows)


def _keep_only(store: Warehouse, table: str, wanted: DataFrame, key: str) -> None:
    merge = store.delta(table).alias("t").merge(wanted.alias("s"), f"t.{key} = s.{key}")
    merge.whenNotMatchedBySourceDelete().execute()


def _join(store: Warehouse, table: str) -> None:
    store.delta(table).optimize().executeCompaction()


def _keep_for(store: Warehouse, hours: Mapping[str, int]) -> None:
    for table, wanted in hours.items():
        log = wanted + LOG_AHEAD_HOURS
        properties = f"'{PROPERTY}' = 'interval {wanted} hours', 'delta.logRetentionDuration' = 'interval {log} hours'"
        store.spark.sql(f"ALTER TABLE {store.qualified(table)} SET TBLPROPERTIES ({properties})")


def _remove(store: Warehouse, folder: str, names: Sequence[str]) -> None:
    for name in names:
        remove_folder(store.path(folder, name))
