"""The command line. Every step of the night is a command; `jobs/*.py` call the same commands under spark-submit.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 the quality gate said no.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tgq.errors import GateError, MachineError, SourceError, TgqError, UsageError, WarehouseError
from tgq.settings.load import Loaded, dataclass_of, load_settings, redacted
from tgq.settings.sections import Settings

if TYPE_CHECKING:
    from tgq.run.night import Night

app = typer.Typer(
    name="tgq", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Nightly item embeddings on Spark: incremental, complete, measured on the full pool, gated.\n\n"
    "Start with [bold]tgq doctor[/bold], then [bold]tgq demo-catalog demo[/bold] and [bold]tgq nightly --catalog demo[/bold].",
)  # fmt: skip
index_app = typer.Typer(help="FAISS shards: build tonight's, list generations, go back to an earlier one.", invoke_without_command=True)
config_app = typer.Typer(help="Settings: what they are and where each value came from.", no_args_is_help=True)
app.add_typer(index_app, name="index")
app.add_typer(config_app, name="config")

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
    """A Night, with the warehouse held and the session closed at the end."""
    from tgq.cli.console import ConsoleProgress
    from tgq.run.night import check_run_id, open_night
    from tgq.storage.lock import warehouse_lock
    from tgq.storage.session import open_session
    from tgq.storage.warehouse import absolute, ensure_writable

    check_run_id(run_id)
    root = absolute(loaded.settings.warehouse.path)
    ensure_writable(root)
    with warehouse_lock(root):
        spark = open_session(loaded.settings)
        try:
            yield open_night(spark, loaded.settings, run_id, ConsoleProgress(err), begins)
        finally:
            spark.stop()


def run_steps(loaded: Loaded, names: Sequence[str], run_id: str | None, summary: str | None) -> None:
    """Run some steps of a night by name, print and write their figures; raises what the steps raise."""
    from tgq.cli.console import metrics_table, steps_table
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


def write_summary(path: str, report: dict) -> None:
    """Write the figures, whole or not at all: a scheduler on another machine reads them."""
    from tgq.storage.files import Files

    folder, name = os.path.split(path if "://" in path else os.path.abspath(path))
    Files(folder).write(name, (json.dumps(report, indent=2, default=str) + "\n").encode())


def _need_catalog(loaded: Loaded) -> None:
    path = loaded.settings.catalog.path
    if not path:
        raise UsageError("no catalog was named", "give --catalog FOLDER (draw one with `tgq demo-catalog demo`)")
    if "://" not in path and not Path(path).expanduser().exists():
        raise SourceError(f"the catalog {path} does not exist", "give --catalog an existing folder or table")


def _need_warehouse(settings: Settings) -> str:
    """The warehouse's folder or URI; WarehouseError where a folder is not there."""
    from tgq.storage.warehouse import absolute

    root = absolute(settings.warehouse.path)
    if "://" not in root and not Path(root).is_dir():
        raise WarehouseError(f"there is no warehouse {root}", "name another --warehouse")
    return root


@app.command()
def nightly(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, say what a night would do, write nothing.")] = False,
) -> None:  # fmt: skip
    """The whole night: ingest, validate, embed, index, neighbours, evaluate, publish behind the gate, report.

    Example: tgq nightly --catalog demo --warehouse warehouse --summary night.json
    """
    loaded = settings_of(profiles, sets, catalog, warehouse)
    _need_catalog(loaded)
    if dry_run:
        from tgq.night.nightly import rehearse

        _need_machine(loaded.settings)
        for line in rehearse(loaded.settings):
            out.print(line)
        return
    from tgq.night.nightly import STEPS

    run_steps(loaded, list(STEPS), run_id, summary)


def _step(name: str, text: str, steps: Sequence[str], catalog_needed: bool = False) -> None:
    def command(
        profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
        run_id: RunId = None, summary: Summary = None,
    ) -> None:  # fmt: skip
        loaded = settings_of(profiles, sets, catalog, warehouse)
        if catalog_needed:
            _need_catalog(loaded)
        run_steps(loaded, steps, run_id, summary)

    app.command(name=name, help=text)(command)


_step("ingest", "Read the catalog, find what changed, quarantine what cannot be used.", ["ingest"], catalog_needed=True)
_step("embed", "Embed the items whose content has no embedding under this model.", ["embed"])
_step("neighbors", "Exact nearest neighbours of every item, staged until published.", ["neighbors"])


