"""Temperatures and thresholds of heads, chosen on items of groups that the heads were not fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 20  # items from which on a temperature or a threshold is chosen
FLOOR = 0.5  # of a threshold: where most values are right, guesses that are likelier wrong than right would still fit the wanted share
TEMPERATURES = np.geomspace(0.1, 10.0, 93)


def temperature_of(logits: Tensor, target: Tensor) -> float:
    """The temperature with the smallest cross-entropy (Guo et al. 2017, arXiv 1706.04599), of TEMPERATURES; 1 for fewer than LEAST items.

    Args:
        logits: `[N, V + 1]`.
        target: `[N]`.
    """
    if len(target) < LEAST:
        return 1.0
    losses = [float(F.cross_entropy(logits / t, target)) for t in TEMPERATURES.tolist()]
    return round(float(TEMPERATURES[int(np.argmin(losses))]), 4)


def threshold_of(score: np.ndarray, right: np.ndarray, precision: float) -> float | None:
    """The lowest score, FLOOR at least, from which on the wanted share of the values is right; None if no LEAST items reach it.

    Args:
        score: `[N]`.
        right: `[N]` bool.
        precision: the wanted share, 0 to 1.
    """
    order = np.argsort(-score, kind="stable")
    sorted_score, share = score[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    is_last = np.append(sorted_score[1:] < sorted_score[:-1], True)[: len(order)]  # equal scores are said together
    good = np.flatnonzero((share >= precision) & is_last & (np.arange(len(order)) + 1 >= LEAST) & (sorted_score >= FLOOR))
    return round(float(sorted_score[good[-1]]) - 5e-7, 6) if len(good) else None


@dataclass(frozen=True)
class KeyFigures:
    """How good the values of one key are on items of groups that neither the heads nor the threshold were fitted to."""

    key: str
    items: int  # that state the key
    accuracy: float  # share of them whose most likely value is the stated one
    coverage: float  # share of them for which a value is said
    precision: float | None  # share of the said values that are the stated ones; None if none is said


def figures_of(key: str, score: np.ndarray, right: np.ndarray, said: np.ndarray) -> KeyFigures:
    """The figures of N items; all arguments are `[N]`, the last two bool."""
    n = len(score)
    return KeyFigures(key, n, float(right.mean()) if n else 0.0, float(said.mean()) if n else 0.0, float(right[said].mean()) if said.any() else None)


def best_of(probabilities: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(score, right) `[N]`: the probability of the most likely value, and whether it is the target. OTHER is never said, so it is never right."""
    score, at = probabilities[:, :-1].max(1)
    right: Tensor = at == target
    return score.numpy().astype(np.float64), right.numpy()


def targets_of(stated: list[str | None], places: dict[str, int]) -> Tensor:
    """`[N]` places of stated values, given without case and accents; the number of values for one that is not in the vocabulary, -1 for none."""
    return torch.tensor([-1 if value is None else places.get(value, len(places)) for value in stated], dtype=torch.long)
