"""The nightly run and its steps, each as a command."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from tgq.cli.commands.machine import need_machine
from tgq.cli.options import Catalog, Profiles, RunId, Sets, Summary, WarehousePath, err, need_catalog, out, run_steps, settings_of
from tgq.errors import GateError, UsageError

commands = typer.Typer()
AcceptChange = Annotated[
    bool,
    typer.Option(
        "--accept-catalog-change",
        help="Publish although more items vanished or more rows are quarantined than gate.catalog_change allows; the verdict records it.",
    ),
]
NoFail = Annotated[bool, typer.Option("--no-fail", help="Exit 0 even if the gate refuses; gate.passed in the summary holds the verdict.")]


@commands.command()
def nightly(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None, accept_catalog_change: AcceptChange = False, no_fail: NoFail = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the machine and the catalog and print what would run; write nothing.")] = False,
) -> None:  # fmt: skip
    """Run the whole pipeline: ingest, validate, enrich if it is enabled, embed, index, neighbors, evaluate, publish if the gate passes, report.

    Example: tgq nightly --catalog demo --warehouse warehouse --summary night.json

    Example: tgq nightly --catalog demo --set enrich.grounding.detector=anchor
    """
    loaded = settings_of(profiles, _accepting(sets, accept_catalog_change), catalog, warehouse)
    need_catalog(loaded)
    if dry_run:
        from tgq.night.nightly import dry_run as planned

        need_machine(loaded.settings)
        for line in planned(loaded.settings):
            out.print(line)
        return
    from tgq.night.nightly import STEPS

    with _refusal_printed(no_fail):
        run_steps(loaded, list(STEPS), run_id, summary)


def _accepting(sets: Sequence[str] | None, accept: bool) -> list[str]:
    """The overrides, with `--accept-catalog-change` as the setting that it is short for."""
    return [*(sets or ()), *(["gate.catalog_change.accept=true"] if accept else ())]


@contextlib.contextmanager
def _refusal_printed(no_fail: bool) -> Iterator[None]:
    """With `no_fail`, a refusal by the gate is printed and is no error."""
    try:
        yield
    except GateError as e:
        if not no_fail:
            raise
        err.print(f"tgq: {e}", style="yellow", markup=False, soft_wrap=True)


def _step(name: str, text: str, steps: Sequence[str], catalog_needed: bool = False) -> None:
    def command(
        profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
        run_id: RunId = None, summary: Summary = None,
    ) -> None:  # fmt: skip
        loaded = settings_of(profiles, sets, catalog, warehouse)
        if catalog_needed:
            need_catalog(loaded)
        run_steps(loaded, steps, run_id, summary)

    commands.command(name=name, help=text)(command)


_step("ingest", "Read the catalog, find new and changed items, quarantine unusable rows.", ["ingest"], catalog_needed=True)


_step("enrich", "Refine titles and generate missing attributes of new and changed items, as far as enrich in the settings enables it.", ["enrich"])


_step("embed", "Embed the items whose present content has no embedding from this model.", ["embed"])


_step("neighbors", "Find the exact nearest neighbours of every item. They are staged until published.", ["neighbors"])


@commands.command()
def evaluate(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None, accept_catalog_change: AcceptChange = False, no_fail: NoFail = False,
) -> None:  # fmt: skip
    """Compute retrieval metrics on the full pool and the gate's verdict; exit 3 if it refuses."""
    loaded = settings_of(profiles, _accepting(sets, accept_catalog_change), catalog, warehouse)
    with _refusal_printed(no_fail):
        run_steps(loaded, ["evaluate"], run_id, summary)


_step("publish", "Publish the run's staged shards and neighbours, if the gate passed.", ["publish"])


_step("report", "Write the run's HTML report from the tables.", ["report"])


@commands.command()
def validate(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
    suite: Annotated[str, typer.Option(help="Suite to run: catalog, embeddings or all.")] = "all",
) -> None:  # fmt: skip
    """Run the Great Expectations suites; exit 1 if a critical expectation fails."""
    suites = {"catalog": ["validate_catalog"], "embeddings": ["validate_embeddings"]}
    suites["all"] = suites["catalog"] + suites["embeddings"]
    if suite not in suites:
        raise UsageError(f"no suite named '{suite}'", f"choose one of {sorted(suites)}")
    run_steps(settings_of(profiles, sets, catalog, warehouse), suites[suite], run_id, summary)