@app.command()
def evaluate(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
    no_fail: Annotated[bool, typer.Option("--no-fail", help="Exit 0 also when the gate says no; gate.passed in the summary says it.")] = False,
) -> None:  # fmt: skip
    """Exact full-pool metrics and the gate's verdict (exit 3 when it says no)."""
    try:
        run_steps(settings_of(profiles, sets, catalog, warehouse), ["evaluate"], run_id, summary)
    except GateError as e:
        if not no_fail:
            raise
        err.print(f"tgq: {e}", style="yellow", markup=False, soft_wrap=True)


_step("publish", "Publish the run's staged shards and neighbours, if the gate passed them.", ["publish"])
_step("report", "Write the run's HTML report again from the tables.", ["report"])


@app.command()
def validate(
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
    suite: Annotated[str, typer.Option(help="catalog, embeddings or all.")] = "all",
) -> None:  # fmt: skip
    """Run the Great Expectations suites; a failed critical expectation exits 1."""
    suites = {"catalog": ["validate_catalog"], "embeddings": ["validate_embeddings"]}
    suites["all"] = suites["catalog"] + suites["embeddings"]
    if suite not in suites:
        raise UsageError(f"no suite named '{suite}'", f"choose one of {sorted(suites)}")
    run_steps(settings_of(profiles, sets, catalog, warehouse), suites[suite], run_id, summary)


@index_app.callback()
def index_build(
    context: typer.Context,
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None,
    run_id: RunId = None, summary: Summary = None,
) -> None:  # fmt: skip
    """Build tonight's FAISS shards, staged until published; only categories that changed are rebuilt."""
    if context.invoked_subcommand is None:
        run_steps(settings_of(profiles, sets, catalog, warehouse), ["index"], run_id, summary)


@index_app.command("list")
def index_list(warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None) -> None:
    """The published generations, the current one marked."""
    from tgq.cli.console import table
    from tgq.publishing.index import generations
    from tgq.storage.warehouse import absolute

    root = absolute(settings_of(profiles, sets, None, warehouse).settings.warehouse.path)
    rows = [[("* " if g.current else "  ") + g.generation, g.model_version, g.n_shards, g.n_items, g.created_at] for g in generations(root)]
    out.print(table("Generations", ["generation", "model", "shards", "items", "published"], rows))


@index_app.command("rollback")
def index_rollback(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    to: Annotated[str | None, typer.Option(help="Generation to go back to; default: the one before the current.")] = None,
) -> None:  # fmt: skip
    """Go back to an earlier generation: shards, neighbours and the current view together."""
    from tgq.night.publish import rollback
    from tgq.storage.lock import warehouse_lock
    from tgq.storage.session import open_session
    from tgq.storage.warehouse import Warehouse

    settings = settings_of(profiles, sets, None, warehouse).settings
    with warehouse_lock(_need_warehouse(settings)):
        spark = open_session(settings)
        try:
            generation = rollback(Warehouse(spark, settings.warehouse, create=False), to)
        finally:
            spark.stop()
    out.print(f"published generation is now {generation}")


@app.command()
def promote(
    candidate: Annotated[str, typer.Argument(help="Folder of the encoder, as `tgq train` wrote it; `default` is the bundled one.")],
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None, summary: Summary = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be compared and by how many queries, write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote whatever the comparison says, and record that it was forced.")] = False,
) -> None:  # fmt: skip
    """Make an encoder the champion, with which the next night embeds, if it is not worse on the validation queries (else exit 3).

    Example: tgq promote my-encoder --warehouse warehouse --summary promotion.json
    """
    from tgq.cli.console import promotion_table
    from tgq.evaluation import promotion

    loaded = settings_of(profiles, sets, catalog, warehouse)
    promotion.need_champion(loaded.settings)
    _need_warehouse(loaded.settings)
    with opened(loaded, None, begins=False) as night:
        rivals = promotion.rivals_of(night.warehouse.root, candidate)
        if rivals.same:
            out.print(f"model {rivals.candidate} is the champion already")
            return
        if dry_run:
            for line in promotion.rehearse(night, rivals):
                out.print(line, soft_wrap=True)
            return
        found = promotion.promote(night, rivals, force)
    if found["differences"]:
        out.print(promotion_table(found))
    if summary:
        write_summary(summary, found)
    if refused := promotion.refusal(found):
        raise refused
    for reason in found["reasons"]:
        err.print(f"tgq: forced although {reason}", style="yellow", markup=False, soft_wrap=True)
    out.print(f"champion is now {found['candidate']}; the next night embeds with it")


