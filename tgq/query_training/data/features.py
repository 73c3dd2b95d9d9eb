"""Text features of queries in training: computed once while the checkpoint is frozen, and for every batch once its layers are trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tgq.query_tower.batching import by_length
from tgq.query_tower.tower import QueryTower
from tgq.query_training.data.batches import Batch

BATCH = 256  # texts in a pass of the checkpoint


class TextFeatures:
    """Pooled features of the texts of some queries, at least one.

    Cost: a pass of the checkpoint per query, at the first use only if the tower trains no layer of it; then 4 * Dp bytes a query.
    """

    def __init__(self, tower: QueryTower, texts: Sequence[str]):
        self._tower, self._texts, self._kept = tower, list(texts), None if tower.config.trained_layers else Tensor()

    @torch.no_grad()
    def all(self) -> Tensor:
        """Float32 `[n, Dp]` on the CPU, of the tower as it is."""
        if self._kept is not None and len(self._kept):
            return self._kept
        out = torch.from_numpy(by_length(self._texts, lambda part: self._tower.pooled(part).float().cpu().numpy(), BATCH))
        if self._kept is not None:
            self._kept = out
        return out

    def of(self, batch: Batch) -> Tensor:
        """`[B, Dp]` of a batch of these queries, with gradients of the trained layers."""
        if self._kept is None:
            return self._tower.pooled(batch.texts)
        return self.all()[batch.queries].to(self._tower.project.weight.device)

    @torch.no_grad()
    def vectors(self) -> np.ndarray:
        """float32 [n, De]: the tower's vectors of the queries."""
        return self._tower(self.all().to(self._tower.project.weight.device)).float().cpu().numpy()
