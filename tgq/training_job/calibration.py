"""Calibration: fits an encoder's trust in metadata to a shop's own items, without relevance pairs and without gradient steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pyspark.sql import SparkSession

from tgq.encoder.model import TGQFormer
from tgq.errors import UsageError
from tgq.run.opening import new_run_id
from tgq.run.progress import Progress
from tgq.training.data.dataset import TrainingSet
from tgq.training.reliability import calibrated
from tgq.training_job.job import Source, read_source


@dataclass(frozen=True)
class Calibration:
    """The result of a calibration.

    Attributes:
        model_version: of the new encoder.
        items: that it was fitted to.
        auc: how well it tells an item's own metadata from another item's, as area under the ROC curve, on items that it was not fitted to.
    """

    model_version: str
    items: int
    auc: float


def calibrate_encoder(
    spark: SparkSession, out: Path, sources: Sequence[Source], encoder: Path, max_items: int, seed: int, progress: Progress,
) -> Calibration:  # fmt: skip
    """Fit the trust of an encoder to the items of the sources, and write the encoder that results to the folder `out`.

    The items are those of the train side. The towers run on items without cached features; then it takes seconds. The driver reads
    at most `max_items` items per source.

    Args:
        encoder: folder of the encoder.
        seed: of the other items whose metadata stands for wrong metadata.

    Raises:
        UsageError: the folder `out` already holds an encoder.
        ModelError: the encoder cannot be read, or has no light head with gates.
        SourceError: a source cannot be read, or has too few items.
    """
    if (out / "config.json").exists():
        raise UsageError(f"{out} already holds an encoder", "name another folder")
    model, run_id = TGQFormer.from_pretrained(encoder), new_run_id(datetime.now(timezone.utc))
    sets = [rows for source in sources for rows in read_source(spark, source, model, encoder, run_id, max_items, seed, progress, pairs=False)]
    rows = TrainingSet.concatenate(sets)
    made, area = calibrated(model, rows, seed)
    made.save_pretrained(out)
    record = {"model_version": made.model_version, "calibrated_from": model.model_version, "sources": [source.name for source in sources],
              "items": len(rows), "max_items": max_items, "seed": seed, "auc": round(area, 4)}  # fmt: skip
    (out / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    return Calibration(made.model_version, len(rows), area)