@app.command("rollback-model")
def rollback_model(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    to: Annotated[str | None, typer.Option(metavar="MODEL_VERSION", help="Champion to go back to, or `default`; default: the one before.")] = None,
) -> None:  # fmt: skip
    """Make the champion before this one the champion again, or the bundled encoder where there was none."""
    from tgq.evaluation import promotion
    from tgq.storage.lock import warehouse_lock

    settings = settings_of(profiles, sets, None, warehouse).settings
    promotion.need_champion(settings)
    with warehouse_lock(_need_warehouse(settings)):
        version = promotion.rollback_model(settings, to)
    out.print(f"champion is now {version}; the next night embeds with it")


@app.command()
def models(warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None) -> None:
    """The champion and the promotions before it."""
    from tgq.cli.console import models_table
    from tgq.registry.champion import read_history

    out.print(models_table(read_history(_need_warehouse(settings_of(profiles, sets, None, warehouse).settings))))


@app.command()
def search(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    item: Annotated[str | None, typer.Option(help="Search by an item's id.")] = None,
    text: Annotated[str | None, typer.Option(help="Search by words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Search by a picture file.")] = None,
    category: Annotated[str | None, typer.Option(help="Only this category or what lies under it, e.g. 'Women > Tops'.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="How many hits.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:  # fmt: skip
    """Search the published shards by item id, by words or by a picture.

    Example: tgq search --text "red running shoe" --category Footwear
    """
    from tgq.cli.console import table
    from tgq.publishing.search import search as find

    if sum(x is not None for x in (item, text, image)) != 1:
        raise UsageError("search needs exactly one of --item, --text and --image", "name one of them")
    settings = settings_of(profiles, sets, None, warehouse).settings
    hits = find(settings, item_id=item, text=text, image=image, category=category, k=k)
    if as_json:
        for hit in hits:
            print(json.dumps(hit, ensure_ascii=False))
        return
    rows = [[n + 1, f"{h['score']:.4f}", h["item_id"], h["title"], h["brand"], h["category"]] for n, h in enumerate(hits)]
    out.print(table("Hits", ["rank", "score", "item", "title", "brand", "category"], rows, numeric_from=99))


@app.command()
def robustness(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, summary: Summary = None,
    nuisance: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this nuisance; repeatable. Default: all.")] = None,
    items: Annotated[int, typer.Option(min=1, max=20_000, help="How many published items are disturbed, those with relevance pairs first.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of every nuisance.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check what can be checked, say what would be done, embed nothing.")] = False,
) -> None:  # fmt: skip
    """What banners, wrong titles, other backgrounds and the like cost the published night, each with its interval.

    Example: tgq robustness --warehouse warehouse --items 200 --nuisance typographic --nuisance wrong_title --summary robustness.json
    """
    from tgq.cli.console import ConsoleProgress, robustness_tables
    from tgq.robustness.measure import Plan, measure
    from tgq.storage.lock import warehouse_lock
    from tgq.storage.session import open_session
    from tgq.storage.warehouse import absolute

    settings = settings_of(profiles, sets, catalog, warehouse).settings
    plan = Plan.of(settings, nuisance or (), items, seed)
    if dry_run:
        for line in plan.lines():
            out.print(line, markup=False, soft_wrap=True)
        return
    with warehouse_lock(absolute(settings.warehouse.path)):
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


@app.command()
def train(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the trained encoder. The same command again goes on where it stopped.")],
    catalogs: Annotated[list[str] | None, typer.Option("--catalog", help="A catalog to train on: FOLDER or FOLDER=PROFILE; repeatable.")] = None,
    warehouse: Annotated[str | None, typer.Option(help="A warehouse that `tgq nightly` or `tgq ingest` has filled, to train on its items.")] = None,
    profiles: Profiles = None, sets: Sets = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="At most so many batches; stops early on held-out train groups.")] = None,
    max_items: Annotated[int, typer.Option(min=10, help="About how many items per source; they fit the memory (270 kB each and per view).")] = 20_000,
    views: Annotated[int, typer.Option(min=0, max=11, help="Views of each item, under as many of `tgq robustness`'s nuisances, as positives.")] = 0,
    cache: Annotated[Path | None, typer.Option(help="Where tower features of catalogs and views are kept for the next training. [default: OUT/work]")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow; default: sqlite in OUT.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that share each batch; the curve is the same for any number.")] = 1,
    launcher: Annotated[str, typer.Option(help="What starts several processes: torchrun (this machine) or spark (TorchDistributor).")] = "torchrun",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    head: Annotated[str | None, typer.Option(help="light or llm; short for --model head=...")] = None,
    llm: Annotated[str | None, typer.Option(help="The llm head's language model, a folder or hub name; short for --model llm=...")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Towers, connector, widths: e.g. vision=openai/clip-vit-base-patch32, connector=qformer; repeatable."),
    ] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="How to train, e.g. lr=2e-4 or pairs=128; repeatable.")] = None,
    help_options: Annotated[bool, typer.Option("--help-options", help="List all that --model and --option can set, with defaults, and end.")] = False,
) -> None:  # fmt: skip
    """Train the connector and head over frozen tower features, on the train side of catalogs' pairs.

    Example: tgq train my-encoder --warehouse warehouse

    Example: tgq train my-encoder --catalog demo=catalogs/demo --seed 1

    Example: tgq train clip --catalog demo --model vision=openai/clip-vit-base-patch32 --model text=openai/clip-vit-base-patch32 --model image_size=0
    """
    from tgq.cli.console import ConsoleProgress, table
    from tgq.encoder.model import EncoderConfig
    from tgq.storage.session import open_session
    from tgq.training.trainer import TrainConfig
    from tgq.training_job.job import Source, train_encoder

    if help_options:
        for kind, flag in ((EncoderConfig, "--model"), (TrainConfig, "--option")):
            out.print(table(flag, ["key", "default"], [[name, f.default] for name, f in kind.__dataclass_fields__.items()], numeric_from=99))
        return
    if not catalogs and not warehouse:
        raise UsageError("nothing to train on was named", "give --warehouse FOLDER, or --catalog FOLDER (draw one with `tgq demo-catalog demo`)")
    if launcher not in ("torchrun", "spark"):
        raise UsageError(f"no launcher named '{launcher}'", "choose torchrun or spark")
    short = [f"{key}={value}" for key, value in (("head", head), ("llm", llm)) if value]
    shape = dataclass_of(EncoderConfig, [*short, *(model or ())], "--model")
    how = dataclass_of(TrainConfig, [f"seed={seed}", *([f"steps={steps}"] if steps else []), *(option or ())], "--option")
    settings = settings_of(profiles, sets, None, warehouse).settings
    sources = [Source.of_catalog(catalog, cache or out_folder / "work" / "catalogs") for catalog in catalogs or ()]
    sources += [Source.of_warehouse(settings)] if warehouse else []
    spark = open_session(settings)
    try:
        result = train_encoder(spark, out_folder, sources, shape, how, max_items, tracking_uri, ConsoleProgress(err), processes, launcher, device, views, cache)
    finally:
        spark.stop()
    out.print(f"encoder {result.model_version} in {out_folder}: validation MRR {result.validation_mrr:.4f} after {result.steps} steps")
    out.print(f"make it the champion with `tgq promote {out_folder} --warehouse ...`, or use it once with --set encoder.path={out_folder}", soft_wrap=True)


