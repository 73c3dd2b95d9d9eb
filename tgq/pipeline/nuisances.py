"""Views of items on the executors: fetch, decode, nuisance and encode in one worker function.

An item becomes its clean view and one view for each nuisance that applies to it, all from the picture that was decoded once. The
clean view goes the way of the others, so that a nuisance is all that two vectors of an item differ by. Pixels never leave the
worker.
"""

from __future__ import annotations

import functools
import io
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tgq.config import MetadataSettings
from tgq.encoder.images import ImageError, ImageLimits, decode_image
from tgq.pipeline.embed import EmbedWorker
from tgq.pipeline.fetch import Fetcher
from tgq.pipeline.sources import encoder_texts
from tgq.views import Item, apply
from tgq.views.draws import seeded

CLEAN = "clean"
COLUMNS = ("item_id", "title", "brand", "category", "attributes", "group_id", "image_uri", "image_bytes")  # of catalog_items
VIEWS = "item_id string, view string, reason string, detail string, embedding array<float>"
NOT_APPLICABLE = "not_applicable"  # the item has not what the nuisance would disturb, or the encoder does not read it
OTHERS = 3  # of the cast, that an item meets
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
        studio = _Studio(self, engine.encoder.vision.input_size)
        for out in engine.run(studio.views(batches)):
            yield _views(out)
            yield from studio.told()
        yield from studio.told()


class _Studio:
    """Makes the views of one task's items, and keeps what there is to say about those that it could not make."""

    def __init__(self, viewer: Viewer, side: int):
        self.viewer, self.side = viewer, side
        self.fetcher = Fetcher(viewer.embed.fetch)
        self.pictures: dict[str, Image.Image | None] = {}  # of the cast
        self.refused: deque[tuple[str, str, str, str | None]] = deque()

    def views(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A batch for the engine from each item that can be read."""
        for batch in batches:
            for row in batch.to_pylist():
                try:
                    item = _item(row, self._picture(row))
                except ImageError as error:
                    self.refused.append((row["item_id"], CLEAN, error.reason, error.detail))
                    continue
                yield self._rows(item, self._others(row))

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
            read = view and self._as_read(view)
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

    def _others(self, row: dict[str, Any]) -> list[Item]:
        """Other products for an item: the same ones in every partitioning."""
        rows = [other for other in _cast(self.viewer.cast) if not _same_product(row, other)]
        chosen = seeded("others", row["item_id"], self.viewer.seed).sample(rows, min(OTHERS, len(rows)))
        for other in chosen:
            if other["item_id"] not in self.pictures:
                try:
                    self.pictures[other["item_id"]] = self._picture(other)
                except ImageError:  # its name will do; it is told where it is itself a query
                    self.pictures[other["item_id"]] = None
        return [_item(other, self.pictures[other["item_id"]]) for other in chosen]

    def _picture(self, row: dict[str, Any]) -> Image.Image | None:
        """Decoded as the nightly worker does, and no larger than a view needs.

        Raises:
            ImageError: it cannot be read.
        """
        data = row["image_bytes"] or (self.fetcher.read(row["image_uri"]) if row["image_uri"] else None)
        if not data:
            return None
        image = decode_image(data, self.viewer.embed.limits, target=self.side)
        scale = 2 * self.side / min(image.size)
        return image if scale >= 1 else image.resize(tuple(round(scale * length) for length in image.size), Image.Resampling.BICUBIC)


@functools.lru_cache(maxsize=1)
def _cast(path: str) -> list[dict[str, Any]]:
    """Once per process; in the order of the ids, whatever file a row came from."""
    system, inner = fsspec.core.url_to_fs(path)
    return sorted(pq.read_table(inner, filesystem=system, columns=list(COLUMNS)).to_pylist(), key=lambda row: row["item_id"])


def _same_product(row: dict[str, Any], other: dict[str, Any]) -> bool:
    same_group = row["group_id"] is not None and row["group_id"] == other["group_id"]
    return same_group or row["item_id"] == other["item_id"] or row["title"] == other["title"]


def _item(row: dict[str, Any], image: Image.Image | None) -> Item:
    words = (row[name] or "" for name in ("title", "brand", "category"))
    return Item(row["item_id"], image, *words, dict(row["attributes"] or {}))


def _stored(image: Image.Image) -> bytes:
    """As BMP: the engine decodes it to the same pixels, and packing them would only cost time."""
    data = io.BytesIO()
    image.save(data, "BMP")
    return data.getvalue()


def _views(out: pa.RecordBatch) -> pa.RecordBatch:
    """The engine's rows as VIEWS."""
    views, ids = zip(*(key.split(BETWEEN, 1) for key in out["item_id"].to_pylist()), strict=True)
    return pa.RecordBatch.from_arrays([pa.array(ids), pa.array(views), out["reason"], out["detail"], out["embedding"]], schema=_VIEWS)
