"""No connector: a linear map of both towers' concatenated features."""

from __future__ import annotations

from torch import Tensor, nn


class ConcatLinear(nn.Module):
    """No tokens, so the head is its linear base alone."""

    gated, decorrelated, fusion, n_anchored = False, False, None, 0

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__()

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        return image[:, :0]
