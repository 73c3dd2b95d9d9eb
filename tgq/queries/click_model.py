"""Clicks as grades: how often a rank is examined, and how often an item is clicked for the query where it is examined.

The model is position-based: P(click | query, item, rank) = examination(rank) x attraction(query, item) (Craswell et al. 2008). Both are
estimated in turn, each as clicks over the clicks that the other one leads to expect. The first round is that of clicks over expected
clicks (Zhang and Jones 2007). Later rounds take into account that better items stand higher, as far as an item is seen at several ranks.

Attraction is relative: 1 is that of an average item, so that the same thresholds fit shops with many and with few clicks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

ROUNDS = 5  # the estimates hardly move after these
DEEPEST = 200  # ranks; lower ones count as this one, so that what is summed by rank stays small


def examination(clicks: np.ndarray, shown: np.ndarray, prior: float) -> np.ndarray:
    """Share of the impressions at each rank that are examined, [R] in (0, 1]; 1 at the rank that is examined most.

    Ranks without evidence follow 1 / (1 + rank) (the propensity of Joachims et al. 2017 with exponent 1).

    Args:
        clicks: [R] clicks by rank, from the first.
        shown: [R] impressions by rank, each counted by the attraction of its item.
        prior: impressions that the expectation by rank is worth; above 0.
    """
    expected = 1 / (1 + np.arange(len(clicks)))
    base = clicks.sum() / max(float((shown * expected).sum()), 1e-12)
    if not base:
        return expected
    rate = (clicks + prior * base * expected) / (shown + prior)
    return rate / rate.max()


def attraction(clicks: Any, expected: Any, prior: float) -> Any:
    """Clicks over expected clicks, drawn to 1 where little was expected; above 0.

    Args:
        clicks, expected: of an item for a query; numbers, arrays or columns of Spark.
        prior: expected clicks that the average is worth; above 0.
    """
    return (clicks + prior) / (expected + prior)


def fit(clicks: np.ndarray, shown_under: Callable[[np.ndarray, float], np.ndarray], prior: float) -> tuple[np.ndarray, float]:
    """(examination by rank [R], clicks per examined impression of an average item), after ROUNDS rounds.

    Args:
        clicks: [R] all clicks by rank.
        shown_under: gives [R] impressions by rank, each counted by the attraction of its item, under an examination and a rate of clicks;
            one pass over the log's sums. A rate of 0 asks for the plain impressions.
        prior: as of `examination`.
    """
    flat = np.ones(len(clicks))
    plain = shown_under(flat, 0.0)
    found = examination(clicks, plain, prior)
    for _ in range(ROUNDS - 1):
        found = examination(clicks, shown_under(found, rate_of(clicks, plain, found)), prior)
    return found, rate_of(clicks, plain, found)


def rate_of(clicks: np.ndarray, impressions: np.ndarray, examined: np.ndarray) -> float:
    """Clicks per examined impression, over all ranks; 0 without impressions."""
    total = float((impressions * examined).sum())
    return float(clicks.sum()) / total if total else 0.0
