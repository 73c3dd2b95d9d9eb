"""Commands for generated attributes: train-attributes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tgq.cli.options import Profiles, Sets, err, out, settings_of
from tgq.errors import UsageError
from tgq.settings.load import dataclass_of

commands = typer.Typer()


@commands.command("train-attributes")
def train_attributes(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the attribute heads.")],
    catalogs: Annotated[list[str] | None, typer.Option("--catalog", help="Catalog to train on: FOLDER or FOLDER=PROFILE; repeatable.")] = None,
    warehouse: Annotated[str | None, typer.Option(help="Warehouse to train on, filled by `tgq nightly` or `tgq ingest`.")] = None,
    profiles: Profiles = None, sets: Sets = None,
    encoder: Annotated[
        str | None,
        typer.Option(help="Encoder whose frozen features are read: a folder, or `default` for the bundled one. Default: the warehouse's champion."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    precision: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Wanted share of generated values that are right; what is less sure is not said.")
    ] = 0.9,
    max_items: Annotated[
        int | None,
        typer.Option(min=10, help="About how many items per source at most. Default: 50000 of 4 kB of memory each, with --reinforce 5000 of 270 kB each."),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the training, e.g. min_items=20 or steps=1000; repeatable.")
    ] = None,
    reinforce: Annotated[
        bool, typer.Option("--reinforce", help="Reinforce the trained heads: they learn to say what helps to find related items. Needs relevance pairs.")
    ] = False,
    reinforce_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the reinforcement, e.g. steps=200 or samples=16; repeatable.")
    ] = None,
    language_model: Annotated[
        str | None,
        typer.Option(help="With --reinforce: reinforce this language model in place of the heads: a folder, a hub name or the name of a bundled model. "
                          "Needs `pip install 'tgq[reinforce]'`."),
    ] = None,
    help_options: Annotated[bool, typer.Option("--help-options", help="List the keys of these options with their defaults, and exit.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print which attributes and values would be learned; run no model and write nothing.")] = False,
) -> None:  # fmt: skip
    """Train attribute heads: they tell from an item's picture and texts the attributes that its shop left out.

    They learn the attributes that are frequent in your catalog from the items that state them. For each key the command prints, on items of groups that
    were left out: how many of the most likely values are the stated ones, for which share of the items a value is said, and how many of these are right.

    With --reinforce the encoder stays as it is, and the reward of what is said of an item is the recall of its related items (GRPO). Groups that are left out
    judge it; if it does not help there, the heads stay as they were.

    With --language-model the language model is reinforced, by a low-rank adapter that is merged into a copy of it. Device, precision and the longest answer
    are those of the settings: encoder.device, encoder.dtype, enrich.text.local.batch and enrich.text.answer_tokens. --reinforce-option warm_up=200
    first teaches it, in so many steps, to answer with the attributes that the shop states: a small model needs that to answer with JSON at all.

    Then name the folder: --set enrich.attributes.source=heads --set enrich.attributes.folder=OUT. The command prints what to set for a language model.

    Example: tgq train-attributes attribute-heads --warehouse warehouse --dry-run

    Example: tgq train-attributes attribute-heads --catalog demo=catalogs/demo --precision 0.95

    Example: tgq train-attributes reinforced --catalog demo=catalogs/demo --reinforce --language-model models/instruct --reinforce-option warm_up=200
    """
    from tgq.attributes.reinforce import ReinforceConfig
    from tgq.attributes.reinforce_model import ModelPoint, ModelReinforceConfig, need_model
    from tgq.attributes.training import AttributeTrainConfig
    from tgq.cli.console import ConsoleProgress
    from tgq.cli.tables import attribute_table, table
    from tgq.refinement.generators.local import LocalModel
    from tgq.registry.champion import DEFAULT
    from tgq.registry.selection import model_folder
    from tgq.spark.session import open_session
    from tgq.training_job import attribute_job
    from tgq.training_job.job import Source

    if help_options:
        with_model = "--reinforce-option with --language-model"
        for kind, flag in ((AttributeTrainConfig, "--option"), (ReinforceConfig, "--reinforce-option"), (ModelReinforceConfig, with_model)):
            out.print(table(flag, ["key", "default"], [[name, f.default] for name, f in kind.__dataclass_fields__.items()], numeric_from=99))
        return
    if not catalogs and not warehouse:
        raise UsageError("no items to train on were named", "give --warehouse FOLDER, or --catalog FOLDER")
    how = dataclass_of(AttributeTrainConfig, [f"seed={seed}", f"precision={precision}", *(option or ())], "--option")
    further = dataclass_of(ModelReinforceConfig if language_model else ReinforceConfig, [f"seed={seed}", *(reinforce_option or ())], "--reinforce-option")
    if reinforce_option and not reinforce:
        raise UsageError("--reinforce-option is given without --reinforce", "add --reinforce, or leave it out")
    if language_model and not reinforce:
        raise UsageError("--language-model is given without --reinforce", "add --reinforce, or leave it out")
    attribute_job.need_new(out_folder)
    most = max_items or (5_000 if reinforce else 50_000)
    chosen = encoder or (None if warehouse else DEFAULT)
    settings = settings_of(profiles, [*(sets or ()), *([f"encoder.path={chosen}"] if chosen else [])], None, warehouse).settings
    text, local = settings.enrich.text, None
    if language_model:
        local = LocalModel(language_model, settings.encoder.device, settings.encoder.dtype, text.local.batch, text.answer_tokens)
        need_model(local)
    with tempfile.TemporaryDirectory(prefix="tgq-attributes-") as cache:
        sources = [Source.of_catalog(catalog, Path(cache)) for catalog in catalogs or ()]
        sources += [Source.of_warehouse(settings)] if warehouse else []
        spark = open_session(settings)
        try:
            if dry_run:
                for line in attribute_job.planned(spark, sources, how, most, ConsoleProgress(err)):
                    out.print(line, soft_wrap=True)
                if isinstance(further, ModelReinforceConfig):
                    out.print(f"{language_model}: {further.warm_up} supervised steps, "
                              f"then {further.steps} steps of {further.items} items with {further.samples} answers each", soft_wrap=True)
                return
            made = attribute_job.train_attributes(
                spark, out_folder, sources, model_folder(settings), how, most, ConsoleProgress(err), further if reinforce else None, local
            )
        finally:
            spark.stop()
    out.print(attribute_table(made.figures, made.values))
    if made.reinforced:
        first, best = made.reinforced.curve[0], next(p for p in made.reinforced.curve if p.step == made.reinforced.step)
        out.print(f"reinforced to step {best.step}: recall@{made.k} of left-out items {first.held_out_recall:.4f} -> {best.held_out_recall:.4f}, "
                  f"values said of an item {first.held_out_length:.2f} -> {best.held_out_length:.2f}", soft_wrap=True)  # fmt: skip
        if isinstance(first, ModelPoint) and isinstance(best, ModelPoint):
            if first.step < 0 and isinstance(supervised := made.reinforced.curve[1], ModelPoint):
                out.print(f"after the warm-up: recall@{made.k} {supervised.held_out_recall:.4f}, values {supervised.held_out_length:.2f}, "
                          f"no JSON object {supervised.held_out_invalid:.0%}", soft_wrap=True)  # fmt: skip
            out.print(f"answers that are no JSON object: {first.held_out_invalid:.0%} -> {best.held_out_invalid:.0%}", soft_wrap=True)
    out.print(f"attribute heads {made.version} in {out_folder}, trained on {made.items} items", soft_wrap=True)
    out.print(f"to use them: --set enrich.attributes.source=heads --set enrich.attributes.folder={out_folder}", soft_wrap=True)
    if local:
        model = out_folder / attribute_job.LANGUAGE_MODEL
        out.print(f"to use the language model: --set enrich.attributes.source=model --set enrich.attributes.folder={out_folder} "
                  f"--set enrich.text.local.model={model}", soft_wrap=True)  # fmt: skip
