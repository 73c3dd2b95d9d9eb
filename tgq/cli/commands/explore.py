"""Commands that use a published warehouse: search, SQL over its tables, robustness, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tgq.cli.options import SHOWN, Catalog, Profiles, Sets, Summary, WarehousePath, err, need_warehouse, out, settings_of, write_summary
from tgq.errors import ModelError, UsageError
from tgq.messages import json_line

commands = typer.Typer()


@commands.command()
def search(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    item: Annotated[str | None, typer.Option(help="Query: the id of a published item.")] = None,
    text: Annotated[str | None, typer.Option(help="Query: a text.")] = None,
    image: Annotated[Path | None, typer.Option(help="Query: a picture file; cropped as the published ones were, to what --category names.")] = None,
    category: Annotated[str | None, typer.Option(help="Search only this category and those below it, e.g. 'Women > Tops'.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Number of hits.")] = 10,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="With --text: fuse the ranking by vectors with one by the words of titles and brands.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON Lines.")] = False,
) -> None:  # fmt: skip
    """Search the published shards by item id, text or picture. A text is embedded by the published encoder's query tower, if it has one.

    Example: tgq search --text "red running shoe" --category Shoes

    Example: tgq search --text "red running shoe" --hybrid
    """
    from tgq.cli.tables import table
    from tgq.index.search import search as find

    if sum(x is not None for x in (item, text, image)) != 1:
        raise UsageError("search needs exactly one of --item, --text and --image", "give one of them")
    if hybrid and text is None:
        raise UsageError("--hybrid compares words, and there is no --text", "give --text, or leave --hybrid out")
    settings = settings_of(profiles, sets, None, warehouse).settings
    hits = find(settings, item_id=item, text=text, image=image, category=category, k=k, hybrid=hybrid)
    if as_json:
        for hit in hits:
            print(json_line(hit))
        return
    rows = [[n + 1, f"{h['score']:.4f}", h["item_id"], h["title"], h["brand"], h["category"]] for n, h in enumerate(hits)]
    out.print(table("Hits", ["rank", "score", "item", "title", "brand", "category"], rows, numeric_from=99))


@commands.command()
def tables(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    sql: Annotated[str | None, typer.Option(help="SQL to run; its rows are printed.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="File of SQL statements to run, e.g. sql/analyses/quarantine_by_reason.sql.", exists=True, dir_okay=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of rows to print.")] = 50,
) -> None:  # fmt: skip
    """List the tables and views with their row counts and versions, or run SQL.

    Example: tgq tables --sql "SELECT item_id, tgq_embed(NULL, metadata_text, title) FROM published_items LIMIT 3"
    """
    from tgq.cli.tables import table
    from tgq.embedding.executor.udf import register_udf
    from tgq.publishing.views import define_views, statements
    from tgq.registry.selection import published_folder
    from tgq.retrieval import manifest
    from tgq.spark.session import open_session
    from tgq.storage.warehouse import TABLES, Warehouse

    settings = settings_of(profiles, sets, None, warehouse).settings
    spark = open_session(settings)
    try:
        store = Warehouse(spark, settings.warehouse, create=False)
        views = define_views(spark, store)
        register_udf(spark, settings, published_folder(settings, manifest.load_current(store.root)))
        text = file.read_text() if file else sql
        if text is None:
            rows = [[name, store.read(name).count(), store.version(name), store.location(name)] for name in TABLES]
            rows += [[view, None, None, "view"] for view in views]
            out.print(table("Tables", ["name", "rows", "version", "location"], rows))
            return
        for statement in statements(text):
            frame = spark.sql(statement)
            if frame.columns:
                rows = [[_short(v) for v in row] for row in frame.limit(limit).collect()]
                out.print(table(statement.splitlines()[0][:80], frame.columns, rows, numeric_from=99))
    except Exception as e:
        from pyspark.errors import PySparkException

        if isinstance(e, PySparkException):
            raise UsageError(f"SQL: {str(e).splitlines()[0][:300]}", "correct the statement; `tgq tables` lists the tables and views") from e
        raise
    finally:
        spark.stop()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


@commands.command()
def robustness(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, summary: Summary = None,
    nuisance: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Nuisance to measure, e.g. wrong_title; repeatable. Default: all.")] = None,
    items: Annotated[int, typer.Option(min=1, max=20_000, help="Number of published items to disturb; those with relevance pairs come first.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of every nuisance.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the options and print the plan; embed nothing.")] = False,
) -> None:  # fmt: skip
    """Measure how much retrieval quality each nuisance costs (banner, wrong title, other background and so on), with intervals.

    Example: tgq robustness --warehouse warehouse --items 200 --nuisance typographic --nuisance wrong_title --summary robustness.json
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.cli.tables import robustness_tables
    from tgq.robustness.measure import Plan, measure
    from tgq.spark.session import open_session
    from tgq.storage.lock import warehouse_lock

    settings = settings_of(profiles, sets, catalog, warehouse).settings
    plan = Plan.of(settings, nuisance or (), items, seed)
    if dry_run:
        for line in plan.lines():
            out.print(line, markup=False, soft_wrap=True)
        return
    with warehouse_lock(settings.warehouse):
        spark = open_session(settings)
        try:
            report = measure(spark, settings, plan, ConsoleProgress(err))
        finally:
            spark.stop()
    if summary:
        write_summary(summary, report)
    for found in robustness_tables(report):
        out.print(found)
    for label in ("unreadable", "failed"):
        if rows := report[label]:
            named = ", ".join(f"{row['item_id']} ({row['reason']})" for row in rows[:SHOWN])
            out.print(f"{label}: {len(rows)} of {report['items']} items: {named}{', ...' if len(rows) > SHOWN else ''}", markup=False, soft_wrap=True)
    if report["mlflow_run"]:
        out.print(f"mlflow run: {report['mlflow_run']}", soft_wrap=True)


