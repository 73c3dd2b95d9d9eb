"""Training as a job: the catalogs' train groups through the frozen towers once, then the trainer, then an encoder folder.

It runs in one process and reads its rows on the driver: a training set is a sample (`max_items`), not the catalog. Memory is
125 kB per picture with the default towers; time is the towers' once per picture (kept in `cache`), then some 0.4 s per batch
on two cores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq import config
from tgq.config import Settings, TrackingSettings
from tgq.encoder.images import ImageError, ImageLimits, decode_image
from tgq.encoder.model import EncoderConfig, TGQFormer
from tgq.errors import SourceError, UsageError
from tgq.pipeline.fetch import Fetcher
from tgq.pipeline.night import Progress, git_commit, new_run_id
from tgq.pipeline.pairs import split_of as split_column
from tgq.pipeline.sources import Location, fetch_options, locate, read_source, readable_fields
from tgq.tracking import open_tracker
from tgq.training.dataset import Row, TrainingSet
from tgq.training.split import split_of
from tgq.training.train import TrainConfig, train

CURVES = ("loss", "info_nce", "redundancy", "alignment", "relation", "scale", "gate_metadata", "gate_exploratory", "validation_mrr")


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    model_version: str
    validation_mrr: float
    steps: int


def train_encoder(
    spark: SparkSession, out: Path, catalogs: Sequence[str], encoder: EncoderConfig, options: TrainConfig, max_items: int, cache: Path | None,
    tracking_uri: str | None, progress: Progress,
) -> Trained:  # fmt: skip
    """Train an encoder on the train groups of some catalogs and write its folder, with `training.json` beside the weights.

    Args:
        catalogs: 'FOLDER' or 'FOLDER=PROFILE', the profile one of conf/ or a YAML file.
        max_items: of each catalog; above it whole groups are left out, by their hash.

    Raises:
        ConfigError, SourceError: a profile or catalog cannot be read, or has no groups.
        UsageError: the folder `out` holds an encoder already.
    """
    if (out / "config.json").exists():
        raise UsageError(f"{out} already holds an encoder", "name another folder")
    wanted = [(name, *_parse(name)) for name in catalogs]
    loaded = [config.load(["local", *([profile] if profile else [])], [f"catalog.path={json.dumps(path)}"]).settings for _, path, profile in wanted]
    torch.manual_seed(options.seed)
    model = TGQFormer(encoder)
    tracker = open_tracker(TrackingSettings(uri=tracking_uri, experiment="tgq-training"), str(out))
    tracker.start(new_run_id(datetime.now(timezone.utc)), {"git_commit": git_commit(), "catalogs": ", ".join(catalogs)})
    parts = []
    for (name, path, _), settings in zip(wanted, loaded, strict=True):
        rows = list(grouped_rows(spark, settings, Path(path).stem, max_items))
        progress.say(f"{name}: {len(rows)} items in {len({row.group for row in rows})} train groups")
        parts.append(through_towers(model, rows, settings, options.seed, cache, progress))
    rows = TrainingSet.concatenate(parts)
    progress.start("train", options.steps)

    def log(step: int, values: dict[str, float]) -> None:
        tracker.log_metrics({name: values[name] for name in CURVES if name in values}, step)
        loss = f"loss {values['loss']:.3f}, " if "loss" in values else ""
        progress.update(step, f"{loss}validation MRR {values['validation_mrr']:.4f}")

    history = train(model, rows, options, log)
    progress.finish()
    model.save_pretrained(out)
    best = max(history, key=lambda values: values["validation_mrr"])
    record = {
        "model_version": model.model_version, "catalogs": [_shown(name) for name in catalogs], "items": len(rows),
        "groups": len(set(zip(rows.catalog.tolist(), rows.group.tolist(), strict=True))), "max_items": max_items,
        "training": asdict(options), "best": best,
    }  # fmt: skip
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    tracker.log_params({f"encoder.{k}": v for k, v in asdict(encoder).items()} | {f"train.{k}": v for k, v in asdict(options).items()})
    tracker.log_tags({"model_version": model.model_version})
    for name in ("config.json", "model.safetensors", "training.json"):
        tracker.log_artifact(out / name, "encoder")
    tracker.finish()
    for problem in tracker.problems:
        progress.say(f"MLflow: {problem}")
    return Trained(model.model_version, best["validation_mrr"], int(history[-1]["step"]))


def grouped_rows(spark: SparkSession, settings: Settings, catalog: str, max_items: int, side: str = "train") -> Iterator[Row]:
    """The rows of a catalog's groups on one side, pictures as bytes, in the order of their ids; none of the other side ever.

    Raises:
        SourceError: there is no group column, or no group on that side.
    """
    location = locate(spark, settings.catalog)
    source = read_source(spark, settings.catalog, location)
    grouped = source.where("group_id IS NOT NULL AND item_id IS NOT NULL")
    share, count = _share(grouped, max_items, settings.pairs.test_share, side)
    if not count:
        raise SourceError(f"{settings.catalog.path} has no groups on the {side} side", "name the column of groups in catalog.columns.group_id")
    fetcher = Fetcher(fetch_options(location.folder, settings.images))
    for row in grouped.orderBy("item_id").toLocalIterator():
        group = row["group_id"]
        if split_of(group, settings.pairs.test_share) != side or split_of(f"{group}:kept", share) == "train":
            continue
        fields = readable_fields(row.asDict(), settings.metadata)
        yield Row(
            group, _picture(row, location, fetcher), fields["title"] or "", fields["brand"] or "", fields["category"] or "",
            fields["attributes"] or {}, row["variant_id"] or "", catalog, row["item_id"],
        )  # fmt: skip


def _share(grouped: DataFrame, max_items: int, test_share: float, side: str) -> tuple[float, int]:
    """(share of the side's groups that fit the limit, rows in them)."""
    count = grouped.where(split_column(F.col("group_id"), test_share) == side).count()
    return min(1.0, max_items / max(count, 1)), count


def _picture(row, location: Location, fetcher: Fetcher) -> bytes | None:
    if row["image_bytes"] is not None:
        return bytes(row["image_bytes"])
    if row["image_uri"] is None:
        return None
    try:
        return fetcher.read(location.resolve(row["image_uri"]))
    except ImageError:
        return None  # the night quarantines it with its reason; training goes on with the words


def through_towers(
    model: TGQFormer, rows: list[Row], settings: Settings, seed: int, cache: Path | None, progress: Progress
) -> TrainingSet:
    """The rows' tower features, from the cache where the same towers saw the same rows before."""
    digest = hashlib.sha256(f"{model.vision.fingerprint}{model.text.fingerprint}{seed}".encode())
    for row in rows:
        digest.update(hashlib.sha256(row.image or b"").digest())
        digest.update(repr((row.group, row.title, row.brand, row.category, sorted(row.attributes.items()), row.variant, row.catalog, row.item)).encode())
    path = cache and cache / f"{digest.hexdigest()[:24]}.npz"
    if path and path.exists():
        return TrainingSet.load(path)
    limits = ImageLimits(max_bytes=settings.images.max_bytes, max_pixels=settings.images.max_pixels)
    progress.start("towers", len(rows))

    def counted() -> Iterator[Row]:
        for number, row in enumerate(rows, start=1):
            yield row
            progress.update(number)

    made = TrainingSet.build(model, counted(), lambda data: decode_image(data, limits, model.vision.input_size), seed)
    progress.finish()
    if path:
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        made.save(partial)
        partial.replace(path)
    return made


def _parse(name: str) -> tuple[str, str | None]:
    path, _, profile = name.partition("=")
    return path, profile or None


def _shown(name: str) -> str:
    path, profile = _parse(name)
    return Path(path).name + (f"={profile}" if profile else "")
