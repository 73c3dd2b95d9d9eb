"""Views of items on the executors: fetch, decode, nuisance and encode in one worker function.

An item becomes its clean view and one view for each nuisance that applies to it, all from the picture that was decoded once. The
clean view goes the way of the others, so that a nuisance is all that two vectors of an item differ by. Pixels never leave the
worker.
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
from tgq.embedding.worker import EmbedWorker
from tgq.images.decode import ImageError, ImageLimits
from tgq.nuisances import Item, apply
from tgq.robustness.rendering import CLEAN, Studio
from tgq.settings.sections import MetadataSettings

VIEWS = "item_id string, view string, reason string, detail string, embedding array<float>"
NOT_APPLICABLE = "not_applicable"  # the item has not what the nuisance would disturb, or the encoder does not read it
BETWEEN = "\x1f"  # no item id has a control character

_VIEWS = pa.schema([(name, pa.string()) for name in ("item_id", "view", "reason", "detail")] + [("embedding", pa.list_(pa.float32()))])


@dataclass(frozen=True)
class Viewer:
    """What a task needs, in plain values.

    Attributes:
        embed: the nightly worker's settings: encoder, device, what may be fetched, what a picture may weigh.
        cast: folder of Parquet (COLUMNS) with the items whose names and pictures come into the others' views.
    """

    embed: EmbedWorker
    metadata: MetadataSettings
    names: tuple[str, ...]
    seed: int
    cast: str

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of COLUMNS to rows of VIEWS: one for each item and view, with a vector or with the reason why there is none.

        An item whose picture cannot be read has the one row of its clean view.
        """
        engine = replace(self.embed, limits=ImageLimits()).engine()  # a view's size is ours; the source's was judged before
        views = _Views(self, engine.encoder.vision.input_size)
        for out in engine.run(views.of(batches)):
            yield _views(out)
            yield from views.told()
        yield from views.told()


class _Views:
    """Makes the views of one task's items, and keeps what there is to say about those that it could not make."""

    def __init__(self, viewer: Viewer, side: int):
        self.viewer, self.studio = viewer, Studio(viewer.embed.fetch, viewer.embed.limits, side, viewer.cast, viewer.seed)
        self.refused: deque[tuple[str, str, str, str | None]] = deque()

    def of(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A batch for the engine from each item that can be read."""
        for batch in batches:
            for row in batch.to_pylist():
                try:
                    item = self.studio.item(row)
                except ImageError as error:
                    self.refused.append((row["item_id"], CLEAN, error.reason, error.detail))
                    continue
                yield self._rows(item, self.studio.others(row))

    def told(self) -> Iterator[pa.RecordBatch]:
        """VIEWS rows of what was refused since the last call."""
        rows = [self.refused.popleft() for _ in range(len(self.refused))]
        if rows:
            yield pa.RecordBatch.from_pylist([dict(zip(_VIEWS.names, (*row, None), strict=True)) for row in rows], _VIEWS)

    def _rows(self, item: Item, others: list[Item]) -> pa.RecordBatch:
        seen = self._as_read(item)
        rows = [self._row(CLEAN, item, seen, item)]
        for name in self.viewer.names:
            view = apply(name, item, others, self.viewer.seed)
            read = self._as_read(view) if view else ("", "")
            if view is None or (view.image is item.image and read == seen) or (view.image is None and not read[0]):
                self.refused.append((item.item_id, name, NOT_APPLICABLE, None))
            else:
                rows.append(self._row(name, view, read, item))
        return pa.RecordBatch.from_pylist(rows)

    def _row(self, name: str, view: Item, texts: tuple[str, str], clean: Item) -> dict[str, Any]:
        # views that show the clean picture share its key, so that it is encoded once
        key = BETWEEN.join((CLEAN if view.image is clean.image else name, clean.item_id))
        return {
            "item_id": BETWEEN.join((name, clean.item_id)), "image_uri": None, "image_bytes": view.image and _stored(view.image),
            "image_hash": view.image and key, "metadata_text": texts[0], "encoder_title": texts[1],
        }  # fmt: skip

    def _as_read(self, item: Item) -> tuple[str, str]:
        return encoder_texts({field: getattr(item, field) for field in ("title", "brand", "category", "attributes")}, self.viewer.metadata)


def _stored(image: Image.Image) -> bytes:
    """As BMP: the engine decodes it to the same pixels, and packing them would only cost time."""
    data = io.BytesIO()
    image.save(data, "BMP")
    return data.getvalue()


def _views(out: pa.RecordBatch) -> pa.RecordBatch:
    """The engine's rows as VIEWS."""
    views, ids = zip(*(key.split(BETWEEN, 1) for key in out["item_id"].to_pylist()), strict=True)
    return pa.RecordBatch.from_arrays([pa.array(ids), pa.array(views), out["reason"], out["detail"], out["embedding"]], schema=_VIEWS)
