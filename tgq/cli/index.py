"""FAISS shards: build them, list published generations, roll back to an earlier one."""

from __future__ import annotations

from typing import Annotated

import typer

from tgq.cli.options import Catalog, Profiles, RunId, Sets, Summary, WarehousePath, need_warehouse, out, run_steps, settings_of

commands = typer.Typer(help="FAISS shards: build tonight's, list generations, go back to an earlier one.", invoke_without_command=True)


@commands.callback()
def index_build(
    context: typer.Context,
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
) -> None:  # fmt: skip
    """Build tonight's FAISS shards, staged until published; only categories that changed are rebuilt."""
    if context.invoked_subcommand is None:
        run_steps(settings_of(profiles, sets, catalog, warehouse), ["index"], run_id, summary)


@commands.command("list")
def index_list(warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None) -> None:
    """The published generations, the current one marked."""
    from tgq.cli.tables import table
    from tgq.publishing.generations import generations
    from tgq.storage.paths import absolute

    root = absolute(settings_of(profiles, sets, None, warehouse).settings.warehouse.path)
    rows = [[("* " if g.current else "  ") + g.generation, g.model_version, g.n_shards, g.n_items, g.created_at] for g in generations(root)]
    out.print(table("Generations", ["generation", "model", "shards", "items", "published"], rows))


@commands.command("rollback")
def index_rollback(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    to: Annotated[str | None, typer.Option(help="Generation to go back to; default: the one before the current.")] = None,
) -> None:  # fmt: skip
    """Go back to an earlier generation: shards, neighbours and the current view together."""
    from tgq.publishing.publish import rollback
    from tgq.storage.lock import warehouse_lock
    from tgq.storage.session import open_session
    from tgq.storage.warehouse import Warehouse

    settings = settings_of(profiles, sets, None, warehouse).settings
    with warehouse_lock(need_warehouse(settings)):
        spark = open_session(settings)
        try:
            generation = rollback(Warehouse(spark, settings.warehouse, create=False), to)
        finally:
            spark.stop()
    out.print(f"published generation is now {generation}")
