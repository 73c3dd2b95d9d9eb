"""Free queries, as BLIP-2's Q-Former has them (Li et al. 2023, arXiv 2301.12597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.attention import Block, CrossAttention
from tgq.encoder.connectors.connector import Connector


class QFormer(Connector):
    """Learned queries that attend to each other, then to the picture. The metadata has no say in them."""

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        width = config.width
        self.n_exploratory = config.anchored_queries + config.exploratory_queries  # as many queries as the hybrid's
        self.queries = nn.Parameter(torch.randn(self.n_exploratory, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.among = nn.ModuleList(CrossAttention(width, config.heads, config.dropout) for _ in range(config.depth))
        self.among_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def context(self, queries: Tensor, text_tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the queries attend to before the picture, and which of it counts: themselves."""
        return queries, None

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        queries = self.queries.expand(len(image), -1, -1)
        for norm, among, block in zip(self.among_norm, self.among, self.blocks, strict=True):
            inner = norm(queries)
            queries = block(queries + among(inner, *self.context(inner, text_tokens, mask)), image)
        return self.norm(queries)
