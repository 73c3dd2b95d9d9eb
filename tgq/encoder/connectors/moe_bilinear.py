"""No connector: a mixture of bilinear experts over both towers' pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tgq.encoder.connectors.concat_linear import ConcatLinear
from tgq.encoder.fusion import PlainFusion

EXPERTS, RANK = 4, 64


class BilinearExperts(PlainFusion):
    """Plain fusion plus, for each expert, a low-rank bilinear product of both sides (Kim et al. 2017, arXiv 1610.04325),
    weighed by a softmax over experts (Shazeer et al. 2017, arXiv 1701.06538). The products start at zero."""

    def __init__(self, image_width: int, text_width: int, dim: int, image_root: bool = True):
        super().__init__(image_width, text_width, dim, image_root)
        self.of_image, self.of_text = nn.Linear(dim, EXPERTS * RANK), nn.Linear(dim, EXPERTS * RANK)
        self.choose = nn.Linear(2 * dim, EXPERTS)
        self.out = nn.Linear(EXPERTS * RANK, dim, bias=False)
        nn.init.zeros_(self.out.weight)

    def merge(self, seen: Tensor, read: Tensor) -> Tensor:
        share = self.choose(torch.cat([seen, read], dim=-1)).softmax(-1).repeat_interleave(RANK, dim=-1)
        return seen + read + self.out(share * self.of_image(seen) * self.of_text(read))


class MoEBilinear(ConcatLinear):
    """No tokens; the head is a mixture of bilinear experts."""

    fusion = BilinearExperts
