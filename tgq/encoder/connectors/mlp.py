"""An MLP on each visual token, without attention, as in LLaVA-1.5 (Liu et al. 2023, arXiv 2310.03744)."""

from __future__ import annotations

from torch import Tensor, nn

from tgq.encoder.connectors.connector import Connector
from tgq.encoder.layers.linear import Linear


class MLPConnector(Connector):
    """Two layers per visual token, with a residual connection. It outputs all N visual tokens, which is costly for a language model."""

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__(config, text_width, text_length)
        width = config.width
        self.layers = nn.Sequential(Linear(width, 4 * width), nn.GELU(), nn.Dropout(config.dropout), Linear(4 * width, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, N, width]`."""
        return self.norm(image + self.layers(image))
