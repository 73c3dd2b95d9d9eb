"""Retrieval metrics per query, from the exact ranks of its positives (`ranks.count_above` + 1).

With m positives at ranks r_1 < ... < r_m (1 is best):
    hit_rate@K  1 if r_1 <= K
    recall@K    |{i: r_i <= K}| / m
    mrr         1 / r_1, no cutoff
    map         1/m * sum_i i / r_i, over the full ranking (average precision, trec_eval's `map`)
    ndcg@10     sum_{r_i <= 10} g_i / log2(r_i + 1) over the same sum for the best possible order
                (Jarvelin and Kekalainen 2002, linear gains as in trec_eval; gains are 1 unless given)
    in_category_hit_rate@K  hit_rate with the pool restricted to the query's own category
Two more names belong to a night and not to a query's ranks: `ann_recall` and `coverage`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ALL = "all"  # the slice that every query is in
CUTOFFS = (1, 5, 10, 20, 50, 100)
NDCG_CUTOFF = 10


class Metric(NamedTuple):
    """A column of `QueryMetrics.values`; k is None where the metric has no cutoff."""

    name: str
    k: int | None


@dataclass(frozen=True)
class QueryMetrics:
    """values: float64 [Q, M], a row of NaN for a query without positives; columns: the M metrics."""

    values: np.ndarray
    columns: tuple[Metric, ...]

    def column(self, name: str, k: int | None = None) -> np.ndarray:
        return self.values[:, self.columns.index(Metric(name, k))]


def query_metrics(
    offsets: np.ndarray,
    ranks: np.ndarray,
    gains: np.ndarray | None = None,
    in_category_ranks: np.ndarray | None = None,
    cutoffs: tuple[int, ...] = CUTOFFS,
) -> QueryMetrics:
    """All metrics of all queries.

    Args:
        offsets: int64 [Q + 1]; query i owns the positives offsets[i]:offsets[i + 1].
        ranks: int64 [P], at least 1, in any order within a query, no rank twice within a query.
        gains: float [P], positive weights for ndcg; None: 1 each.
        in_category_ranks: int64 [P]; None leaves in_category_hit_rate out.
        cutoffs: the K of hit_rate, recall and in_category_hit_rate.

    Raises:
        ValueError: a rank under 1, a gain that is not positive, or lengths that disagree.

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
    place = np.arange(len(ranks)) - offsets[:-1][query]  # 0 for a query's best positive, 1 for its second ...

    with np.errstate(invalid="ignore", divide="ignore"):  # a query without positives becomes NaN

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
    """Share of the exact neighbours that an approximate search found: float64 [Q], NaN where there are none.

    Args:
        found, exact: int64 [Q, K] ids, -1 where missing.
        found_scores, exact_scores: float32 [Q, K], true inner products. With them, an item as good as the
            exact K-th counts too: among copies of one vector, no K are more right than the others.
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
    """Share of the active items that have an embedding; 1.0 for an empty catalog (nothing is missing)."""
    return embedded / active if active else 1.0
