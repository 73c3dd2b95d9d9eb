"""Input rows, groups of rows that share an image, and the batches that the encoder runs on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from tgq.encoder.features import Features
from tgq.encoder.packing import CachedImage, CachedText
from tgq.grounding.box import Found, Grounding
from tgq.images.decode import ImageError


@dataclass
class Row:
    """One input row and, once it is processed, its result or its failure."""

    source: pa.RecordBatch
    index: int  # of the row in `source`
    item_id: str
    uri: str | None
    has_bytes: bool
    image_key: str | None  # rows with equal keys have the same image
    metadata: str
    title: str
    phrase: str | None = None  # what a detector looks for in the picture; None: it is not asked
    known: tuple[Found | None] | None = None  # what it found earlier, so that it is not asked again
    cached_image: tuple[bytes, bytes] | None = None  # cached tower features, packed: tokens, pooled
    cached_text: tuple[bytes, bytes, bytes, bytes] | None = None  # likewise: tokens, mask, pooled, title
    hash_wanted: bool = False  # perceptual hash and colour of its picture are wanted, if the picture is decoded
    fingerprint: tuple[int, int] | None = None  # perceptual hash and colour
    grounding: Grounding | None = None  # what is embedded of the picture; None: the whole of it, undecided
    failure: ImageError | None = None
    result: tuple | None = None  # this row of EncoderOutput's embedding, image and text, and its three scalars
    packed_image: Future | None = None  # of the tower features to output, as bytes
    packed_text: Future | None = None

    @property
    def has_image(self) -> bool:
        """Whether the row comes with image bytes, an image URI or cached image features."""
        return self.has_bytes or self.uri is not None or self.cached_image is not None

    @property
    def done(self) -> bool:
        """Whether the row has its result or its failure."""
        return self.failure is not None or self.result is not None


@dataclass(frozen=True)
class Decoded:
    """A picture for the encoder: its pixels, or the picture itself as long as it is not known which part of it is embedded."""

    pixels: np.ndarray | None  # float32 [3, H, W]
    picture: Image.Image | None = None
    grounding: Grounding | None = None  # what the pixels show
    fingerprint: tuple[int, int] | None = None  # perceptual hash and colour of the whole picture, if they are wanted


@dataclass
class Group:
    """Rows that share one image."""

    rows: list[Row]
    image: Future | None  # of a Decoded, a CachedImage or an ImageError; None: a row without an image
    uri: str | None  # the URI that the image is read from


@dataclass
class Batch:
    """Rows to encode. Rows that share an image are adjacent, so `image_index` ascends apart from its -1 entries.

    The images of a batch have consecutive numbers. The image with a number in `cached` comes from the feature cache. The
    other images are in `pixels`, in the order of their numbers.
    """

    rows: list[Row]
    image_index: np.ndarray  # int64 [B], the number of each row's image; -1: no image
    pixels: torch.Tensor | None  # float32 [n, 3, H, W] of the n images that are not cached; None: n is 0
    cached: dict[int, CachedImage]
    undecided: dict[int, Image.Image]  # pictures by number whose pixels are missing until it is known which part of them is embedded

    def place(self, number: int) -> int:
        """Where the pixels of the image with this number are in `pixels`."""
        return number - sum(other < number for other in self.cached)

    def features(self, encoder, start: int, stop: int) -> Features:
        """Tower features of the rows from `start` to `stop`. The vision tower runs on the images that are not cached."""
        rows, index = self.rows[start:stop], self.image_index[start:stop]
        used = np.unique(index[index >= 0])
        uncached = [i for i in used.tolist() if i not in self.cached]
        parts = []
        if uncached:  # their pixels are adjacent, in the order of their numbers
            assert self.pixels is not None  # some images were decoded
            before = self.place(uncached[0])
            parts.append((uncached, *encoder.encode_image(self.pixels[before : before + len(uncached)])))
        if cached := [i for i in used.tolist() if i in self.cached]:
            parts.append((cached, *(torch.from_numpy(np.stack([getattr(self.cached[i], name) for i in cached])).to(encoder.null_image.device).float()
                                    for name in ("tokens", "pooled"))))  # fmt: skip
        image_features = tuple(torch.cat([part[n] for part in parts]) for n in (1, 2)) if parts else None
        position = {number: at for at, number in enumerate(number for part in parts for number in part[0])}
        positions = torch.tensor([position.get(i, -1) for i in index.tolist()], dtype=torch.long)
        width = encoder.text.width
        cached_texts = {i: CachedText.unpack(*row.cached_text, width) for i, row in enumerate(rows) if row.cached_text}
        return encoder.features(image_features, positions, [row.metadata for row in rows], [row.title for row in rows], cached_texts)


class Window:
    """Groups whose images are being decoded, in the order of their first rows."""

    def __init__(self, rows: Iterator[Row], submit: Callable[[Row], Future]):
        self._rows, self._submit = rows, submit
        self._groups: deque[tuple[str | None, Group]] = deque()
        self._by_key: dict[str, Group] = {}
        self._size = 0  # rows in the window

    def fill(self, capacity: int) -> None:
        """Add rows until the window holds `capacity` rows or the input ends."""
        while self._size < capacity and (row := next(self._rows, None)) is not None:
            self._size += 1
            key = row.image_key
            if key is not None and key in self._by_key:
                self._by_key[key].rows.append(row)
                continue
            group = Group([row], self._submit(row) if row.has_image else None, row.uri)
            self._groups.append((key, group))
            if key is not None:
                self._by_key[key] = group

    def take(self, n: int) -> list[Group]:
        """Remove up to `n` rows from the front of the window. A group is split only if it does not fit."""
        taken: list[Group] = []
        while self._groups and n:
            key, group = self._groups[0]
            part = Group(group.rows[:n], group.image, group.uri)
            taken.append(part)
            del group.rows[:n]
            n -= len(part.rows)
            self._size -= len(part.rows)
            if not group.rows:
                self._groups.popleft()
                if key is not None:
                    self._by_key.pop(key, None)
        return taken
