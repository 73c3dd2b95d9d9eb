"""The loss of a batch of queries."""

from __future__ import annotations

import torch
from torch import Tensor


def listwise(logits: Tensor, gains: Tensor) -> Tensor:
    """Cross-entropy between a query's softmax over its candidates and its gains, a scalar (ListNet, Cao et al. 2007).

    With one relevant candidate it is InfoNCE (van den Oord et al. 2018, arXiv 1807.03748).

    Args:
        logits: `[B, C]`, cosines over the temperature.
        gains: `[B, C]`, at least 0. A query without any gain among its candidates adds nothing.
    """
    total = gains.sum(1)
    target = gains / total.clamp(min=1e-12)[:, None]
    each = -(target * torch.log_softmax(logits, dim=1)).sum(1)
    return (each * (total > 0)).sum() / (total > 0).sum().clamp(min=1)
