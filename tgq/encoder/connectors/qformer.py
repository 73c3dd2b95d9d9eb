"""The Q-Former of BLIP-2: learned queries (Li et al. 2023, arXiv 2301.12597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.connectors.connector import Connector
from tgq.encoder.layers.attention import Block, CrossAttention


class QFormer(Connector):
    """Learned queries that attend to each other, then to the visual tokens. The metadata is not used."""

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        width = config.width
        self.n_exploratory = config.anchored_queries + config.exploratory_queries  # as many queries as the hybrid connector
        self.queries = nn.Parameter(torch.randn(self.n_exploratory, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        # Self-attention. The attribute names are keys of saved weights, so they stay.
        self.among = nn.ModuleList(CrossAttention(width, config.heads, config.dropout) for _ in range(config.depth))
        self.among_norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def context(self, queries: Tensor, text_tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens that the queries attend to before the visual tokens, and their mask (None: all). Here: the queries themselves."""
        return queries, None

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, n, width]`."""
        queries = self.queries.expand(len(image), -1, -1)
        for norm, self_attention, block in zip(self.among_norm, self.among, self.blocks, strict=True):
            inner = norm(queries)
            queries = block(queries + self_attention(inner, *self.context(inner, text_tokens, mask)), image)
        return self.norm(queries)
