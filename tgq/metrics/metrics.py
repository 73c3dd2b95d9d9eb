"""Retrieval metrics of each query, from the exact ranks of its positives (`ranks.count_above` + 1).

With m positives at ranks r_1 < ... < r_m (1 is best):
    hit_rate@K  1 if r_1 <= K
    recall@K    |{i: r_i <= K}| / m
    mrr         1 / r_1, without a cutoff
    map         1/m * sum_i i / r_i, over the full ranking (average precision, trec_eval's `map`)
    ndcg@K      sum_{r_i <= K} g_i / log2(r_i + 1), divided by the same sum for the best possible order
                (Jarvelin and Kekalainen 2002, linear gains as in trec_eval; gains are 1 by default)
    in_category_hit_rate@K  hit_rate in the pool of the query's own category

Where gains are graded, all positives have a gain in ndcg, and hit_rate, recall, mrr and map may be of the `relevant` ones only (trec_eval's -l).

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
    ndcg_cutoffs: tuple[int, ...] = (NDCG_CUTOFF,),
    relevant: np.ndarray | None = None,
) -> QueryMetrics:
    """Compute all metrics of Q queries.

    Args:
        offsets: int64 [Q + 1]; the positives of query i are offsets[i]:offsets[i + 1].
        ranks: int64 [P], at least 1, in any order and without duplicates within a query.
        gains: float [P], positive weights for ndcg; None: all 1.
        in_category_ranks: int64 [P], ranks within the query's category; None omits in_category_hit_rate.
        cutoffs: the K of hit_rate, recall and in_category_hit_rate.
        ndcg_cutoffs: the K of ndcg.
        relevant: bool [P], the positives that hit_rate, recall, mrr and map are of; None: all. These are NaN for a query without one.

    Raises:
        ValueError: a rank is below 1, a gain is not positive, or lengths differ.

    Cost: one sort of P ranks for each cutoff of ndcg, and one; memory 8 * Q * M bytes.
    """
    gains = np.ones(len(ranks)) if gains is None else np.asarray(gains, np.float64)
    if offsets[-1] != len(ranks) or len(gains) != len(ranks):
        raise ValueError(f"offsets end at {offsets[-1]}, ranks: {len(ranks)}, gains: {len(gains)}")
    if len(ranks) and (np.min(ranks) < 1 or not np.min(gains) > 0):
        raise ValueError("ranks start at 1 and gains are positive")
    counts = np.diff(offsets)
    query, ranks = np.repeat(np.arange(len(counts)), counts), np.asarray(ranks)
    columns = _of_relevant(len(counts), query, ranks, cutoffs) if relevant is None else _of_relevant(
        len(counts), query[relevant], ranks[relevant], cutoffs
    )  # fmt: skip
    columns |= {Metric("ndcg", k): ndcg(offsets, ranks, gains, k) for k in ndcg_cutoffs}
    if in_category_ranks is not None:
        nearest = np.full(len(counts), np.iinfo(np.int64).max)
        np.minimum.at(nearest, query, in_category_ranks)
        columns |= {Metric("in_category_hit_rate", k): np.where(counts > 0, nearest <= k, np.nan) for k in cutoffs}
    return QueryMetrics(np.stack(list(columns.values()), axis=1).astype(np.float64), tuple(columns))


def ndcg(offsets: np.ndarray, ranks: np.ndarray, gains: np.ndarray, k: int) -> np.ndarray:
    """ndcg@K of Q queries, float64 [Q]; NaN for a query without positives. Arguments as for `query_metrics`."""
    counts = np.diff(offsets)
    query = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(ranks)) - offsets[:-1][query]
    best = gains[np.lexsort((-gains, query))]  # each query's gains, in falling order
    with np.errstate(invalid="ignore", divide="ignore"):
        gained = np.bincount(query, np.where(ranks <= k, gains / np.log2(ranks + 1), 0), len(counts))
        return gained / np.bincount(query, np.where(place < k, best / np.log2(place + 2), 0), len(counts))


def _of_relevant(queries: int, query: np.ndarray, ranks: np.ndarray, cutoffs: tuple[int, ...]) -> dict[Metric, np.ndarray]:
    """The metrics in which all relevant items count alike. `query` int64 [P], ascending: the query of each rank."""
    counts = np.bincount(query, minlength=queries)
    ranks = ranks[np.lexsort((ranks, query))]
    place = np.arange(len(ranks)) - (np.cumsum(counts) - counts)[query]  # 0 for the best item of a query, 1 for the second best ...

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(query, values, queries)

    def share(hits: np.ndarray) -> np.ndarray:
        return np.where(counts > 0, hits, np.nan)

    with np.errstate(invalid="ignore", divide="ignore"):  # the metrics of a query without relevant items are NaN
        best = total(np.where(place == 0, ranks, 0))
        columns = {Metric("hit_rate", k): share(best <= k) for k in cutoffs}
        columns |= {Metric("recall", k): total(ranks <= k) / counts for k in cutoffs}
        columns[Metric("mrr", None)] = share(1 / best)
        columns[Metric("map", None)] = total((place + 1) / ranks) / counts
    return columns


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
