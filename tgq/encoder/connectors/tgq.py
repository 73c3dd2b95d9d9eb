"""The hybrid-query connector of TGQ-Former (arXiv 2605.17366)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.connectors.connector import Connector
from tgq.encoder.layers.attention import Block
from tgq.encoder.layers.linear import Linear


class HybridConnector(Connector):
    """Metadata-anchored and exploratory queries over the visual tokens.

    `Q_txt = Conv1D(H_txt) W_Q`: a convolution compresses the text tokens along their length, then they are projected. `Q_rnd`
    is learned. Both cross-attend to `H_img` in the same blocks. Queries do not attend to each other, so no metadata reaches the
    exploratory stream. The paper does not specify this, nor the number of queries, the depth and the width; these are ours.
    """

    gated = decorrelated = True

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        width = config.width
        self.n_anchored, self.n_exploratory = self.counts(config)
        self.window = -(-text_length // self.n_anchored)
        self.text_norm = nn.LayerNorm(text_width, elementwise_affine=False)
        self.compress = nn.Conv1d(text_width, width, kernel_size=self.window, stride=self.window)
        self.to_query = Linear(width, width)
        self.exploratory = nn.Parameter(torch.randn(self.n_exploratory, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def counts(config) -> tuple[int, int]:
        """Number of anchored and number of exploratory queries."""
        return config.anchored_queries, config.exploratory_queries

    def anchored_queries(self, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """`Q_txt [B, n_anchored, width]` of text tokens `[B, L, Dt]` and their mask `[B, L]`. Masked tokens are set to zero."""
        text = self.text_norm(text_tokens) * mask[..., None]
        text = F.pad(text.transpose(1, 2), (0, self.window * self.n_anchored - text.shape[1]))
        return self.to_query(self.compress(text).transpose(1, 2))

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, n_anchored + n_exploratory, width]`, the anchored ones first."""
        exploratory = self.exploratory.expand(len(image), -1, -1)
        queries = torch.cat([self.anchored_queries(text_tokens, mask), exploratory], dim=1)
        for block in self.blocks:
            queries = block(queries, image)
        return self.norm(queries)
