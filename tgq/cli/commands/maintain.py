"""`tgq maintain`: removes what nights leave behind and nobody needs."""

from __future__ import annotations

from typing import Annotated

import typer

from tgq.cli.options import Profiles, Sets, WarehousePath, err, need_warehouse, out, settings_of

commands = typer.Typer()


@commands.command()
def maintain(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")] = False,
) -> None:  # fmt: skip
    """Remove old reports, models' vectors, table versions and MLflow runs that nothing needs, and join small files.

    What the kept generations need stays (index.keep_generations), so every rollback still works. The section `maintain` of the
    configuration says what else is kept. Once a week is often enough.

    Example: tgq maintain --warehouse warehouse --dry-run
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.cli.tables import table
    from tgq.spark.session import open_session
    from tgq.storage.lock import warehouse_lock
    from tgq.upkeep.maintain import maintain as remove

    settings = settings_of(profiles, sets, None, warehouse).settings
    need_warehouse(settings)
    with warehouse_lock(settings.warehouse):
        spark = open_session(settings)
        try:
            done = remove(spark, settings, dry_run, ConsoleProgress(err))
        finally:
            spark.stop()
    rows = [[one.name, one.found, None if dry_run else f"{one.bytes / 2**20:.1f}"] for one in done]
    out.print(table("Would be removed" if dry_run else "Removed", ["what", "found", "MiB freed"], rows))
    if not dry_run:
        out.print(f"{sum(one.bytes for one in done) / 2**20:.1f} MiB freed")
