"""Commands for the query tower: train-queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tgq.cli.options import Profiles, Sets, WarehousePath, err, need_warehouse, out, settings_of
from tgq.errors import UsageError
from tgq.settings.load import dataclass_of

commands = typer.Typer()


@commands.command("train-queries")
def train_queries(
    out_folder: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the encoder with its query tower.")],
    warehouse: WarehousePath = None, profiles: Profiles = None, sets: Sets = None,
    text: Annotated[
        str | None, typer.Option(help="Text checkpoint: a folder, a Hugging Face name or all-minilm-l6-v2. Default: that of the encoder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches in each stage.")] = None,
    max_items: Annotated[int, typer.Option(min=10, help="Items held in memory at most, 10 kB each: those that queries are judged for, and others.")] = 30_000,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow tracking URI. Default: a sqlite file in OUT.")] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting of the training, e.g. trained_layers=2 or stages=domain,fusion; repeatable.")
    ] = None,
    help_options: Annotated[bool, typer.Option("--help-options", help="List the keys of --option with their defaults, and exit.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would be trained on; write nothing.")] = False,
) -> None:  # fmt: skip
    """Train a query tower: it maps what shoppers type into the space of the item embeddings, which stay as they are.

    The warehouse needs embeddings of the encoder (`tgq nightly`). It is trained on the judged queries of the train split, if there are any
    (settings `queries`), and on queries generated from titles and attributes. OUT is the encoder with the tower.
    With --option joint=true the items' fusion is trained too: OUT is then another item model, and the next night embeds all items again.

    Example: tgq train-queries with-queries --warehouse warehouse

    Example: tgq train-queries with-queries --warehouse warehouse --option trained_layers=2 --option steps=300
    """
    from tgq.cli.console import ConsoleProgress
    from tgq.cli.tables import table
    from tgq.query_training.config import QueryTrainConfig
    from tgq.registry.selection import champion_of, with_encoder
    from tgq.spark.session import open_session
    from tgq.training_job.query_job import planned, train_query_tower

    if help_options:
        rows = [[name, f.default] for name, f in QueryTrainConfig.__dataclass_fields__.items()]
        out.print(table("--option", ["key", "default"], rows, numeric_from=99))
        return
    how = dataclass_of(QueryTrainConfig, [f"seed={seed}", *([f"steps={steps}"] if steps else []), *(option or ())], "--option")
    settings = settings_of(profiles, sets, None, warehouse).settings
    need_warehouse(settings)
    if (out_folder / "config.json").exists():
        raise UsageError(f"{out_folder} already holds an encoder", "name another folder")
    settings = with_encoder(settings, champion_of(settings))
    spark = open_session(settings)
    try:
        if dry_run:
            for line in planned(spark, settings):
                out.print(line, soft_wrap=True)
            return
        result = train_query_tower(spark, settings, out_folder, text, how, max_items, tracking_uri, ConsoleProgress(err), device)
    finally:
        spark.stop()
    out.print(f"query tower {result.version} of encoder {result.model_version} in {out_folder}: "
              f"validation NDCG@10 {result.best_ndcg:.4f}, {result.start_ndcg:.4f} after the closed-form start", soft_wrap=True)  # fmt: skip
    out.print(f"to make it the champion: tgq promote {out_folder} --warehouse ...; to use it once: --set encoder.path={out_folder}", soft_wrap=True)
