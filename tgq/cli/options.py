"""What the commands share: options, settings, an opened night, the figures written as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from tgq.errors import SourceError, UsageError, WarehouseError
from tgq.settings.load import Loaded, load_settings
from tgq.settings.sections import Settings

if TYPE_CHECKING:
    from tgq.run.night import Night


LOG_WIDTH = 160  # where nobody's terminal says how wide it is
SHOWN = 12  # ids that a line names; the summary names all
err = Console(stderr=True, highlight=False)
out = Console(highlight=False, width=None if sys.stdout.isatty() else LOG_WIDTH)


Profiles = Annotated[
    list[str] | None,
    typer.Option("--conf", "-c", help="Profile under conf/ (local, cluster, catalogs/luma) or a YAML file; repeatable.", show_default="local"),
]


Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE",
        help="Override one setting, e.g. --set embed.task_items=64 (or TGQ__EMBED__TASK_ITEMS=64 in the environment); repeatable.",
    ),
]


Catalog = Annotated[str | None, typer.Option("--catalog", help="Folder or table of the catalog (catalog.path).")]
WarehousePath = Annotated[str | None, typer.Option("--warehouse", help="Folder or URI of all tables (warehouse.path).")]


RunId = Annotated[
    str | None,
    typer.Option("--run-id", help="Run to take part in; schedulers give every step the same. Default: the interrupted run, else a new one."),
]


Summary = Annotated[str | None, typer.Option("--summary", metavar="FILE", help="Write the run's figures as JSON to this file or object-store URI.")]


def settings_of(profiles: Sequence[str] | None, sets: Sequence[str] | None, catalog: str | None = None, warehouse: str | None = None) -> Loaded:
    """Settings from the common options; `--catalog` and `--warehouse` are short for their keys."""
    overrides = list(sets or [])
    for key, value in (("catalog.path", catalog), ("warehouse.path", warehouse)):
        if value is not None:
            overrides.append(f"{key}={json.dumps(value)}")
    return load_settings(profiles or ["local"], overrides)


@contextlib.contextmanager
def opened(loaded: Loaded, run_id: str | None, begins: bool) -> Iterator[Night]:
    """A night with progress on the terminal, with the warehouse held and the session closed at the end."""
    from tgq.cli.console import ConsoleProgress
    from tgq.run.opening import held_night

    with held_night(loaded.settings, run_id, begins, ConsoleProgress(err)) as night:
        yield night


def run_steps(loaded: Loaded, names: Sequence[str], run_id: str | None, summary: str | None) -> None:
    """Run some steps of a night by name, print and write their figures; raises what the steps raise."""
    from tgq.cli.tables import metrics_table, steps_table
    from tgq.night.nightly import Nightly

    with opened(loaded, run_id, begins="ingest" in names) as night:
        nightly = Nightly(night)
        try:
            nightly.run(names)
        finally:
            report = nightly.summary()
            if summary:
                write_summary(summary, report)
            if report["steps"]:
                out.print(steps_table(report))
            if report["metrics"]:
                out.print(metrics_table(report["metrics"]))
            for label in ("report", "manifest", "mlflow_run"):
                if report.get(label):
                    out.print(f"{label.replace('_', ' ')}: {report[label]}", soft_wrap=True)


def write_summary(path: str, report: Mapping[str, Any]) -> None:
    """Write the figures, whole or not at all: a scheduler on another machine reads them."""
    from tgq.storage.files import Files

    folder, name = os.path.split(path if "://" in path else os.path.abspath(path))
    Files(folder).write(name, (json.dumps(report, indent=2, default=str) + "\n").encode())


def need_catalog(loaded: Loaded) -> None:
    path = loaded.settings.catalog.path
    if not path:
        raise UsageError("no catalog was named", "give --catalog FOLDER (draw one with `tgq demo-catalog demo`)")
    if "://" not in path and not Path(path).expanduser().exists():
        raise SourceError(f"the catalog {path} does not exist", "give --catalog an existing folder or table")


def need_warehouse(settings: Settings) -> str:
    """The warehouse's folder or URI; WarehouseError where a folder is not there."""
    from tgq.storage.paths import absolute

    root = absolute(settings.warehouse.path)
    if "://" not in root and not Path(root).is_dir():
        raise WarehouseError(f"there is no warehouse {root}", "name another --warehouse")
    return root
