"""No connector: the mean of both sides in one space, as a CLIP pair is fused most simply."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.connectors.concat_linear import ConcatLinear
from tgq.encoder.fusion import PlainFusion


class MeanFusion(PlainFusion):
    """Each side's projection at unit length, then the mean: neither outweighs the other, whatever it is sure of."""

    def merge(self, seen: Tensor, read: Tensor) -> Tensor:
        return (F.normalize(seen, dim=-1) + F.normalize(read, dim=-1)) / 2


class ClipMean(ConcatLinear):
    """No tokens; the head is the mean of two projections."""

    fusion = MeanFusion