@commands.command()
def export(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; it must not exist.")],
    to: Annotated[str, typer.Option("--to", help="Format: parquet, npy or lance.")] = "parquet",
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
) -> None:  # fmt: skip
    """Export the published vectors with item ids and metadata, for example to a vector database. Needs no Spark.

    Example: tgq export build/vectors --to parquet --warehouse warehouse
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.client.export import export as write
    from tgq.client.warehouse import open_warehouse

    opened = open_warehouse(settings_of(profiles, sets, None, warehouse).settings.warehouse.path)
    progress = ConsoleProgress(err)
    progress.start("export", sum(shard.n_items for shard in opened.published.shards) if opened.published else 0)
    try:
        made = write(opened, out_folder, to, progress.update)
    finally:
        progress.finish()
    out.print(f"{made.rows} vectors of width {made.dim}, generation {made.generation}, in {made.folder}", soft_wrap=True)


@commands.command("export-query-tower")
def export_query_tower(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to; new or empty.")],
    encoder: Annotated[str | None, typer.Option(help="Folder of the encoder. Default: that of the warehouse's published vectors, or the champion.")] = None,
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
) -> None:  # fmt: skip
    """Export an encoder's query tower to ONNX, for services that embed queries without torch and tgq. Needs `pip install 'tgq[onnx]'`.

    The model is compared with torch before the folder appears.

    Example: tgq export-query-tower build/query-tower --warehouse warehouse
    """
    from tgq.query_tower.config import tower_folder
    from tgq.query_tower.onnx import export_onnx
    from tgq.registry.champion import local_folder
    from tgq.registry.selection import named_folder, published_folder
    from tgq.retrieval.manifest import load_current

    if encoder is not None and warehouse is not None:
        raise UsageError("--encoder and --warehouse name two encoders", "give one of them")
    if encoder is not None:
        folder = named_folder(encoder)
    else:
        settings = settings_of(profiles, sets, None, warehouse).settings
        folder = published_folder(settings, load_current(need_warehouse(settings)))
    tower = tower_folder(local_folder(folder))
    if tower is None:
        raise ModelError(f"the encoder {encoder or folder} has no query tower", "train one with `tgq train-queries`, or name another --encoder")
    made = export_onnx(tower, out_folder)
    out.print(f"query tower of width {made.dim} in {made.folder}; its vectors differ from torch's by {made.difference:.0e} at most", soft_wrap=True)