@app.command()
def tables(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    sql: Annotated[str | None, typer.Option(help="Run one query and print its rows.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Run the statements of a .sql file, e.g. sql/analyses/quarantine_by_reason.sql.", exists=True, dir_okay=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most this many rows.")] = 50,
) -> None:  # fmt: skip
    """List the tables and views with rows and versions, or run SQL over them.

    Example: tgq tables --sql "SELECT item_id, tgq_embed(NULL, metadata_text, title) FROM published_items LIMIT 3"
    """
    from tgq.cli.console import table
    from tgq.embedding.udf import register_udf
    from tgq.publishing.views import define_views, statements
    from tgq.retrieval import manifest
    from tgq.run.night import published_folder
    from tgq.storage.session import open_session
    from tgq.storage.warehouse import TABLES, Warehouse

    settings = settings_of(profiles, sets, None, warehouse).settings
    spark = open_session(settings)
    try:
        store = Warehouse(spark, settings.warehouse, create=False)
        views = define_views(spark, store)
        register_udf(spark, settings, published_folder(settings, manifest.load_current(store.root)))
        if sql is None and file is None:
            rows = [[name, store.read(name).count(), store.version(name), store.location(name)] for name in TABLES]
            rows += [[view, None, None, "view"] for view in views]
            out.print(table("Tables", ["name", "rows", "version", "place"], rows))
            return
        for statement in statements(file.read_text() if file else sql):
            frame = spark.sql(statement)
            if frame.columns:
                rows = [[_short(v) for v in row] for row in frame.limit(limit).collect()]
                out.print(table(statement.splitlines()[0][:80], frame.columns, rows, numeric_from=99))
    except Exception as e:
        from pyspark.errors import PySparkException

        if isinstance(e, PySparkException):
            raise UsageError(f"SQL: {str(e).splitlines()[0][:300]}", "see `tgq tables` for the names") from e
        raise
    finally:
        spark.stop()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:117] + "..."


@config_app.command("show")
def config_show(profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None) -> None:
    """Print every setting with the file, variable or flag that it came from."""
    from tgq.cli.console import table

    loaded = settings_of(profiles, sets, catalog, warehouse)
    rows = [[key, json.dumps(value, ensure_ascii=False), loaded.origin(key)] for key, value in redacted(loaded.settings).items()]
    out.print(table("Settings", ["key", "value", "from"], rows, numeric_from=99))


@app.command("demo-catalog")
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


@app.command()
def setup() -> None:
    """Prepare this machine once: Delta's JARs and the default towers' weights into the local cache."""
    from tgq.encoder.towers.hub import prepare_towers
    from tgq.storage.session import delta_jars

    out.print(f"{len(delta_jars())} JARs, towers: {', '.join(sorted(prepare_towers()))}")


@app.command()
def jars() -> None:
    """Print Delta's JARs, for spark-submit --jars "$(tgq jars)"."""
    from tgq.storage.session import delta_jars

    print(",".join(str(jar) for jar in delta_jars()))


@app.command()
def doctor(profiles: Profiles = None, sets: Sets = None, warehouse: WarehousePath = None) -> None:
    """Check Java, Delta's JARs, memory, GPU, model files and warehouse access, a line each."""
    _need_machine(settings_of(profiles, sets, None, warehouse).settings)


def _need_machine(settings: Settings) -> None:
    """Print a line for each check of the machine; MachineError when one failed."""
    from tgq.cli.doctor import checks

    failed = 0
    for name, ok, text in checks(settings):
        failed += not ok
        out.print(f"[{'green' if ok else 'red'}]{'ok  ' if ok else 'FAIL'}[/] {name}: ", end="")
        out.print(text, markup=False, soft_wrap=True)
    if failed:
        raise MachineError(f"{failed} check(s) failed", "mend what is marked FAIL")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script and of `jobs/*.py`; always exits with one of the four codes."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(args=list(argv) if argv is not None else None, standalone_mode=False)
    except TgqError as e:
        err.print(f"tgq: {e}", style="red" if not isinstance(e, GateError) else "yellow", markup=False, soft_wrap=True)
        code = e.exit_code
    except typer.Exit as e:
        code = e.exit_code
    except Exception as e:
        import click

        if isinstance(e, click.ClickException) or hasattr(e, "format_message"):
            err.print(f"tgq: {e.format_message()}", style="red", markup=False)
            code = 2
        elif type(e).__name__ in ("Abort",):
            code = 130
        elif line := _named(e):
            err.print(f"tgq: {line}", style="red", markup=False, soft_wrap=True)
            code = 1
        else:
            raise
    except KeyboardInterrupt:
        err.print("tgq: interrupted; run the same command again to go on where it stopped", markup=False)
        code = 130
    sys.stdout.flush()
    sys.exit(code or 0)


def _named(error: Exception) -> str | None:
    """One line for what the system refused, or for a named error that a Spark task sent home inside its own."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}: check the path, its permissions and the free space"
    if type(error).__module__.startswith(("pyspark.", "py4j.")):
        names = "|".join(kind.__name__ for kind in TgqError.__subclasses__())
        sent = re.search(rf"^\s*tgq\.errors\.(?:{names}): (.+)$", str(error), re.MULTILINE)
        return sent and sent[1]
    return None


if __name__ == "__main__":
    main()
