"""The item side of a joint training: item embeddings from the frozen towers' pooled features, with a head that learns."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.fusion import PlainFusion
from tgq.query_training.data.judged import Items

TILE = 4096  # items at once


class ItemSide(nn.Module):
    """A head's fusion of both sides of N items (`PlainFusion`, or its mixture of bilinear experts).

    It equals the encoder for designs without connector tokens. With tokens, `items.image` must be the picture's feature after the
    connector has shifted it (`LightHead.shifted_image`); the connector then stays as it is.

    trust: float32 [N], trust in the metadata, 0 to 1; None: 1.
    """

    def __init__(self, base: PlainFusion, items: Items, trust: np.ndarray | None = None):
        super().__init__()
        self._trust = None if trust is None else torch.from_numpy(trust)
        self.base, self._items = base, items
        self._has_image, self._has_text = torch.from_numpy(items.has_image), torch.from_numpy(items.has_text)

    def forward(self, rows: np.ndarray) -> Tensor:
        """Unit embeddings `[n, De]` of the items at `rows`, int64 [n]."""
        device, at = self.base.image.device, torch.from_numpy(rows)
        image, text = (torch.from_numpy(side[rows]).to(device) for side in (self._items.image, self._items.text))
        trust = None if self._trust is None else self._trust[at].to(device)
        return F.normalize(self.base(image, self._has_image[at].to(device), text, self._has_text[at].to(device), trust), dim=-1)

    @torch.no_grad()
    def vectors(self) -> np.ndarray:
        """Embeddings of all items, float32 [N, De]."""
        n = len(self._items)
        parts = [self(np.arange(start, min(start + TILE, n))).float().cpu().numpy() for start in range(0, n, TILE)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.base.image)), np.float32)
