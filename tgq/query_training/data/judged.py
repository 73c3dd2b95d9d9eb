"""What a query tower is trained on: items as arrays, and queries with graded items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Items:
    """N items: their embeddings and what the frozen towers gave for them.

    Memory: 4 * (De + Dp + Dg) bytes an item.
    """

    vectors: np.ndarray  # float32 [N, De], unit item embeddings
    text: np.ndarray  # float32 [N, Dp], pooled feature of the metadata text; zeros: no text
    image: np.ndarray  # float32 [N, Dg], pooled feature of the picture; zeros: no picture

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def has_text(self) -> np.ndarray:
        """bool [N]"""
        return np.any(self.text, axis=1)

    @property
    def has_image(self) -> np.ndarray:
        """bool [N]"""
        return np.any(self.image, axis=1)


@dataclass(frozen=True)
class JudgedQueries:
    """Q queries and the items judged for them: those of query i are rows offsets[i]:offsets[i + 1]."""

    texts: Sequence[str]  # Q
    offsets: np.ndarray  # int64 [Q + 1]
    items: np.ndarray  # int64 [J], row of each judged item in Items
    gains: np.ndarray  # float64 [J], 0 for an item that is judged irrelevant
    hard: np.ndarray  # int64 [Q, H], items near the query that nobody judged, as hard negatives; -1: none

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def rows(self) -> np.ndarray:
        """int64 [J]: the query of each judgment."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def subset(self, keep: np.ndarray) -> JudgedQueries:
        """The queries at `keep`, int64, in that order."""
        spans = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in keep]
        at = np.concatenate(spans) if spans else np.zeros(0, np.int64)
        offsets = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
        return JudgedQueries([self.texts[i] for i in keep], offsets, self.items[at], self.gains[at], self.hard[keep])

    def answerable(self) -> JudgedQueries:
        """The queries with at least one item of a gain."""
        gained = np.bincount(self.rows, self.gains, len(self))
        return self.subset(np.flatnonzero(gained > 0))

    def with_hard(self, hard: np.ndarray) -> JudgedQueries:
        """A copy with other hard negatives; those that are judged for their query are left out."""
        judged = {(int(q), int(i)) for q, i in zip(self.rows, self.items, strict=True)}
        kept = np.array([[-1 if (q, int(i)) in judged else int(i) for i in row] for q, row in enumerate(hard)], np.int64)
        return replace(self, hard=kept.reshape(len(self), -1))

    @classmethod
    def of_single_items(cls, texts: Sequence[str], items: np.ndarray) -> JudgedQueries:
        """Queries with one relevant item each."""
        n = len(texts)
        return cls(texts, np.arange(n + 1), np.asarray(items, np.int64), np.ones(n), np.full((n, 0), -1, np.int64))
