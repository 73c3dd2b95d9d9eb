"""`tgq index`: builds FAISS shards, lists published generations, rolls back to an earlier one."""

from __future__ import annotations

from typing import Annotated

import typer

from tgq.cli.options import Catalog, Profiles, RunId, Sets, Summary, WarehousePath, need_warehouse, out, run_steps, settings_of

commands = typer.Typer(
    help="Build the run's FAISS shards (without a subcommand), list published generations, or roll back to an earlier one.",
    invoke_without_command=True,
)


@commands.callback()
def index_build(
    context: typer.Context,
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
) -> None:  # fmt: skip
    """Build the FAISS shards of the categories that changed. They are staged until published."""
    if context.invoked_subcommand is None:
        run_steps(settings_of(profiles, sets, catalog, warehouse), ["index"], run_id, summary)


@commands.command("list")
def index_list(warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None) -> None:
    """List the published generations; * marks the current one."""
    from tgq.cli.tables import table
    from tgq.index.generations import generations
    from tgq.storage.paths import absolute

    root = absolute(settings_of(profiles, sets, None, warehouse).settings.warehouse.path)
    rows = [[("* " if g.current else "  ") + g.generation, g.model_version, g.n_shards, g.n_items, g.created_at] for g in generations(root)]
    out.print(table("Generations", ["generation", "model", "shards", "items", "published"], rows))


@commands.command("rollback")
def index_rollback(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    to: Annotated[str | None, typer.Option(help="Generation to roll back to. Default: the previous one.")] = None,
) -> None:  # fmt: skip
    """Make an earlier generation the current one: its shards, neighbours and embeddings together."""
    from tgq.publishing.publish import rollback
    from tgq.spark.session import open_session
    from tgq.storage.lock import warehouse_lock
    from tgq.storage.warehouse import Warehouse

    settings = settings_of(profiles, sets, None, warehouse).settings
    need_warehouse(settings)
    with warehouse_lock(settings.warehouse) as lock:
        spark = open_session(settings)
        try:
            lock.need()
            generation = rollback(Warehouse(spark, settings.warehouse, create=False), to)
        finally:
            spark.stop()
    out.print(f"the current generation is now {generation}")
