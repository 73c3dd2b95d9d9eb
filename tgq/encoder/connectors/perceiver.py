"""The Perceiver resampler of Flamingo (Alayrac et al. 2022, arXiv 2204.14198)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.connectors.connector import Connector
from tgq.encoder.layers.attention import Block


class PerceiverResampler(Connector):
    """Learned latents that attend to the visual tokens and to each other in one attention layer. The metadata is not used."""

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        self.n_exploratory = config.anchored_queries + config.exploratory_queries  # as many latents as the hybrid connector has queries
        self.latents = nn.Parameter(torch.randn(self.n_exploratory, config.width) * 0.02)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.dropout) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, n, width]`."""
        latents = self.latents.expand(len(image), -1, -1)
        for block in self.blocks:
            latents = block(latents, torch.cat([image, latents], dim=1))
        return self.norm(latents)
