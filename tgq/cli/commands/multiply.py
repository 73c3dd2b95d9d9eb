"""The command that multiplies a catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tgq.cli.options import Profiles, Sets, err, need_catalog, out, settings_of

if TYPE_CHECKING:
    from tgq.multiply.options import Options
    from tgq.settings.sections import Settings

commands = typer.Typer()


@commands.command()
def multiply(
    catalog: Annotated[str, typer.Argument(metavar="CATALOG", help="Folder, file or table whose items are shown.")],
    out_folder: Annotated[str, typer.Argument(metavar="OUT", help="Folder or URI to write to; created if needed.")],
    rows: Annotated[int, typer.Option(help="Number of rows to write; every item is shown about equally often.")],
    scenes: Annotated[float, typer.Option(metavar="SHARE", help="Share of the pictures that show 1 to 3 other products beside the item.")] = 0.6,
    same_category: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of these scenes with at least one product of the item's own category, of another group.")
    ] = 0.5,
    wrong_titles: Annotated[float, typer.Option(metavar="SHARE", help="Share of the rows whose title is another item's.")] = 0.1,
    banners: Annotated[float, typer.Option(metavar="SHARE", help="Share of the pictures with an offer printed over them.")] = 0.35,
    backgrounds: Annotated[float, typer.Option(metavar="SHARE", help="Share of the pictures with a gradient or texture as background.")] = 0.4,
    missing: Annotated[float, typer.Option(metavar="SHARE", help="Probability that a brand, and each attribute, is left out.")] = 0.1,
    item_size: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", show_default="0.7 1.0", help="Longer side of an item that is alone, as a share of the picture's side."),
    ] = (0.7, 1.0),
    scene_size: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", show_default="0.42 0.6", help="Longer side of each product of a scene, as a share of the picture's side."),
    ] = (0.42, 0.6),
    size: Annotated[int, typer.Option(help="Side of the square pictures, in pixels.")] = 224,
    seed: Annotated[int, typer.Option(help="Seed; another seed gives other variants.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the catalog in OUT, if this command wrote it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at CATALOG and print what would be written; write nothing.")] = False,
    profiles: Profiles = None, sets: Sets = None,
) -> None:  # fmt: skip
    """Multiply a catalog: seeded variants of its items in scenes, under banners and with noisy metadata, and the truth about each.

    Example: tgq multiply demo multiplied --rows 2000 --conf local --conf catalogs/demo
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.multiply.folder import OutFolder
    from tgq.multiply.job import multiply as write
    from tgq.multiply.options import Options
    from tgq.spark.session import open_session

    options = Options(rows, scenes, same_category, wrong_titles, banners, backgrounds, missing, item_size, scene_size, size, seed)
    loaded = settings_of(profiles, sets, catalog)
    need_catalog(loaded)
    folder = OutFolder(out_folder)
    folder.check(catalog, force)
    spark = open_session(loaded.settings)
    try:
        if dry_run:
            from tgq.catalog.preview import preview

            for line in (*preview(spark, loaded.settings), *_planned(loaded.settings, options, out_folder)):
                out.print(line, markup=False, soft_wrap=True)
            return
        report = write(spark, loaded.settings, options, folder, ConsoleProgress(err))
    finally:
        spark.stop()
    for line in (*report.lines(out_folder), *_notes(loaded.settings, options)):
        out.print(line, markup=False, soft_wrap=True)
    place = out_folder.rstrip("/")
    out.print(f"next: tgq nightly --conf local --conf {Path(place) / 'profile.yaml'} --catalog {place}", markup=False, soft_wrap=True)


def _planned(settings: Settings, options: Options, out_folder: str) -> Iterator[str]:
    yield f"would write {options.rows} rows with pictures of {options.size} x {options.size} pixels to {out_folder}"
    yield from options.lines()
    yield from _notes(settings, options)


def _notes(settings: Settings, options: Options) -> Iterator[str]:
    if options.wrong_titles and "title" not in settings.metadata.fields:
        yield "note: the encoder does not read titles under these settings (metadata.fields), so wrong ones change no vector"
