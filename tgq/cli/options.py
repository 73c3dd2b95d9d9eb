"""What the commands share: options, loading settings, running steps, writing the summary."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tgq.cli.console import ConsoleProgress, PlainConsole
from tgq.errors import SourceError, UsageError, WarehouseError
from tgq.settings.load import Loaded, load_settings
from tgq.settings.sections import Settings

if TYPE_CHECKING:
    from tgq.run.night import Night


LOG_WIDTH = 160  # characters per line if the output is not a terminal
SHOWN = 12  # ids that a printed line names; the summary names all
err = PlainConsole(stderr=True)
out = PlainConsole(width=None if sys.stdout.isatty() else LOG_WIDTH)


Profiles = Annotated[
    list[str] | None,
    typer.Option("--conf", "-c", help="Profile under conf/, e.g. cluster or catalogs/luma, or a YAML file; repeatable.", show_default="local"),
]


Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE",
        help="Set one setting, e.g. embed.task_items=64 (or TGQ__EMBED__TASK_ITEMS=64 in the environment); repeatable.",
    ),
]


Catalog = Annotated[str | None, typer.Option("--catalog", help="Catalog: a folder, file or table (sets catalog.path).")]
WarehousePath = Annotated[str | None, typer.Option("--warehouse", help="Warehouse: folder or URI of the tables (sets warehouse.path).")]


RunId = Annotated[
    str | None,
    typer.Option(
        "--run-id",
        help="Run id; a scheduler gives every step the same. Default: nightly and ingest continue an interrupted run or begin a new one; "
        "other steps join the latest run.",
    ),
]


Summary = Annotated[str | None, typer.Option("--summary", metavar="FILE", help="Write the run's figures as JSON to this file or object-store URI.")]


def settings_of(profiles: Sequence[str] | None, sets: Sequence[str] | None, catalog: str | None = None, warehouse: str | None = None) -> Loaded:
    """Load the settings from the common options; `--catalog` and `--warehouse` override their keys."""
    overrides = list(sets or [])
    for key, value in (("catalog.path", catalog), ("warehouse.path", warehouse)):
        if value is not None:
            # YAML knows no pairs of surrogates, by which JSON escapes what is beyond U+FFFF
            overrides.append(f'{key}="{"".join(c if ord(c) > 0xFFFF else json.dumps(c)[1:-1] for c in value)}"')
    return load_settings(profiles or ["local"], overrides)


@contextlib.contextmanager
def opened(loaded: Loaded, run_id: str | None, begins: bool, imports: Sequence[Callable[[], object]] = ()) -> Iterator[Night]:
    """Open a run with progress on the terminal. The warehouse is locked until the block ends; the Spark session is then stopped.

    Args:
        imports: as for `held_night`.
    """
    from tgq.run.opening import held_night

    with held_night(loaded.settings, run_id, begins, ConsoleProgress(err), imports) as night:
        yield night


def run_steps(loaded: Loaded, names: Sequence[str], run_id: str | None, summary: str | None) -> None:
    """Run steps by name, then print their figures and write the summary. Raises what the steps raise."""
    from tgq.cli.tables import metrics_table, steps_table
    from tgq.night.nightly import Nightly, imports_of

    with opened(loaded, run_id, "ingest" in names, imports_of(names, loaded.settings)) as night:
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
                out.print(metrics_table("Retrieval", report["metrics"]))
            if report["query_metrics"]:
                out.print(metrics_table("Search queries", report["query_metrics"]))
            if grounding := report.get("grounding"):
                reasons = ", ".join(f"{reason.replace('_', ' ')} {n}" for reason, n in grounding["kept_whole"].items())
                whole = f", {sum(grounding['kept_whole'].values())} kept whole ({reasons})" if reasons else ""
                out.print(f"grounding: {grounding['cropped']} pictures cropped{whole}", soft_wrap=True)
            found = report["steps"].get("enrich", {}).get("figures", {}).get("attributes")
            if found and found["source"] != "none":
                keys = ", ".join(f"{key} {n}" for key, n in found["by_key"].items())
                out.print(f"attributes: {found['said']} generated for {found['applied']} items{f' ({keys})' if keys else ''}", soft_wrap=True)
            if found := report.get("duplicates"):
                unknown = f", {found['unknown']} not hashed" if found["unknown"] else ""
                out.print(f"near-duplicates: {found['in_clusters']} of {found['pictures']} pictures in {found['clusters']} clusters{unknown}", soft_wrap=True)
            for label in ("report", "manifest", "mlflow_run"):
                if report.get(label):
                    out.print(f"{label.replace('_', ' ')}: {report[label]}", soft_wrap=True)


def write_summary(path: str, report: Mapping[str, Any]) -> None:
    """Write the figures as JSON to a file or URI, atomically, because a scheduler may read it at any time."""
    from tgq.storage.files import Files

    folder, name = os.path.split(path if "://" in path else os.path.abspath(path))
    Files(folder).write(name, (json.dumps(report, indent=2, default=str) + "\n").encode())


def need_catalog(loaded: Loaded) -> None:
    """Check that a catalog is named and, if it is local, exists.

    Raises:
        UsageError: no catalog is named.
        SourceError: the catalog does not exist.
    """
    path = loaded.settings.catalog.path
    if not path:
        raise UsageError("no catalog was named", "give --catalog FOLDER (draw one with `tgq demo-catalog demo`)")
    if "://" not in path and not Path(path).expanduser().exists():
        raise SourceError(f"the catalog {path} does not exist", "give --catalog an existing folder or table")


def need_warehouse(settings: Settings) -> str:
    """The warehouse's folder or URI.

    Raises:
        WarehouseError: the folder does not exist.
    """
    from tgq.storage.paths import absolute

    root = absolute(settings.warehouse.path)
    if "://" not in root and not Path(root).is_dir():
        raise WarehouseError(f"there is no warehouse {root}", "give another --warehouse")
    return root
