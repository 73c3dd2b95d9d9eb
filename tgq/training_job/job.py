"""Training as a job: items of some catalogs or warehouses, the towers over them once, then the trainer, then an encoder folder.

A catalog that is named by its folder gets a scratch warehouse (in `cache`, kept for the next training): it is ingested and its
towers' features are kept there by the same steps as in a night. The training set itself is read on the driver and is a
sample (`max_items`); it lies in OUT/work until the training has ended, with the checkpoint that a repeated command goes on from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from pyspark.sql import DataFrame, SparkSession

from tgq.catalog.ingest import ingest
from tgq.embedding.precompute import run_towers
from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.errors import SourceError, TgqError, UsageError, WarehouseError
from tgq.inference.device import choose_device
from tgq.registry.tracking import Tracker, open_tracker
from tgq.run.night import Night
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress
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
from tgq.training_job.training_set import items_of_side, training_set
from tgq.training_job.view_catalog import view_settings, write_view_catalog

UNLIMITED = 1e6  # GB: a scratch warehouse keeps the features of what is trained on, which max_items bounds
Launcher = Literal["torchrun", "spark"]


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    model_version: str
    validation_mrr: float
    steps: int


@dataclass(frozen=True)
class Source:
    """Items to train on: a catalog's folder with a profile, or a warehouse that has been ingested already."""

    name: str
    settings: Settings
    scratch: bool

    @classmethod
    def of_catalog(cls, text: str, cache: Path) -> Source:
        """'FOLDER' or 'FOLDER=PROFILE', the profile one of conf/ or a YAML file.

        Raises:
            SourceError: there is no such folder.
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
        """The warehouse that some settings name.

        Raises:
            WarehouseError: no night has filled it.
        """
        root = absolute(settings.warehouse.path)
        if "://" not in root and not settings.warehouse.metastore_schema and not Path(root, "catalog_items").is_dir():
            raise WarehouseError(f"no tgq tables in {root}", "run `tgq nightly` or `tgq ingest` first, or name another --warehouse")
        return cls(Path(settings.warehouse.path).name, settings, False)


def train_encoder(
    spark: SparkSession, out: Path, sources: Sequence[Source], encoder: EncoderConfig, options: TrainConfig, max_items: int,
    tracking_uri: str | None, progress: Progress, processes: int = 1, launcher: Launcher = "torchrun", device: str = "auto",
    views: int = 0, cache: Path | None = None,
) -> Trained:  # fmt: skip
    """Train an encoder on the train side of some sources and write its folder, with `training.json` beside the weights.

    Args:
        max_items: of each source; above it whole groups are left out, by their hash.
        processes: how many share each batch, started by torchrun on this machine or by Spark's TorchDistributor.
        views: of each item, under as many nuisances, as positives beside the item; each costs a pass of the vision tower.
        cache: where the views' pictures and features are kept for the next training; none: they go with `out`'s work folder.

    Raises:
        SourceError: a source cannot be read, or has no pairs of items.
        UsageError: the folder `out` holds an encoder already.
        ModelError: a tower is missing, or the checkpoint in `out` is of another configuration.
        TgqError: the loss is no number.
    """
    if (out / "config.json").exists():
        raise UsageError(f"{out} already holds an encoder", "name another folder")
    work, place = out / "work", str(choose_device(device))
    torch.manual_seed(options.seed)
    model = TGQFormer(encoder)
    tracker = open_tracker(TrackingSettings(uri=tracking_uri, experiment="tgq-training"), str(out))
    run_id = new_run_id(datetime.now(timezone.utc))
    tracker.start(run_id, {"git_commit": git_commit(), "sources": ", ".join(source.name for source in sources)})
    with _failing(tracker):
        model.save_pretrained(work / "start")
        made = Views(views, options.seed, cache or work / "catalogs", model.vision.input_size) if views else None
        rows = TrainingSet.concatenate([part for source in sources for part in
                                        read_source(spark, source, model, work / "start", run_id, max_items, options.seed, progress, views=made)])
        tracker.log_params({f"encoder.{k}": v for k, v in asdict(encoder).items()} | {f"train.{k}": v for k, v in asdict(options).items()})
        worker.prepare(work, encoder, options, rows, place)
        with following(work, options.steps, tracker, progress):
            launch(work, processes, launcher, spark, place)
        return _finish(out, work, rows, sources, max_items, options, tracker, progress)


@dataclass(frozen=True)
class Views:
    """How many views of each item to make, drawn by which seed, kept where, for a tower of how many pixels a side."""

    count: int
    seed: int
    folder: Path
    side: int

    def source_of(self, source: Source, night: Night, items: DataFrame) -> Source:
        """Write the views of some items; the source that they are."""
        place = (self.folder / f"{source.name}-views-{self.count}-{self.seed}").resolve()
        write_view_catalog(night, items, str(place / "catalog"), self.count, self.seed, self.side)
        return Source(f"{source.name}-views", view_settings(source.settings, str(place / "catalog"), str(place / "warehouse"), UNLIMITED), True)


def read_source(
    spark: SparkSession, source: Source, model: TGQFormer, start: Path, run_id: str, max_items: int | None, seed: int, progress: Progress,
    side: str = "train", views: Views | None = None,
) -> list[TrainingSet]:  # fmt: skip
    """One source's items of one side, then their views: ingested where it is a catalog, through the towers where they have not spoken."""
    settings, more = source.settings, None
    if source.scratch:
        Path(settings.warehouse.path).mkdir(parents=True, exist_ok=True)
    warehouse = Warehouse(spark, settings.warehouse, create=source.scratch)
    with warehouse_lock(warehouse.root):
        night = Night(spark, settings, warehouse, f"train-{run_id}", datetime.now(timezone.utc), progress)
        if source.scratch:
            ingest(night)
        items = items_of_side(night, side, max_items)
        asked = run_towers(night, str(start), items)
        rows = training_set(night, model, str(start), items, source.name, seed)
        if views:
            more = views.source_of(source, night, items)
        remove_folder(night.staging())
    progress.say(f"{source.name}: {len(rows)} items in {len(set(rows.group.tolist()))} {side} groups, {len(rows.pairs)} pairs; towers ran for {asked}")
    return [rows, *(read_source(spark, more, model, start, run_id, None, seed, progress, side) if more else ())]


