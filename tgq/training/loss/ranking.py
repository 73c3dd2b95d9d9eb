"""Ranking metrics over the rows of a training set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tgq.training.data.dataset import TrainingSet


def catalog_mrr(embed: Callable[[np.ndarray], np.ndarray], rows: TrainingSet, queries: np.ndarray) -> float:
    """Mean reciprocal rank of the first positive, averaged over catalogs; 0 if no query has a positive.

    Args:
        embed: returns unit vectors `[n, De]` of n row numbers.
        queries: `[R]` bool, the rows that are queries. The pool of a query is all rows of its catalog.
    """
    scores = []
    for catalog in sorted(set(rows.catalog[queries].tolist())):
        part = np.flatnonzero(rows.catalog == catalog)
        ranks = first_ranks(embed(part), rows.subset(part), np.flatnonzero(queries[part]))
        if np.isfinite(ranks).any():
            scores.append(float(np.nanmean(1 / ranks)))
    return float(np.mean(scores)) if scores else 0.0


def first_ranks(vectors: np.ndarray, rows: TrainingSet, queries: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
    """Rank (from 1) of the first positive among all rows, for each of the row numbers `queries` `[Q]`; nan without a positive.

    The query itself, rows with the same image and unjudged rows are excluded from the ranking. Among equal scores the positive
    ranks last.

    Args:
        vectors: `[R, D]`, unit vectors of all rows.
        asked: `[Q, D]`, other vectors of the queries, e.g. of disturbed items; None: those of `vectors`.
    """
    place = np.full(len(rows), -1)
    place[queries] = np.arange(len(queries))

    def pair_mask(ends: np.ndarray) -> np.ndarray:
        """`[Q, R]` bool: the query and the row are one of the pairs `ends` `[P, 2]`."""
        ends = ends[place[ends[:, 0]] >= 0] if len(ends) else ends.reshape(0, 2)
        found = np.zeros((len(queries), len(rows)), bool)
        found[place[ends[:, 0]], ends[:, 1]] = True
        return found

    image = rows.image_index
    excluded = (image[queries][:, None] == image[None]) & (image[queries] >= 0)[:, None]
    excluded |= pair_mask(rows.unjudged)
    excluded[np.arange(len(queries)), queries] = True
    positive = pair_mask(rows.pairs) & ~excluded
    scores = np.where(excluded, -np.inf, (vectors[queries] if asked is None else asked) @ vectors.T)
    best = np.where(positive, scores, -np.inf).max(1)
    before = (scores >= best[:, None]) & ~positive & ~excluded
    return np.where(positive.any(1), 1.0 + before.sum(1), np.nan)
