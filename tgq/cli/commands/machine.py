"""Commands for setting up: doctor, setup, jars, config, init, demo-catalog."""

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
config_commands = typer.Typer(help="Show the settings.", no_args_is_help=True)


@commands.command()
def doctor(profiles: Profiles = None, sets: Sets = None, warehouse: WarehousePath = None) -> None:
    """Check Java, the Delta JARs, memory, GPU, model files and access to the warehouse."""
    need_machine(settings_of(profiles, sets, None, warehouse).settings)


def need_machine(settings: Settings) -> None:
    """Check the machine and print a line per check.

    Raises:
        MachineError: a check failed.
    """
    from tgq.cli.doctor import checks

    failed = 0
    for name, ok, text in checks(settings):
        failed += not ok
        out.print(f"[{'green' if ok else 'red'}]{'ok  ' if ok else 'FAIL'}[/] {name}: ", end="", markup=True)
        out.print(text, markup=False, soft_wrap=True)
    if failed:
        raise MachineError(f"{failed} check(s) failed", "correct what is marked FAIL")


@commands.command()
def setup(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Optional bundled models to prepare too.")] = None,
    s3: Annotated[bool, typer.Option("--s3", help="Prepare Hadoop's client of s3a:// too, 690 MB.")] = False,
) -> None:  # fmt: skip
    """Prepare the Delta JARs, the JVM's class archive and the default towers' weights in the local cache. Needed once per machine.

    Example: tgq setup smollm2-135m-instruct

    Example: tgq setup --s3
    """
    from tgq.encoder.towers.hub import prepare_models
    from tgq.spark.class_archive import record_archive
    from tgq.spark.jars import delta_jars, s3a_jars

    if s3:
        out.print(f"{len(s3a_jars())} JARs for s3a://")
    jars, prepared, problem = delta_jars(), prepare_models(models or ()), record_archive()
    out.print(f"{len(jars)} JARs, models: {', '.join(sorted(prepared))}", soft_wrap=True)
    if problem:
        out.print(f"no class archive, so Spark starts as slowly as before: {problem}", markup=False)


@commands.command()
def jars() -> None:
    """Print the paths of the Delta JARs, for spark-submit --jars "$(tgq jars)"."""
    from tgq.spark.jars import delta_jars

    print(",".join(str(jar) for jar in delta_jars()))


@config_commands.command("show")
def config_show(profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None) -> None:
    """Print every setting with its value and the file, variable or flag that set it."""
    from tgq.cli.tables import table

    loaded = settings_of(profiles, sets, catalog, warehouse)
    rows = [[key, json.dumps(value, ensure_ascii=False), loaded.origin(key)] for key, value in redacted(loaded.settings).items()]
    out.print(table("Settings", ["key", "value", "from"], rows, numeric_from=99))


@commands.command()
def init(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="Folder, file or table to look at.")],
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Profile to write.")] = Path("catalog.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace FILE.")] = False,
    profiles: Profiles = None, sets: Sets = None,
) -> None:  # fmt: skip
    """Look at a catalog's columns and first rows, and write a profile for it with comments.

    Example: tgq init feeds/products.csv --out shop.yaml
    """
    from tgq.catalog.profile import look_at, write_profile
    from tgq.spark.session import open_session

    settings = settings_of(profiles, sets, catalog, None).settings
    if out_file.exists() and not force:
        raise UsageError(f"{out_file} exists", "name another file with --out, or replace it with --force")
    spark = open_session(settings)
    try:
        found, text = look_at(spark, settings.catalog)
    finally:
        spark.stop()
    write_profile(out_file, text, force)
    for field, column in found.fields.items():
        out.print(f"{field}: {column}", markup=False)
    for name, column in found.attributes.items():
        out.print(f"attribute {name}: {column}", markup=False)
    for doubt in found.doubts:
        out.print(f"note: {doubt}", markup=False)
    if found.others:
        out.print(f"not used: {', '.join(found.others)}", markup=False)
    if found.shop:
        out.print(f"note: this looks like an export of {found.shop}; the profile catalogs/{found.shop} describes it", markup=False)
    out.print(f"wrote {out_file}; next: tgq nightly --conf local --conf {out_file} --dry-run", markup=False)


@commands.command("demo-catalog")
def demo_catalog(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; created if needed.")],
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed; another seed draws other products.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=2048, help="Side of the square pictures, in pixels.")] = 224,
    bad_rows: Annotated[int, typer.Option(min=0, help="Number of broken rows to add, which the quarantine will catch.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the catalog in OUT, if this command drew it.")] = False,
) -> None:  # fmt: skip
    """Draw a demo catalog: pictures of invented products with banners and clutter, noisy metadata, queries with graded items, and the ground truth."""
    from tgq.cli.console import ConsoleProgress
    from tgq.demo.catalog import draw_catalog

    if (out_folder / "catalog.parquet").exists() and not force:
        raise UsageError(f"{out_folder} already holds a catalog", "choose another folder, or give --force")
    progress = ConsoleProgress(err)
    progress.start("draw", items)
    drawn = draw_catalog(out_folder, items=items, seed=seed, size=size, bad_rows=bad_rows, progress=lambda done, total: progress.update(done))
    progress.finish()
    broken = f" and {drawn.bad_rows} broken rows" if drawn.bad_rows else ""
    out.print(f"{drawn.items} items of {drawn.styles} styles and {drawn.types} product types{broken} in {out_folder}", soft_wrap=True)
