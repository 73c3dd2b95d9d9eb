"""Commands for encoders: train, calibrate, promote, rollback-model, models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tgq.cli.options import Catalog, Profiles, Sets, Summary, WarehousePath, err, need_warehouse, opened, out, settings_of, write_summary
from tgq.errors import UsageError
from tgq.registry.champion import DEFAULT
from tgq.settings.load import dataclass_of

commands = typer.Typer()


@commands.command()
def train(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the trained encoder. Repeat the command to continue an interrupted training.")],
    catalogs: Annotated[list[str] | None, typer.Option("--catalog", help="Catalog to train on: FOLDER or FOLDER=PROFILE; repeatable.")] = None,
    warehouse: Annotated[str | None, typer.Option(help="Warehouse to train on, filled by `tgq nightly` or `tgq ingest`.")] = None,
    profiles: Profiles = None, sets: Sets = None,
    seed: Annotated[int, typer.Option(help="Seed of initialisation and sampling.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Maximum number of batches; fewer if the validation MRR stops improving.")] = None,
    max_items: Annotated[int, typer.Option(min=10, help="About how many items per source at most; 270 kB of memory each, 340 with scene_share.")] = 20_000,
    views: Annotated[
        int, typer.Option(min=0, max=11, help="Extra views per item, each disturbed by one nuisance of `tgq robustness`; views of an item are positives.")
    ] = 0,
    cache: Annotated[Path | None, typer.Option(help="Folder where tower features are cached for later trainings. Default: OUT/work.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking URI. Default: a sqlite file in OUT.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Number of processes that share each batch. It does not change the result.")] = 1,
    launcher: Annotated[str, typer.Option(help="How several processes are started: torchrun (on this machine) or spark (TorchDistributor).")] = "torchrun",
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    head: Annotated[str | None, typer.Option(help="Head: light or llm. Short for --model head=...")] = None,
    llm: Annotated[
        str | None, typer.Option(help="Language model of the llm head: a folder, a Hugging Face name or smollm2-135m-instruct. Short for --model llm=...")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting of the encoder, e.g. vision=openai/clip-vit-base-patch32 or connector=qformer; repeatable."),
    ] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the training, e.g. lr=2e-4 or pairs=128; repeatable.")] = None,
    help_options: Annotated[bool, typer.Option("--help-options", help="List the keys of --model and --option with their defaults, and exit.")] = False,
) -> None:  # fmt: skip
    """Train an encoder on the relevance pairs of the train split. The towers stay frozen.

    Example: tgq train my-encoder --warehouse warehouse

    Example: tgq train my-encoder --catalog demo=catalogs/demo --seed 1

    Example: tgq train clip --catalog demo --model vision=openai/clip-vit-base-patch32 --model text=openai/clip-vit-base-patch32 --model image_size=0
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.cli.tables import table
    from tgq.encoder.config import EncoderConfig
    from tgq.spark.session import open_session
    from tgq.training.trainer import TrainConfig
    from tgq.training_job.job import Launcher, Source, train_encoder

    if help_options:
        for kind, flag in ((EncoderConfig, "--model"), (TrainConfig, "--option")):
            out.print(table(flag, ["key", "default"], [[name, f.default] for name, f in kind.__dataclass_fields__.items()], numeric_from=99))
        return
    if not catalogs and not warehouse:
        raise UsageError("no training data was named", "give --warehouse FOLDER, or --catalog FOLDER (draw one with `tgq demo-catalog demo`)")
    if launcher not in ("torchrun", "spark"):
        raise UsageError(f"no launcher named '{launcher}'", "choose torchrun or spark")
    starter: Launcher = "spark" if launcher == "spark" else "torchrun"
    short = [f"{key}={value}" for key, value in (("head", head), ("llm", llm)) if value]
    shape = dataclass_of(EncoderConfig, [*short, *(model or ())], "--model")
    how = dataclass_of(TrainConfig, [f"seed={seed}", *([f"steps={steps}"] if steps else []), *(option or ())], "--option")
    settings = settings_of(profiles, sets, None, warehouse).settings
    sources = [Source.of_catalog(catalog, cache or out_folder / "work" / "catalogs") for catalog in catalogs or ()]
    sources += [Source.of_warehouse(settings)] if warehouse else []
    spark = open_session(settings)
    try:
        result = train_encoder(spark, out_folder, sources, shape, how, max_items, tracking_uri, ConsoleProgress(err), processes, starter, device, views, cache)
    finally:
        spark.stop()
    out.print(f"encoder {result.model_version} in {out_folder}: validation MRR {result.validation_mrr:.4f} after {result.steps} steps")
    out.print(f"to make it the champion: tgq promote {out_folder} --warehouse ...; to use it once: --set encoder.path={out_folder}", soft_wrap=True)


