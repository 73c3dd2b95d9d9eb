"""Retrieval metrics of each query, from the exact ranks of its positives (`ranks.count_above` + 1).

With m positives at ranks r_1 < ... < r_m (1 is best):
    hit_rate@K  1 if r_1 <= K
    recall@K    |{i: r_i <= K}| / m
    mrr         1 / r_1, without a cutoff
    map         1/m * sum_i i / r_i, over the full ranking (average precision, trec_eval's `map`)
    ndcg@10     sum_{r_i <= 10} g_i / log2(r_i + 1), divided by the same sum for the best possible order
                (Jarvelin and Kekalainen 2002, linear gains as in trec_eval; gains are 1 by default)
    in_category_hit_rate@K  hit_rate in the pool of the query's own category

Two further metrics do not follow from the ranks: `ann_recall` and `coverage`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ALL = "all"  # name of the slice that contains every query
CUTOFFS = (1, 5, 10, 20, 50, 100)
NDCG_CUTOFF = 10


class Metric(NamedTuple):
    """A column of `QueryMetrics.values`; k is None where the metric has no cutoff."""

    name: str
    k: int | None


@dataclass(frozen=True)
class QueryMetrics:
    """Metrics of Q queries.

    Attributes:
        values: float64 [Q, M]; the row of a query without positives is NaN.
        columns: the M metrics.
    """

    values: np.ndarray
    columns: tuple[Metric, ...]

    def column(self, name: str, k: int | None = None) -> np.ndarray:
        """The values of one metric, float64 [Q]."""
        return self.values[:, self.columns.index(Metric(name, k))]


def query_metrics(
    offsets: np.ndarray,
    ranks: np.ndarray,
    gains: np.ndarray | None = None,
    in_category_ranks: np.ndarray | None = None,
    cutoffs: tuple[int, ...] = CUTOFFS,
) -> QueryMetrics:
    """Compute all metrics of Q queries.

    Args:
        offsets: int64 [Q + 1]; the positives of query i are offsets[i]:offsets[i + 1].
        ranks: int64 [P], at least 1, in any order and without duplicates within a query.
        gains: float [P], positive weights for ndcg; None: all 1.
        in_category_ranks: int64 [P], ranks within the query's category; None omits in_category_hit_rate.
        cutoffs: the K of hit_rate, recall and in_category_hit_rate.

    Raises:
        ValueError: a rank is below 1, a gain is not positive, or lengths differ.

    Cost: one sort of P ranks; memory 8 * Q * M bytes.
    """
    gains = np.ones(len(ranks)) if gains is None else np.asarray(gains, np.float64)
    if offsets[-1] != len(ranks) or len(gains) != len(ranks):
        raise ValueError(f"offsets end at {offsets[-1]}, ranks: {len(ranks)}, gains: {len(gains)}")
    if len(ranks) and (np.min(ranks) < 1 or not np.min(gains) > 0):
        raise ValueError("ranks start at 1 and gains are positive")
    counts = np.diff(offsets)
    query = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((ranks, query))
    ranks, gains = np.asarray(ranks)[order], gains[order]
    place = np.arange(len(ranks)) - offsets[:-1][query]  # 0 for the best positive of a query, 1 for the second best ...

    with np.errstate(invalid="ignore", divide="ignore"):  # the metrics of a query without positives are NaN

        def total(values: np.ndarray) -> np.ndarray:
            return np.bincount(query, values, len(counts))

        def share(hits: np.ndarray) -> np.ndarray:
            return np.where(counts > 0, hits, np.nan)

        best = total(np.where(place == 0, ranks, 0))
        columns = {Metric("hit_rate", k): share(best <= k) for k in cutoffs}
        columns |= {Metric("recall", k): total(ranks <= k) / counts for k in cutoffs}
        columns[Metric("mrr", None)] = share(1 / best)
        columns[Metric("map", None)] = total((place + 1) / ranks) / counts
        gained = total(np.where(ranks <= NDCG_CUTOFF, gains / np.log2(ranks + 1), 0))
        ideal_gains = gains[np.lexsort((-gains, query))]
        ideal = total(np.where(place < NDCG_CUTOFF, ideal_gains / np.log2(place + 2), 0))
        columns[Metric("ndcg", NDCG_CUTOFF)] = gained / ideal
        if in_category_ranks is not None:
            nearest = np.full(len(counts), np.iinfo(np.int64).max)
            np.minimum.at(nearest, np.repeat(np.arange(len(counts)), counts), in_category_ranks)
            columns |= {Metric("in_category_hit_rate", k): share(nearest <= k) for k in cutoffs}
    return QueryMetrics(np.stack(list(columns.values()), axis=1).astype(np.float64), tuple(columns))


def ann_recall(
    found: np.ndarray,
    exact: np.ndarray,
    found_scores: np.ndarray | None = None,
    exact_scores: np.ndarray | None = None,
) -> np.ndarray:
    """Share of the exact neighbours that an approximate search found: float64 [Q], NaN for a query without neighbours.

    Args:
        found: int64 [Q, K], item numbers that were found; -1: none.
        exact: int64 [Q, K], item numbers of the exact neighbours; -1: none.
        found_scores: float32 [Q, K], exact inner products of the items found.
        exact_scores: float32 [Q, K], inner products of the exact neighbours. With both scores, an item with a score as high as
            the exact K-th neighbour's counts as found, because among equal vectors the choice of K is arbitrary.
    """
    real = found >= 0
    hit = real & (found[:, :, None] == exact[:, None, :]).any(axis=2)
    wanted = (exact >= 0).sum(axis=1)
    if found_scores is not None and exact_scores is not None:
        worst = np.where(exact >= 0, exact_scores, np.inf).min(axis=1, initial=np.inf)
        hit |= real & (found_scores >= worst[:, None] - 2e-6)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.minimum(hit.sum(axis=1), wanted) / np.where(wanted > 0, wanted, np.nan)


def coverage(embedded: int, active: int) -> float:
    """Share of the active items that have an embedding, in [0, 1]; 1.0 for an empty catalog."""
    return embedded / active if active else 1.0
