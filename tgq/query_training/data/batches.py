"""Batches of queries with their candidates: the items that each query of a batch is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tgq.query_training.config import QueryTrainConfig
from tgq.query_training.data.judged import JudgedQueries


@dataclass(frozen=True)
class Batch:
    """B queries and C candidates, which all of them share."""

    texts: Sequence[str]  # B
    candidates: np.ndarray  # int64 [C], sorted rows of Items, without duplicates
    gains: np.ndarray  # float32 [B, C], 0 where a candidate is judged irrelevant, or not judged
    queries: np.ndarray  # int64 [B], which of the queries they are


class Batches:
    """Draws batches without end: each query once in an epoch, in random order.

    The candidates of a batch are judged items of its queries, some of their hard negatives, and random items. An item that is judged
    for one query is a negative of the others, unless it is judged for them as well.
    """

    def __init__(self, queries: JudgedQueries, n_items: int, config: QueryTrainConfig, allowed: np.ndarray | None = None):
        """`allowed`: bool [n_items], the items that may be candidates; None: all."""
        self._queries, self._config = queries, config
        self._rng = np.random.default_rng(config.seed)
        self._allowed = np.flatnonzero(allowed) if allowed is not None else np.arange(n_items)
        self._is_allowed = np.isin(np.arange(n_items), self._allowed)
        self._order = np.zeros(0, np.int64)

    def draw(self) -> Batch:
        """The next batch."""
        queries, config = self._queries, self._config
        while len(self._order) < min(config.batch, len(queries)):
            self._order = np.concatenate([self._order, self._rng.permutation(len(queries))])
        rows, self._order = self._order[: config.batch], self._order[config.batch :]
        chosen = [self._chosen(row) for row in rows]
        others = self._rng.choice(self._allowed, min(config.others, len(self._allowed)), replace=False)
        hard = queries.hard[rows]
        if hard.shape[1] > config.hard:
            hard = self._rng.permuted(hard, axis=1)[:, : config.hard]
        candidates = np.unique(np.concatenate([*chosen, others, hard.ravel()]))
        candidates = candidates[candidates >= 0]
        candidates = candidates[self._is_allowed[candidates]]
        gains = np.zeros((len(rows), len(candidates)), np.float32)
        for number, row in enumerate(rows):
            judged = slice(queries.offsets[row], queries.offsets[row + 1])
            place = np.searchsorted(candidates, queries.items[judged])
            there = place < len(candidates)
            there[there] = candidates[place[there]] == queries.items[judged][there]
            gains[number, place[there]] = queries.gains[judged][there]
        return Batch([queries.texts[row] for row in rows], candidates, gains, rows)

    def _chosen(self, row: int) -> np.ndarray:
        """Judged items of a query: at random, those with more gain first."""
        judged = slice(self._queries.offsets[row], self._queries.offsets[row + 1])
        items, gains = self._queries.items[judged], self._queries.gains[judged]
        if len(items) <= self._config.judged:
            return items
        order = np.lexsort((self._rng.random(len(items)), -gains))
        best = order[: self._config.judged // 2]
        rest = self._rng.permutation(order[self._config.judged // 2 :])[: self._config.judged - len(best)]
        return items[np.concatenate([best, rest])]
