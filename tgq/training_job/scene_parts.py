"""Parts and banks of composed scenes, computed once: parts of a source's pictures in its feature cache, banks in the local cache."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.reading.location import folder_of
from tgq.embedding.executor.worker import EmbedWorker, task_cores
from tgq.embedding.feature_cache import cache_tokens, cached_tokens, free_space
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import half, pack_tokens
from tgq.encoder.towers.parts import PartsTower
from tgq.errors import WarehouseError
from tgq.images.decode import ImageError, decode_image
from tgq.images.fetch import Fetcher
from tgq.run.job_progress import job_progress
from tgq.run.night import Night
from tgq.run.progress import Progress
from tgq.storage.paths import cache_folder
from tgq.training.data.banks import BACKGROUNDS, BANNERS, VERSION, draw_banks
from tgq.training.data.scenes import Banks

SLICE = 2048  # pictures in a commit; a killed job computes at most so many again
TASK = 64
BATCH = 8  # pictures that go through the tower at once
ROW = pa.schema([("source_hash", pa.string()), ("tokens", pa.binary())])


@dataclass(frozen=True)
class _PartsTask:
    """The Spark task that computes parts; it holds plain values only, so that Spark can serialise it."""

    worker: EmbedWorker

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """From rows with a picture each to rows of ROW. A picture that cannot be read has none; the embed step quarantines its item."""
        torch.set_num_threads(task_cores())
        encoder, fetcher = self.worker.encoder(), Fetcher(self.worker.fetch)
        tower = PartsTower(encoder.vision)
        for batch in batches:
            rows = []
            for first in range(0, batch.num_rows, BATCH):
                hashes, pixels = [], []
                for row in batch.slice(first, BATCH).to_pylist():
                    try:
                        data = row["image_bytes"] or fetcher.read(row["image_uri"])
                        picture = decode_image(data, self.worker.limits, target=encoder.vision.input_size)
                    except ImageError:
                        continue
                    hashes.append(row["source_hash"])
                    pixels.append(encoder.vision.preprocess(picture))
                if pixels:
                    with encoder.autocast():
                        parts = half(tower(torch.stack(pixels)))
                    rows += [{"source_hash": name, "tokens": pack_tokens(tokens)} for name, tokens in zip(hashes, parts, strict=True)]
            yield pa.RecordBatch.from_pylist(rows, ROW)


def run_parts(night: Night, model_folder: str, items: DataFrame, fingerprint: str) -> int:
    """Cache the parts of scenes of the pictures of `catalog_items` rows, as far as they are not cached.

    Cost: a fetch, a decode and one to two passes of the vision tower per picture, on the executors; 67 kB of memory, and less in
    the cache. The tower works alone on a task's cores, so that decoding is not ahead of it as it is in the embed step.

    Args:
        model_folder: the encoder's folder.
        fingerprint: of the encoder's PartsTower.

    Returns the number of pictures that had no parts.

    Raises:
        WarehouseError: the cache is full.
    """
    pictures = items.where("image_hash IS NOT NULL").select(F.col("image_hash").alias("source_hash"), "image_uri", "image_bytes")
    missing = pictures.dropDuplicates(["source_hash"]).join(cached_tokens(night, fingerprint), "source_hash", "left_anti")
    total, attempt = missing.count(), uuid.uuid4().hex
    if not total:
        return 0
    task = _PartsTask(EmbedWorker.of(night.settings, model_folder, folder_of(night.spark, night.settings.catalog)))
    slices = -(-total // SLICE)
    with job_progress(night, "parts of scenes", total) as done:

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in task.run(batches):
                done.add(batch.num_rows)
                yield batch

        for number in range(slices):
            if free_space(night) <= 0:
                raise WarehouseError(f"the feature cache is full at features.max_gb={night.settings.features.max_gb:g}", "raise features.max_gb")
            part = missing.where(F.pmod(F.xxhash64("source_hash"), F.lit(slices)) == number)
            rows = part.repartition(-(-total // slices // TASK), "source_hash").mapInArrow(run, from_arrow_schema(ROW))
            cache_tokens(night, rows, fingerprint, (f"tgq-parts-{attempt}", number))
    return total


def kept_banks(encoder: TGQFormer, progress: Progress) -> Banks:
    """The banks of the encoder's vision tower, from the local cache or drawn now and kept there (80 MB with the default tower)."""
    fingerprint = PartsTower(encoder.vision).fingerprint
    path = cache_folder() / "scenes" / f"banks-{VERSION}-{fingerprint}.npz"
    if path.is_file():
        return Banks.load(path)
    progress.say(f"the vision tower runs over {BACKGROUNDS} backgrounds and {BANNERS} banners of scenes, once")
    banks = draw_banks(encoder)
    banks.save(path)
    return banks
