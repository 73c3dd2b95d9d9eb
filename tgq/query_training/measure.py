"""NDCG of queries over items in memory: it chooses weights during training. Nights and studies are measured by tgq.evaluation."""

from __future__ import annotations

import numpy as np

from tgq.metrics.metrics import query_metrics
from tgq.query_training.data.judged import JudgedQueries

TILE = 256  # queries that are compared with all items at once


def graded_metrics(asking: np.ndarray, vectors: np.ndarray, queries: JudgedQueries) -> dict[str, np.ndarray]:
    """Metrics of each query over all items: ndcg@1, ndcg@10, recall@100 and mrr, float64 [Q] each. Items without a judgment count as irrelevant.

    Args:
        asking: float32 [Q, De], unit vectors of the queries.
        vectors: float32 [N, De], unit item embeddings.
        queries: each with at least one item of a gain.

    Ties count against an item: it ranks behind all others of its score. Cost: Q * N inner products; memory TILE * N floats.
    """
    ranks = np.zeros(len(queries.items), np.int64)
    for start in range(0, len(queries), TILE):
        stop = min(start + TILE, len(queries))
        scores = asking[start:stop] @ vectors.T
        for number in range(start, stop):
            judged = slice(queries.offsets[number], queries.offsets[number + 1])
            own = scores[number - start]
            behind = np.sort(own)
            ranks[judged] = len(own) - np.searchsorted(behind, own[queries.items[judged]], "left")
    return metrics_of_ranks(queries, ranks)


def metrics_of_ranks(queries: JudgedQueries, ranks: np.ndarray) -> dict[str, np.ndarray]:
    """The same metrics from the rank of each judged item, int64 [J], from 1. Items without a gain are not counted as found."""
    relevant = queries.gains > 0
    counts = np.bincount(queries.rows[relevant], minlength=len(queries))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = query_metrics(offsets, ranks[relevant], queries.gains[relevant], None, (100,), (1, 10))
    return {"ndcg@1": found.column("ndcg", 1), "ndcg@10": found.column("ndcg", 10), "recall@100": found.column("recall", 100), "mrr": found.column("mrr")}
