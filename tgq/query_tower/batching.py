"""Batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def by_length(texts: Sequence[str], encode: Callable[[list[str]], np.ndarray], size: int) -> np.ndarray:
    """Rows of `encode` for at least one text, in their order. Texts of similar length share a batch, so short ones are not padded to the longest."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found = np.concatenate([encode([texts[i] for i in order[start : start + size]]) for start in range(0, len(order), size)])
    out = np.empty_like(found)
    out[order] = found
    return out
