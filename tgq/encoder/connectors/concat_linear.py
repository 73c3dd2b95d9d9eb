"""No connector: a linear map of the concatenated pooled features of both towers."""

from __future__ import annotations

from torch import Tensor

from tgq.encoder.connectors.connector import Connector


class ConcatLinear(Connector):
    """A connector without tokens. The head is its linear base alone."""

    has_tokens = False

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """No tokens: `[B, 0, width]`."""
        return image[:, :0]
