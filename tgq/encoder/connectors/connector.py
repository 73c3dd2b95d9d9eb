"""The interface of all connectors: tokens from an image and a text, and the class attributes that describe a design."""

from __future__ import annotations

from torch import Tensor, nn

from tgq.encoder.layers.fusion import PlainFusion


class Connector(nn.Module):
    """`forward(H_img [B, N, width], H_txt [B, L, Dt], mask [B, L]) -> tokens [B, n, width]`.

    Built with `(config, text_width, text_length)`. The first `n_anchored` output tokens are metadata-anchored, the others
    exploratory.
    """

    gated = False  # whether the dual gates scale its two streams
    decorrelated = False  # whether it is trained with L_rr
    fusion: type[PlainFusion] = PlainFusion  # the head's fusion of both towers' pooled features
    n_anchored = 0  # metadata-anchored tokens
    has_tokens = True  # whether it has tokens that guide the pooling of the image

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__()

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, n, width]`."""
        raise NotImplementedError
