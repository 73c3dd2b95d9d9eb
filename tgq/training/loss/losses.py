"""The loss terms, as pure functions of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_ATTENTION = 1e-6  # added to the attention inside a box, so that the loss and its gradient stay finite


def info_nce(
    queries: Tensor, positives: Tensor, scale: Tensor, excluded: Tensor, hard: Tensor | None = None, hard_excluded: Tensor | None = None,
    log_weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Symmetric in-batch InfoNCE (van den Oord et al. 2018, arXiv 1807.03748), a scalar.

    Args:
        queries: `[P, D]`, unit length.
        positives: `[P, D]`, unit length; row i is the positive of query i, all other rows are its negatives.
        scale: inverse temperature.
        excluded: `[P, P]` bool, pairs off the diagonal that must not count as negatives (same group, same image).
        hard: `[H, D]`, further negatives of the queries.
        hard_excluded: `[P, H]` bool, pairs of query and hard negative that must not count.
        log_weights: `[P, P + H]` and `[P, P]`, logarithms of the factors of `exp(s_ij / t)`: of each query's positives and hard
            negatives, and of each positive's queries. -inf leaves a negative out. None: all factors are 1.
    """
    logits = scale * queries @ positives.T
    excluded = excluded & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits, target = logits.masked_fill(excluded, float("-inf")), torch.arange(len(logits), device=logits.device)
    with_hard = logits
    if hard is not None and len(hard):
        assert hard_excluded is not None
        with_hard = torch.cat([logits, (scale * queries @ hard.T).masked_fill(hard_excluded, float("-inf"))], dim=1)
    by_query, by_positive = with_hard, logits.T
    if log_weights is not None:
        by_query, by_positive = by_query + log_weights[0], by_positive + log_weights[1]
    return (F.cross_entropy(by_query, target) + F.cross_entropy(by_positive, target)) / 2


def redundancy(anchored: Tensor, exploratory: Tensor) -> Tensor:
    """`L_rr = mean_k c_k^2`, with `c_k` the correlation of both streams' channel k over the batch (arXiv 2605.17366); a scalar.

    Both streams are `[B, D]` and are converted to float32. A channel that is constant over the batch counts as 0.
    """
    a, b = (x.float() - x.float().mean(0) for x in (anchored, exploratory))
    correlation = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp(min=1e-6)
    return correlation.square().mean()


def outside(attention: Tensor, box: Tensor) -> Tensor:
    """Minus log of the attention inside a box, mean over heads, `[B]`: 0 if each head attends to the box alone (ours).

    Args:
        attention: `[B, heads, N]`, weights that sum to 1 over the N visual tokens.
        box: `[B, N]` bool, tokens that show the item.
    """
    inside = (attention * box[:, None]).sum(-1)
    return -(inside + LEAST_ATTENTION).log().mean(1)


def separation(gate: Tensor, misleading: Tensor) -> Tensor:
    """How far the gates of misleading streams are below those of the others: the pairwise logistic loss, a scalar (Burges et al. 2005, RankNet).

    It is a smooth bound of 1 - AUC, so it asks for an order of the gates and leaves their level to the other losses. 0 if the batch has
    streams of one kind only.

    Args:
        gate: `[B]`, in (0, 2).
        misleading: `[B]`, 1: misleading, 0: not; other items do not count.
    """
    odds = (gate / 2).logit(eps=1e-4)
    difference = odds[misleading == 1][:, None] - odds[misleading == 0][None]
    return F.softplus(difference).mean() if difference.numel() else gate.new_zeros(())


def relation(embeddings: Tensor, teacher: Tensor) -> Tensor:
    """Similarity-preserving distillation (Tung, Mori 2019; arXiv 1907.09682), a scalar.

    The loss is the mean squared difference between the cosines of all item pairs of a batch under the encoder and under the
    teacher. It preserves what the frozen towers know about items that no training pair covers.

    Args:
        embeddings: `[B, D]`, unit length.
        teacher: `[B, T]`, unit length; T may differ from D.
    """
    return (embeddings @ embeddings.T - teacher @ teacher.T).square().mean()
