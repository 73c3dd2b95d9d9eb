"""No connector: a linear map of both towers' concatenated features."""

from __future__ import annotations

from torch import Tensor

from tgq.encoder.connectors.connector import Connector


class ConcatLinear(Connector):
    """No tokens, so the head is its linear base alone."""

    looks = False

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        return image[:, :0]
