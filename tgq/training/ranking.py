"""How well vectors rank the rows of a training set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tgq.training.data.dataset import TrainingSet


def mean_reciprocal(embed: Callable[[np.ndarray], np.ndarray], rows: TrainingSet, asked: np.ndarray) -> float:
    """MRR of the first positive, averaged over catalogs: how often it is found, and how early.

    Args:
        embed: unit vectors `[n, De]` of some row numbers.
        asked: `[R]` bool, the queries; the pool is all rows of their catalog.
    """
    scores = []
    for catalog in sorted(set(rows.catalog[asked].tolist())):
        part = np.flatnonzero(rows.catalog == catalog)
        ranks = first_ranks(embed(part), rows.subset(part), np.flatnonzero(asked[part]))
        if np.isfinite(ranks).any():
            scores.append(float(np.nanmean(1 / ranks)))
    return float(np.mean(scores)) if scores else 0.0


def first_ranks(vectors: np.ndarray, rows: TrainingSet, queries: np.ndarray) -> np.ndarray:
    """Rank (from 1) of the best positive among all rows, for each of the row numbers `queries`; nan where it has none.

    A row itself, its picture's copies and what was not judged for it are hidden: neither found nor in the way. Of equal
    scores the positive comes last.
    """
    place = np.full(len(rows), -1)
    place[queries] = np.arange(len(queries))

    def marked(ends: np.ndarray) -> np.ndarray:
        ends = ends[place[ends[:, 0]] >= 0] if len(ends) else ends.reshape(0, 2)
        found = np.zeros((len(queries), len(rows)), bool)
        found[place[ends[:, 0]], ends[:, 1]] = True
        return found

    image = rows.image_index
    hidden = (image[queries][:, None] == image[None]) & (image[queries] >= 0)[:, None]
    hidden |= marked(rows.unjudged)
    hidden[np.arange(len(queries)), queries] = True
    positive = marked(rows.pairs) & ~hidden
    scores = np.where(hidden, -np.inf, vectors[queries] @ vectors.T)
    best = np.where(positive, scores, -np.inf).max(1)
    before = (scores >= best[:, None]) & ~positive & ~hidden
    return np.where(positive.any(1), 1.0 + before.sum(1), np.nan)
