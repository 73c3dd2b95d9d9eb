"""The losses, as pure functions of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    queries: Tensor, positives: Tensor, scale: Tensor, known: Tensor, hard: Tensor | None = None, hard_known: Tensor | None = None
) -> Tensor:
    """Symmetric in-batch InfoNCE: row i of `queries [P, D]` belongs to row i of `positives [P, D]`, both unit length.

    Args:
        scale: inverse temperature.
        known: `[P, P]` bool, pairs off the diagonal that must not count as negatives (same group, same picture).
        hard: `[H, D]` further negatives of the queries; `hard_known [P, H]` bool, those that must not count.
    """
    logits = scale * queries @ positives.T
    known = known & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits, target = logits.masked_fill(known, float("-inf")), torch.arange(len(logits), device=logits.device)
    forth = logits
    if hard is not None and len(hard):
        assert hard_known is not None
        forth = torch.cat([logits, (scale * queries @ hard.T).masked_fill(hard_known, float("-inf"))], dim=1)
    return (F.cross_entropy(forth, target) + F.cross_entropy(logits.T, target)) / 2


def redundancy(anchored: Tensor, exploratory: Tensor) -> Tensor:
    """`L_rr = mean_k c_k^2`, `c_k` the correlation over the batch of both streams' channel k (arXiv 2605.17366).

    `[B, D]` each, in float32 whatever comes in; a constant channel has no correlation and counts as 0.
    """
    a, b = (x.float() - x.float().mean(0) for x in (anchored, exploratory))
    correlation = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-6)
    return correlation.square().mean()


def relation(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines within a batch, `[B, D]` and the teacher's `[B, T]`, both unit length.

    Similarity-preserving distillation (Tung, Mori 2019; arXiv 1907.09682): keeps what the frozen towers know about items
    that no training pair speaks of. Other widths than the teacher's are no matter.
    """
    return (embeddings @ embeddings.T - teacher @ teacher.T).square().mean()
