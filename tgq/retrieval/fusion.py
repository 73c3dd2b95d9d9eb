"""Reciprocal rank fusion: one ranking of several, by ranks alone, because scores of different kinds cannot be added."""

from __future__ import annotations

from collections.abc import Sequence

K = 60  # as in the paper; it keeps one first place from outweighing agreement


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], k: int = K) -> list[tuple[str, float]]:
    """All items of the rankings with their scores, best first (Cormack, Clarke and Buettcher 2009).

    An item's score is the sum of `1 / (k + rank)` over the rankings that have it, ranks from 1. Equal scores are ordered as in the
    first ranking, then as in the second, and so on. Cost: a sort of all items.

    Args:
        rankings: ids, best first; none has an id twice.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda found: -found[1])  # stable: the dict has the order of the rankings
