"""The machine and its settings: doctor, setup, configuration, the demo catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tgq.cli.options import Catalog, Profiles, Sets, WarehousePath, err, out, settings_of
from tgq.errors import MachineError, UsageError
from tgq.settings.load import redacted
from tgq.settings.sections import Settings

commands = typer.Typer()
config_commands = typer.Typer(help="Settings: what they are and where each value came from.", no_args_is_help=True)


@commands.command()
def doctor(profiles: Profiles = None, sets: Sets = None, warehouse: WarehousePath = None) -> None:
    """Check Java, Delta's JARs, memory, GPU, model files and warehouse access, a line each."""
    need_machine(settings_of(profiles, sets, None, warehouse).settings)


def need_machine(settings: Settings) -> None:
    """Print a line for each check of the machine; MachineError when one failed."""
    from tgq.cli.doctor import checks

    failed = 0
    for name, ok, text in checks(settings):
        failed += not ok
        out.print(f"[{'green' if ok else 'red'}]{'ok  ' if ok else 'FAIL'}[/] {name}: ", end="")
        out.print(text, markup=False, soft_wrap=True)
    if failed:
        raise MachineError(f"{failed} check(s) failed", "mend what is marked FAIL")


@commands.command()
def setup() -> None:
    """Prepare this machine once: Delta's JARs and the default towers' weights into the local cache."""
    from tgq.encoder.towers.hub import prepare_towers
    from tgq.storage.jars import delta_jars

    out.print(f"{len(delta_jars())} JARs, towers: {', '.join(sorted(prepare_towers()))}")


@commands.command()
def jars() -> None:
    """Print Delta's JARs, for spark-submit --jars "$(tgq jars)"."""
    from tgq.storage.jars import delta_jars

    print(",".join(str(jar) for jar in delta_jars()))


@config_commands.command("show")
def config_show(profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None) -> None:
    """Print every setting with the file, variable or flag that it came from."""
    from tgq.cli.tables import table

    loaded = settings_of(profiles, sets, catalog, warehouse)
    rows = [[key, json.dumps(value, ensure_ascii=False), loaded.origin(key)] for key, value in redacted(loaded.settings).items()]
    out.print(table("Settings", ["key", "value", "from"], rows, numeric_from=99))


@commands.command("demo-catalog")
def demo_catalog(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to draw into; created.")],
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 2000,
    seed: Annotated[int, typer.Option(help="Another seed draws other styles.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Picture side in pixels.")] = 224,
    bad_rows: Annotated[int, typer.Option(min=0, help="Add so many broken rows, to see the quarantine at work.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Draw over an existing catalog.")] = False,
) -> None:  # fmt: skip
    """Draw a catalog: products in scenes with banners, clutter and noisy metadata; the ground truth is kept."""
    from tgq.cli.console import ConsoleProgress
    from tgq.demo.catalog import draw_catalog

    if (out_folder / "catalog.parquet").exists() and not force:
        raise UsageError(f"{out_folder} already holds a catalog", "choose another folder, or give --force")
    progress = ConsoleProgress(err)
    progress.start("draw", items)
    summary = draw_catalog(out_folder, items=items, seed=seed, size=size, bad_rows=bad_rows, progress=lambda done, total: progress.update(done))
    progress.finish()
    out.print(f"drew {items} items into {out_folder}: {summary}")
