"""The pictures of items as the head of an encoder with connector tokens sees them: pooled features that the connector has shifted.

From the cached tower features, on the executors; the driver gets a feature of each item. Pictures whose features are not cached go through the
vision tower first, and their features are cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as F

from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.feature_cache import IMAGE, TEXT, with_cached_features
from tgq.embedding.precompute import run_towers
from tgq.encoder.layers.heads import LightHead
from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import CachedImage, CachedText
from tgq.registry.loading import load_encoder, towers_of
from tgq.run.night import Night

BATCH = 64  # items that go through the connector at once


def shifted_images(night: Night, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """`LightHead.shifted_image` of the items with these ids under the night's encoder, float32 [N, Dg], zeros without a picture, and the trust in
    their metadata, float32 [N].

    Raises:
        WarehouseError: features are missing and the cache is full.

    Cost: a pass of the connector; 4 * Dg bytes an item on the driver.
    """
    folder, device, dtype = night.model_folder, night.settings.encoder.device, night.settings.encoder.dtype
    wanted = night.spark.createDataFrame([(one, at) for at, one in enumerate(ids)], "item_id string, at int")
    items = night.warehouse.read("catalog_items").where("is_active").join(F.broadcast(wanted), "item_id")
    run_towers(night, folder, items.drop("at"))
    cached = with_cached_features(night, items.select("at", "image_hash", "metadata_text", "encoder_title"), towers_of(folder))

    def shift(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        encoder = load_encoder(folder, device, dtype)
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH):
                rows = batch.slice(start, BATCH).to_pylist()
                image, trust = _shifted(encoder, rows)
                data = [row.tobytes() for row in image]
                yield pa.RecordBatch.from_pydict({"at": pa.array([row["at"] for row in rows], pa.int32()), "image": data, "trust": trust})

    with preloaded(night.spark.sparkContext):
        columns = ("at", "metadata_text", "encoder_title", *IMAGE, *TEXT)
        found = cached.select(*columns).mapInArrow(shift, "at int, image binary, trust float").toArrow().sort_by("at")
    image = np.frombuffer(b"".join(found["image"].to_pylist()), np.float32).reshape(len(ids), -1)
    return image.copy(), found["trust"].to_numpy().copy()


def _shifted(encoder: TGQFormer, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    import torch

    assert isinstance(encoder.head, LightHead)
    device = encoder.null_image.device
    with_picture = [at for at, row in enumerate(rows) if row["image_tokens"] is not None]
    pictures = [CachedImage.unpack(rows[at]["image_tokens"], rows[at]["image_features"], encoder.vision.width) for at in with_picture]
    stacks = [[getattr(one, name) for one in pictures] for name in ("tokens", "pooled")]
    tokens, pooled = (torch.from_numpy(np.stack(stack).astype(np.float32)).to(device) if stack else None for stack in stacks)
    index = torch.full((len(rows),), -1)
    index[with_picture] = torch.arange(len(with_picture))
    texts = {}
    for at, row in enumerate(rows):
        if row["text_tokens"] is not None:
            token, mask, pool, title = (row[name] for name in TEXT)
            texts[at] = CachedText.unpack(token, mask, pool, title, encoder.text.width)
    metadata, titles = ([row[name] or "" for row in rows] for name in ("metadata_text", "encoder_title"))
    features = encoder.features((tokens, pooled) if tokens is not None and pooled is not None else None, index, metadata, titles, texts)
    with torch.no_grad(), encoder.autocast():
        streams, _ = encoder.streams(features)
        image = encoder.head.shifted_image(features, streams) * features.has_image[:, None]
    return image.float().cpu().numpy(), streams.trust.float().cpu().numpy()