@commands.command()
def calibrate(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the calibrated encoder.")],
    encoder: Annotated[str, typer.Option(help="Encoder to calibrate: a folder, or `default` for the bundled one.")] = DEFAULT,
    catalogs: Annotated[list[str] | None, typer.Option("--catalog", help="Catalog to calibrate on: FOLDER or FOLDER=PROFILE; repeatable.")] = None,
    warehouse: Annotated[str | None, typer.Option(help="Warehouse to calibrate on, filled by `tgq nightly` or `tgq ingest`.")] = None,
    profiles: Profiles = None, sets: Sets = None,
    seed: Annotated[int, typer.Option(help="Seed of the other items whose metadata stands for wrong metadata.")] = 0,
    max_items: Annotated[int, typer.Option(min=10, help="About how many items per source at most; 270 kB of memory each.")] = 20_000,
) -> None:  # fmt: skip
    """Let an encoder distrust metadata that does not fit the picture, by a fit to your own items. It needs no relevance pairs.

    Wrong titles then cost less, and right ones nearly nothing. What is fitted holds for the catalog that it is fitted to.

    Example: tgq calibrate build/calibrated --warehouse warehouse
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.registry.selection import model_folder
    from tgq.spark.session import open_session
    from tgq.training_job.calibration import calibrate_encoder
    from tgq.training_job.job import Source

    if not catalogs and not warehouse:
        raise UsageError("no items to calibrate on were named", "give --warehouse FOLDER, or --catalog FOLDER")
    settings = settings_of(profiles, [*(sets or ()), f"encoder.path={encoder}"], None, warehouse).settings
    with tempfile.TemporaryDirectory(prefix="tgq-calibrate-") as cache:
        sources = [Source.of_catalog(catalog, Path(cache)) for catalog in catalogs or ()]
        sources += [Source.of_warehouse(settings)] if warehouse else []
        spark = open_session(settings)
        try:
            made = calibrate_encoder(spark, out_folder, sources, Path(model_folder(settings)), max_items, seed, ConsoleProgress(err))
        finally:
            spark.stop()
    out.print(f"encoder {made.model_version} in {out_folder}: it tells the metadata of {made.items} items from that of others with AUC {made.auc:.3f}")
    out.print(f"to make it the champion: tgq promote {out_folder} --warehouse ...; to use it once: --set encoder.path={out_folder}", soft_wrap=True)


@commands.command()
def promote(
    candidate: Annotated[str, typer.Argument(metavar="ENCODER", help="Folder that `tgq train` wrote, or `default` for the bundled encoder.")],
    profiles: Profiles = None, sets: Sets = None, catalog: Catalog = None, warehouse: WarehousePath = None, summary: Summary = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be compared on how many queries; write nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Promote even a worse encoder. The promotion is recorded as forced.")] = False,
) -> None:  # fmt: skip
    """Make an encoder the champion if it is not worse than the present one on the validation queries; exit 3 if it is.

    The next nightly run embeds with the champion. If only the query tower changes, search uses the new one at once.

    Example: tgq promote my-encoder --warehouse warehouse --summary promotion.json
    """
    from tgq.cli.tables import promotion_table
    from tgq.evaluation import promotion

    loaded = settings_of(profiles, sets, catalog, warehouse)
    promotion.need_champion(loaded.settings)
    need_warehouse(loaded.settings)
    with opened(loaded, None, begins=False) as night:
        contenders = promotion.contenders_of(night.warehouse.root, candidate)
        if contenders.same:
            out.print(f"model {contenders.names[0]} is already the champion", soft_wrap=True)
            return
        if dry_run:
            for line in promotion.dry_run(night, contenders):
                out.print(line, soft_wrap=True)
            return
        found = promotion.promote(night, contenders, force)
    if found["differences"]:
        out.print(promotion_table(found))
    if summary:
        write_summary(summary, found)
    if refused := promotion.refusal(found):
        raise refused
    for reason in found["reasons"]:
        err.print(f"tgq: promoted by --force although {reason}", style="yellow", markup=False, soft_wrap=True)
    now, before = contenders.names
    out.print(f"the champion is now {now}; {promotion.effect_of(night.warehouse.root, before, now)}", soft_wrap=True)


@commands.command("rollback-model")
def rollback_model(
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Earlier champion as `tgq models` names it, or `default` for the bundled encoder. Default: the previous champion."),
    ] = None,
) -> None:  # fmt: skip
    """Make the previous champion the champion again, or the bundled encoder if there is none.

    If only the query tower changes, search uses the earlier one at once.
    """
    from tgq.evaluation import promotion
    from tgq.registry.champion import read_history
    from tgq.storage.lock import warehouse_lock

    settings = settings_of(profiles, sets, None, warehouse).settings
    promotion.need_champion(settings)
    root = need_warehouse(settings)
    with warehouse_lock(settings.warehouse):
        before = read_history(root).champion
        name = promotion.rollback_model(settings, to)
    out.print(f"the champion is now {name}; {promotion.effect_of(root, before.name if before else name, name)}", soft_wrap=True)


@commands.command()
def models(warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None) -> None:
    """List the promoted encoders; * marks the champion."""
    from tgq.cli.tables import models_table
    from tgq.registry.champion import read_history

    out.print(models_table(read_history(need_warehouse(settings_of(profiles, sets, None, warehouse).settings))))
