"""No connector: a mixture of bilinear experts over both towers' pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.connectors.concat_linear import ConcatLinear
from tgq.encoder.layers.fusion import PlainFusion
from tgq.encoder.layers.linear import Linear

EXPERTS, RANK = 4, 64


class BilinearExperts(PlainFusion):
    """Plain fusion plus a weighted sum of experts, each a low-rank bilinear product of both sides (Kim et al. 2017, arXiv 1610.04325).

    A softmax over experts gives the weights (Shazeer et al. 2017, arXiv 1701.06538). The products start at zero.
    """

    def __init__(self, image_width: int, text_width: int, dim: int, image_root: bool = True, imputation: int = 0):
        super().__init__(image_width, text_width, dim, image_root, imputation)
        self.of_image, self.of_text = Linear(dim, EXPERTS * RANK), Linear(dim, EXPERTS * RANK)
        self.choose = Linear(2 * dim, EXPERTS)
        self.out = Linear(EXPERTS * RANK, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def merge(self, image: Tensor, text: Tensor) -> Tensor:
        """The sum `[B, De]` of both projections and of the experts' products."""
        share = self.choose(torch.cat([image, text], dim=-1)).softmax(-1).repeat_interleave(RANK, dim=-1)
        return image + text + self.out(share * self.of_image(image) * self.of_text(text))


class MoEBilinear(ConcatLinear):
    """A connector without tokens. The head is a mixture of bilinear experts."""

    fusion = BilinearExperts
