"""The training job: it reads items from catalogs or warehouses, runs the towers over them once, trains, and writes an encoder folder.

A catalog folder gets a scratch warehouse in `cache`, which later trainings reuse. The catalog is ingested and its tower features
are cached there by the same steps as in a nightly run. The driver reads the training set, which is a sample of at most
`max_items` per source. OUT/work holds the training set and the checkpoint until the training has ended, so that a repeated
command resumes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pyspark.sql import DataFrame, SparkSession

from tgq.catalog.ingest import ingest
from tgq.embedding.precompute import run_towers
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import TGQFormer
from tgq.encoder.towers.parts import PartsTower
from tgq.enrichment.enrich import enrich, is_enabled
from tgq.errors import SourceError, TgqError, UsageError, WarehouseError
from tgq.inference.device import choose_device
from tgq.registry.tracking import Tracker, open_tracker
from tgq.run.night import Night
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress, repeated
from tgq.run.records import git_commit
from tgq.settings.load import load_settings
from tgq.settings.sections import Settings, TrackingSettings
from tgq.storage.artifacts import remove_folder
from tgq.storage.lock import warehouse_lock
from tgq.storage.paths import absolute
from tgq.storage.warehouse import Warehouse
from tgq.training import worker
from tgq.training.data.dataset import TrainingSet
from tgq.training.trainer import TrainConfig
from tgq.training_job.scene_parts import kept_banks, run_parts
from tgq.training_job.training_set import items_of_side, training_set
from tgq.training_job.view_catalog import view_settings, write_view_catalog

UNLIMITED = 1e6  # GB of cached features in a scratch warehouse, whose size max_items already limits
Launcher = Literal["torchrun", "spark"]


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training."""

    model_version: str
    validation_mrr: float  # the best one
    steps: int  # at the last evaluation


@dataclass(frozen=True)
class Source:
    """A source of training items: a catalog folder with a profile, or a warehouse that is already filled."""

    name: str
    settings: Settings
    scratch: bool  # its warehouse is a scratch warehouse, which the job creates and ingests into

    @classmethod
    def of_catalog(cls, text: str, cache: Path) -> Source:
        """The catalog that a text names: 'FOLDER' or 'FOLDER=PROFILE'. PROFILE is a profile in conf/ or a YAML file.

        Args:
            cache: the folder for scratch warehouses.

        Raises:
            SourceError: the folder does not exist.
            ConfigError: the profile cannot be read.
        """
        path, _, profile = text.partition("=")
        if "://" not in path and not Path(path).expanduser().exists():
            raise SourceError(f"the catalog {path} does not exist", "give --catalog an existing folder or table")
        place = cache / f"{Path(path).stem}-{hashlib.sha256(f'{absolute(path)}={profile}'.encode()).hexdigest()[:8]}"
        sets = {"catalog.path": path, "warehouse.path": str(place), "features.max_gb": UNLIMITED, "tracking.enabled": False}
        overrides = [f"{key}={json.dumps(value)}" for key, value in sets.items()]
        return cls(Path(path).stem, load_settings(["local", *([profile] if profile else [])], overrides).settings, True)

    @classmethod
    def of_warehouse(cls, settings: Settings) -> Source:
        """The warehouse of these settings.

        Raises:
            WarehouseError: the warehouse has no tgq tables.
        """
        root = absolute(settings.warehouse.path)
        if "://" not in root and not settings.warehouse.metastore_schema and not Path(root, "catalog_items").is_dir():
            raise WarehouseError(f"no tgq tables in {root}", "run `tgq nightly` or `tgq ingest` first, or name another --warehouse")
        return cls(Path(settings.warehouse.path).name, settings, False)


def train_encoder(
    spark: SparkSession, out: Path, sources: Sequence[Source], encoder: EncoderConfig, options: TrainConfig, max_items: int,
    tracking_uri: str | None, progress: Progress, processes: int = 1, launcher: Launcher = "torchrun", device: str = "auto",
    views: int = 0, cache: Path | None = None,
) -> TrainingResult:  # fmt: skip
    """Train an encoder on the training groups of the sources and write its folder, with `training.json` next to the weights.

    Args:
        max_items: maximum number of items per source. Above it whole groups are left out, selected by a hash.
        processes: number of processes that share each batch.
        launcher: starts several processes: torchrun on this machine, or Spark's TorchDistributor.
        views: number of views of each item, each under one nuisance, that are additional positives of the item. Each view costs a
            pass of the vision tower.
        cache: folder that keeps the views' images and features for later trainings; None: they are deleted with OUT/work.

    Raises:
        SourceError: a source cannot be read, or has no pairs of items.
        UsageError: the folder `out` already holds an encoder.
        ModelError: a tower is missing, scenes are wanted of a tower whose scenes cannot be composed, or the checkpoint in `out` was
            written with another configuration or other data.
        TgqError: the loss is infinite or not a number, or a training process failed.
    """
    if (out / "config.json").exists():
        raise UsageError(f"{out} already holds an encoder", "name another folder")
    work, torch_device = out / "work", str(choose_device(device))
    torch.manual_seed(options.seed)
    model = TGQFormer(encoder)
    parts = PartsTower(model.vision).fingerprint if options.scene_share else None
    tracker = open_tracker(TrackingSettings(uri=tracking_uri, experiment="tgq-training"), str(out))
    run_id = new_run_id(datetime.now(timezone.utc))
    tracker.start(run_id, {"git_commit": git_commit(), "sources": ", ".join(source.name for source in sources)})
    with _failed_on_error(tracker):
        model.save_pretrained(work / "start")
        view_options = ViewOptions(views, options.seed, cache or work / "catalogs", model.vision.input_size) if views else None
        sets = [read_source(spark, source, model, work / "start", run_id, max_items, options.seed, progress, views=view_options, parts=parts)
                for source in sources]  # fmt: skip
        rows = TrainingSet.concatenate([rows for of_source in sets for rows in of_source])
        if parts:
            rows = replace(rows, banks=kept_banks(model, progress))
        tracker.log_params({f"encoder.{k}": v for k, v in asdict(encoder).items()} | {f"train.{k}": v for k, v in asdict(options).items()})
        worker.prepare(work, encoder, options, rows, torch_device)
        with curve_reported(work, options, tracker, progress):
            launch(work, processes, launcher, spark, torch_device)
        return _finish(out, work, rows, sources, max_items, options, tracker, progress)


@dataclass(frozen=True)
class ViewOptions:
    """The views that are made of each item."""

    count: int  # views per item
    seed: int
    folder: Path  # for view catalogs and their warehouses
    side: int  # pixels per side of the vision tower's input

    def write(self, source: Source, night: Night, items: DataFrame) -> Source:
        """Write the views of the items as a catalog and return it as a source."""
        place = (self.folder / f"{source.name}-views-{self.count}-{self.seed}").resolve()
        write_view_catalog(night, items, str(place / "catalog"), self.count, self.seed, self.side)
        return Source(f"{source.name}-views", view_settings(source.settings, str(place / "catalog"), str(place / "warehouse"), UNLIMITED), True)


def read_source(
    spark: SparkSession, source: Source, model: TGQFormer, model_folder: Path, run_id: str, max_items: int | None, seed: int, progress: Progress,
    side: str = "train", views: ViewOptions | None = None, parts: str | None = None, pairs: bool = True,
) -> list[TrainingSet]:  # fmt: skip
    """The items of one side of a source as a training set, then their views as another.

    A scratch warehouse is ingested first, and enriched if the source's settings enable it. The towers run on items without cached
    features. With `parts`, a PartsTower's fingerprint, the sets have parts of scenes, for which the vision tower runs over pictures
    without cached parts.

    Raises:
        SourceError: the source cannot be read, or has no pairs of items on that side.
    """
    settings, view_source = source.settings, None
    if source.scratch:
        Path(settings.warehouse.path).mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(spark, settings.warehouse, create=source.scratch)
    with warehouse_lock(settings.warehouse):
        night = Night(spark, settings, warehouse, f"train-{run_id}", datetime.now(timezone.utc), progress)
        if source.scratch:
            ingest(night)
            if is_enabled(settings):
                enrich(night)
        items = items_of_side(night, side, max_items, pairs)
        encoded = run_towers(night, str(model_folder), items)
        if parts:
            run_parts(night, str(model_folder), items, parts)
        rows = training_set(night, model, str(model_folder), items, source.name, seed, parts)
        if views:
            view_source = views.write(source, night, items)
        remove_folder(night.staging())
    progress.say(f"{source.name}: {len(rows)} items in {len(set(rows.group.tolist()))} {side} groups, {len(rows.pairs)} pairs; towers ran for {encoded}")
    return [rows, *(read_source(spark, view_source, model, model_folder, run_id, None, seed, progress, side, parts=parts) if view_source else ())]


def launch(work: Path, processes: int, launcher: Launcher, spark: SparkSession, device: str) -> None:
    """Run the training in folder `work`, which `worker.prepare` wrote, in this process or in several.

    Raises:
        TgqError: one of several processes failed; the message ends with the last error that it printed.
    """
    if processes == 1:
        worker.run(work)
    elif launcher == "spark":
        from pyspark.ml.torch.distributor import TorchDistributor

        local = (spark.sparkContext.master or "").startswith("local")
        try:
            TorchDistributor(num_processes=processes, local_mode=local, use_gpu=device.startswith("cuda")).run(worker.run, str(work))
        except RuntimeError as error:
            raise TgqError(f"the training's processes failed: {_reason(str(error))}", "see the output above for details") from None
    else:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run([*run, "-m", "tgq.training.worker", str(work)], capture_output=True, text=True, check=False, env=os.environ | threads)
        if done.returncode:
            raise TgqError(f"the training's processes failed: {_reason(done.stderr)}", "train with --processes 1 to see the whole error")


def _reason(text: str) -> str:
    """The last error that a failed group of processes printed."""
    lines = [line.strip() for line in text.splitlines() if "Error" in line and "ChildFailed" not in line]
    return (lines or text.strip().splitlines() or ["no message"])[-1].rpartition("]:")[2].strip()[:300]


@contextlib.contextmanager
def curve_reported(work: Path, config: TrainConfig, tracker: Tracker, progress: Progress) -> Iterator[None]:
    """Show the training curve on the progress bar and log it to MLflow while the body runs.

    The curve is the file that the first process writes. A training that fails has logged its curve up to the failure.
    """
    alone = f"{config.base_steps} steps of the linear base alone, " if config.base_steps else ""
    progress.say(f"the closed-form initialisation, {alone}then {config.steps} gradient steps")  # the first two take minutes on large sets and log no curve
    progress.start("train", config.steps)
    logged = 0

    def show() -> None:
        nonlocal logged
        curve = worker.read_curve(work)
        for values in curve[logged:]:
            tracker.log_metrics({name: value for name, value in values.items() if name != "step"}, int(values["step"]))
        logged = len(curve)
        if curve:
            values = curve[-1]
            loss = f"loss {values['loss']:.3f}, " if "loss" in values else ""
            progress.update(int(values["step"]), f"{loss}validation MRR {values['validation_mrr']:.4f}")

    try:
        with repeated(show, seconds=1.0):
            yield
    finally:
        progress.finish()


def _finish(
    out: Path, work: Path, rows: TrainingSet, sources: Sequence[Source], max_items: int, options: TrainConfig, tracker: Tracker, progress: Progress,
) -> TrainingResult:  # fmt: skip
    """Write the encoder folder and `training.json`, log both to MLflow, and delete the work folder."""
    history, model = worker.read_curve(work), TGQFormer.from_pretrained(work / worker.RESULT)
    best = max(history, key=lambda values: values["validation_mrr"])
    record: dict[str, Any] = {
        "model_version": model.model_version, "sources": [source.name for source in sources], "items": len(rows),
        "groups": len(set(zip(rows.catalog.tolist(), rows.group.tolist(), strict=True))), "pairs": len(rows.pairs), "max_items": max_items,
        "gflops_per_item": round(gflops(model), 3), "training": asdict(options),
        # The key keeps its old name: the values at step 0, after the initialisation.
        "start": {name: value for name, value in history[0].items() if name != "step"}, "best": best,
    }  # fmt: skip
    tracker.log_metrics({"gflops_per_item": record["gflops_per_item"]})
    tracker.log_tags({"model_version": model.model_version})
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    model.save_pretrained(out)
    for name in ("config.json", "model.safetensors", "training.json"):
        tracker.log_artifact(out / name, "encoder")
    tracker.finish()
    for problem in tracker.problems:
        progress.say(f"MLflow: {problem}")
    shutil.rmtree(work)
    return TrainingResult(model.model_version, best["validation_mrr"], int(history[-1]["step"]))


def gflops(model: TGQFormer) -> float:
    """Floating-point operations for one item, from pixels to embedding, in 10^9. torch counts them, a multiply-add as two."""
    from torch.utils.flop_counter import FlopCounterMode

    text, blank = "a text of some words | of a brand | in a category", Image.new("RGB", (64, 64))
    counter = FlopCounterMode(display=False)
    with counter:  # not under no_grad: torch's counter fails there on modules whose parameters require gradients
        model.eval()(model.features(model.encode_image(model.vision.preprocess(blank)[None]), torch.tensor([0]), [text], [text]))
    return counter.get_total_flops() / 1e9


@contextlib.contextmanager
def _failed_on_error(tracker: Tracker) -> Iterator[None]:
    """Mark the MLflow run as failed if the body raises."""
    try:
        yield
    except BaseException:
        tracker.finish("FAILED")
        raise
