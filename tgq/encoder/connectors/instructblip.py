"""Learned queries that attend to the metadata, as InstructBLIP's attend to the instruction (Dai et al. 2023, arXiv 2305.06500)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.connectors.qformer import QFormer
from tgq.encoder.layers.linear import Linear


class InstructBLIP(QFormer):
    """A Q-Former whose self-attention runs over the queries and the metadata tokens together."""

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        self.text_in = nn.Sequential(nn.LayerNorm(text_width, elementwise_affine=False), Linear(text_width, config.width))

    def context(self, queries: Tensor, text_tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Queries and metadata tokens `[B, n + L, width]`, and the mask `[B, n + L]` without the padding."""
        unmasked = torch.cat([mask.new_ones(queries.shape[:2]), mask], dim=1)
        return torch.cat([queries, self.text_in(text_tokens)], dim=1), unmasked
