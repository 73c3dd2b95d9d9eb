"""Rows, the groups of rows that share a picture, and the batches that the model runs on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from tgq.encoder.features import Features
from tgq.encoder.packing import StoredImage, StoredText
from tgq.images.decode import ImageError


@dataclass
class Row:
    """One input row, and what became of it."""

    source: pa.RecordBatch
    index: int
    item_id: str
    uri: str | None
    has_bytes: bool
    picture_key: str | None  # rows with the same key show the same picture
    metadata: str
    title: str
    stored_image: tuple[bytes, bytes] | None = None  # tokens and pooled feature as they were kept
    stored_text: tuple[bytes, bytes, bytes, bytes] | None = None
    failure: ImageError | None = None
    result: tuple | None = None  # one row of each array of EncoderOutput
    image_kept: Future | None = None  # bytes to be kept, being packed
    text_kept: Future | None = None

    @property
    def has_image(self) -> bool:
        return self.has_bytes or self.uri is not None or self.stored_image is not None

    @property
    def done(self) -> bool:
        return self.failure is not None or self.result is not None


@dataclass
class Group:
    """Rows that share one picture."""

    rows: list[Row]
    picture: Future | None  # of float32 [3, H, W], or of the reason why not; None: a row without a picture
    uri: str | None  # where it is being read from


@dataclass
class Batch:
    """Rows to encode, those of one picture side by side: `image_index` ascends, but for the -1 of none.

    Pictures are numbered as they come; those that were decoded lie in `pixels`, the others in `stored`.
    """

    rows: list[Row]
    image_index: np.ndarray
    pixels: torch.Tensor | None
    stored: dict[int, StoredImage]

    def features(self, encoder, start: int, stop: int) -> Features:
        """The towers' features of some of the rows."""
        rows, index = self.rows[start:stop], self.image_index[start:stop]
        used = np.unique(index[index >= 0])
        fresh = [i for i in used.tolist() if i not in self.stored]
        parts = []
        if fresh:  # their pixels lie side by side, in the order of their numbers
            before = sum(i not in self.stored for i in range(fresh[0]))
            parts.append((fresh, *encoder.encode_image(self.pixels[before : before + len(fresh)])))
        if kept := [i for i in used.tolist() if i in self.stored]:
            parts.append((kept, *(torch.from_numpy(np.stack([getattr(self.stored[i], name) for i in kept])).to(encoder.null_image.device).float()
                                  for name in ("tokens", "pooled"))))  # fmt: skip
        seen = tuple(torch.cat([part[n] for part in parts]) for n in (1, 2)) if parts else None
        place = {number: at for at, number in enumerate(number for part in parts for number in part[0])}
        at = torch.tensor([place.get(i, -1) for i in index.tolist()], dtype=torch.long)
        width = encoder.text.width
        known = {i: StoredText.unpack(*row.stored_text, width) for i, row in enumerate(rows) if row.stored_text}
        return encoder.features(seen, at, [row.metadata for row in rows], [row.title for row in rows], known)


class Window:
    """Groups whose pictures are being decoded, in the order of their first rows."""

    def __init__(self, rows: Iterator[Row], submit: Callable[[Row], Future]):
        self._rows, self._submit = rows, submit
        self._groups: deque[tuple[str | None, Group]] = deque()
        self._by_key: dict[str, Group] = {}
        self._held = 0

    def fill(self, room: int) -> None:
        """Take in rows until `room` are held or the input ends."""
        while self._held < room and (row := next(self._rows, None)) is not None:
            self._held += 1
            key = row.picture_key
            if key is not None and key in self._by_key:
                self._by_key[key].rows.append(row)
                continue
            group = Group([row], self._submit(row) if row.has_image else None, row.uri)
            self._groups.append((key, group))
            if key is not None:
                self._by_key[key] = group

    def take(self, n: int) -> list[Group]:
        """Remove up to `n` rows from the head, whole groups as far as they fit."""
        taken: list[Group] = []
        while self._groups and n:
            key, group = self._groups[0]
            part = Group(group.rows[:n], group.picture, group.uri)
            taken.append(part)
            del group.rows[:n]
            n -= len(part.rows)
            self._held -= len(part.rows)
            if not group.rows:
                self._groups.popleft()
                self._by_key.pop(key, None)
        return taken
