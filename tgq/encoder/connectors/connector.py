"""What every connector is: tokens from a picture and a text, and what else belongs to its design."""

from __future__ import annotations

from torch import Tensor, nn

from tgq.encoder.fusion import PlainFusion


class Connector(nn.Module):
    """`forward(H_img [B, N, width], H_txt [B, L, Dt], mask [B, L]) -> tokens [B, n, width]`.

    Built with `(config, text_width, text_length)`. The first `n_anchored` tokens are metadata-anchored.
    """

    gated = False  # the dual gates weigh its two streams
    decorrelated = False  # it is trained with L_rr
    fusion: type[PlainFusion] = PlainFusion  # the head's map of both towers' pooled features
    n_anchored = 0
    looks = True  # it has tokens, that say where to look

    def __init__(self, config, text_width: int, text_length: int):
        super().__init__()

    def forward(self, image: Tensor, text_tokens: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError
