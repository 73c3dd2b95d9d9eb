"""Embedding of views on the executors: fetch, decode, disturb and encode in one worker function.

An item becomes its clean view and one view for each nuisance that applies to it, all from one decoded picture. The clean view is
processed like the others, so the nuisance is the only difference between two vectors of an item. Pixels never leave the worker.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from PIL import Image

from tgq.catalog.fields import encoder_texts
from tgq.embedding.executor.worker import EmbedWorker
from tgq.images.decode import ImageError, ImageLimits
from tgq.nuisances import Item, apply
from tgq.robustness.rendering import CLEAN, ItemRenderer
from tgq.settings.sections import MetadataSettings

VIEWS = "item_id string, view string, reason string, detail string, embedding array<float>"
NOT_APPLICABLE = "not_applicable"  # the item lacks what the nuisance disturbs, or the encoder does not read it
BETWEEN = "\x1f"  # separates view and item id; item ids have no control characters

_VIEWS = pa.schema([(name, pa.string()) for name in ("item_id", "view", "reason", "detail")] + [("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class ViewEncoder:
    """Parameters of a task, in plain values.

    Attributes:
        embed: the settings of the nightly worker: encoder, device, permitted sources, limits of a picture.
        donors: folder of Parquet (COLUMNS) with the items whose names and pictures appear in the views of others.
    """

    embed: EmbedWorker
    metadata: MetadataSettings
    names: tuple[str, ...]
    seed: int
    donors: str

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Turn rows of COLUMNS into rows of VIEWS: one per item and view, with a vector or the reason for its absence.

        An item with an unreadable picture gives one row, for its clean view.
        """
        engine = replace(self.embed, limits=ImageLimits()).engine()  # the limits hold for the source picture, not for its views
        views = _ViewBuilder(self, engine.encoder.vision.input_size)
        for out in engine.run(views.of(batches)):
            yield _views(out)
            yield from views.refused_rows()
        yield from views.refused_rows()


class _ViewBuilder:
    """Builds the views of one task's items, and collects the views that cannot be built."""

    def __init__(self, view_encoder: ViewEncoder, side: int):
        embed = view_encoder.embed
        self.view_encoder = view_encoder
        self.renderer = ItemRenderer(embed.fetch, embed.limits, side, view_encoder.donors, view_encoder.seed)
        self.refused: deque[tuple[str, str, str, str | None]] = deque()

    def of(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A batch for the engine per readable item: its views."""
        for batch in batches:
            for row in batch.to_pylist():
                try:
                    item = self.renderer.item(row)
                except ImageError as error:
                    self.refused.append((row["item_id"], CLEAN, error.reason, error.detail))
                    continue
                yield self._rows(item, self.renderer.others(row))

    def refused_rows(self) -> Iterator[pa.RecordBatch]:
        """VIEWS rows of the views refused since the last call."""
        rows = [self.refused.popleft() for _ in range(len(self.refused))]
        if rows:
            yield pa.RecordBatch.from_pylist([dict(zip(_VIEWS.names, (*row, None), strict=True)) for row in rows], _VIEWS)

    def _rows(self, item: Item, others: list[Item]) -> pa.RecordBatch:
        clean_texts = self._texts(item)
        rows = [self._row(CLEAN, item, clean_texts, item)]
        for name in self.view_encoder.names:
            view = apply(name, item, others, self.view_encoder.seed)
            texts = self._texts(view) if view else ("", "")
            if view is None or (view.image is item.image and texts == clean_texts) or (view.image is None and not texts[0]):
                self.refused.append((item.item_id, name, NOT_APPLICABLE, None))
            else:
                rows.append(self._row(name, view, texts, item))
        return pa.RecordBatch.from_pylist(rows)

    def _row(self, name: str, view: Item, texts: tuple[str, str], clean: Item) -> dict[str, Any]:
        # views with the clean picture share its key, so that it is encoded once
        key = BETWEEN.join((CLEAN if view.image is clean.image else name, clean.item_id))
        return {
            "item_id": BETWEEN.join((name, clean.item_id)), "image_uri": None, "image_bytes": view.image and _bmp(view.image),
            "image_hash": view.image and key, "metadata_text": texts[0], "encoder_title": texts[1],
        }  # fmt: skip

    def _texts(self, item: Item) -> tuple[str, str]:
        return encoder_texts({field: getattr(item, field) for field in ("title", "brand", "category", "attributes")}, self.view_encoder.metadata)


def _bmp(image: Image.Image) -> bytes:
    """The picture as BMP: lossless, and cheaper than a compressed format."""
    data = io.BytesIO()
    image.save(data, "BMP")
    return data.getvalue()


def _views(out: pa.RecordBatch) -> pa.RecordBatch:
    """The engine's output as rows of VIEWS."""
    views, ids = zip(*(key.split(BETWEEN, 1) for key in out["item_id"].to_pylist()), strict=True)
    return pa.RecordBatch.from_arrays([pa.array(ids), pa.array(views), out["reason"], out["detail"], out["embedding"]], schema=_VIEWS)