def launch(work: Path, processes: int, launcher: Launcher, spark: SparkSession, device: str) -> None:
    """Run the prepared training in this process, or in several.

    Raises:
        TgqError: one of several processes failed; its last line says why.
    """
    if processes == 1:
        worker.run(work)
    elif launcher == "spark":
        from pyspark.ml.torch.distributor import TorchDistributor

        local = spark.sparkContext.master.startswith("local")
        try:
            TorchDistributor(num_processes=processes, local_mode=local, use_gpu=device.startswith("cuda")).run(worker.run, str(work))
        except RuntimeError as error:
            raise TgqError(f"the training's processes failed: {_reason(str(error))}", "see the lines above it") from None
    else:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run([*run, "-m", "tgq.training.worker", str(work)], capture_output=True, text=True, check=False, env=os.environ | threads)
        if done.returncode:
            raise TgqError(f"the training's processes failed: {_reason(done.stderr)}", "train with --processes 1 to see it whole")


def _reason(text: str) -> str:
    """The last error that a failed group of processes printed."""
    lines = [line.strip() for line in text.splitlines() if "Error" in line and "ChildFailed" not in line]
    return (lines or text.strip().splitlines() or ["no message"])[-1].rpartition("]:")[2].strip()[:300]


@contextlib.contextmanager
def following(work: Path, steps: int, tracker: Tracker, progress: Progress) -> Iterator[None]:
    """A bar and MLflow's curve, which follow the one that the first process writes: a training that fails leaves what it had."""
    progress.say(f"the closed-form start, then {steps} gradient steps")  # the start is minutes on large sets, without a curve to follow
    progress.start("train", steps)
    ended, told = threading.Event(), 0

    def follow() -> None:
        while not ended.wait(1.0):
            show()

    def show() -> None:
        nonlocal told
        curve = worker.read_curve(work)
        for values in curve[told:]:
            tracker.log_metrics({name: value for name, value in values.items() if name != "step"}, int(values["step"]))
        told = len(curve)
        if curve:
            values = curve[-1]
            loss = f"loss {values['loss']:.3f}, " if "loss" in values else ""
            progress.update(int(values["step"]), f"{loss}validation MRR {values['validation_mrr']:.4f}")

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()
        progress.finish()


def _finish(
    out: Path, work: Path, rows: TrainingSet, sources: Sequence[Source], max_items: int, options: TrainConfig, tracker: Tracker, progress: Progress,
) -> Trained:  # fmt: skip
    """Move the encoder to its place, say what made it, tell MLflow, and clear the work away; the configuration comes last."""
    history, model = worker.read_curve(work), TGQFormer.from_pretrained(work / worker.RESULT)
    best = max(history, key=lambda values: values["validation_mrr"])
    record = {
        "model_version": model.model_version, "sources": [source.name for source in sources], "items": len(rows),
        "groups": len(set(zip(rows.catalog.tolist(), rows.group.tolist(), strict=True))), "pairs": len(rows.pairs), "max_items": max_items,
        "gflops_per_item": round(gflops(model), 3), "training": asdict(options),
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
    return Trained(model.model_version, best["validation_mrr"], int(history[-1]["step"]))


def gflops(model: TGQFormer) -> float:
    """Floating-point operations of one item from pixels to embedding, in 10^9, counted by torch (two for a multiply-add)."""
    from torch.utils.flop_counter import FlopCounterMode

    text, blank = "a text of some words | of a brand | in a category", Image.new("RGB", (64, 64))
    counter = FlopCounterMode(display=False)
    with counter:  # torch's counter cannot follow a module whose parameters want gradients into a pass without them
        model.eval()(model.features(model.encode_image(model.vision.preprocess(blank)[None]), torch.tensor([0]), [text], [text]))
    return counter.get_total_flops() / 1e9


@contextlib.contextmanager
def _failing(tracker: Tracker) -> Iterator[None]:
    try:
        yield
    except BaseException:
        tracker.finish("FAILED")
        raise
