"""No connector: the mean of both sides' projections, the simplest fusion of a CLIP pair."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.connectors.concat_linear import ConcatLinear
from tgq.encoder.layers.fusion import PlainFusion


class MeanFusion(PlainFusion):
    """The mean of both sides' projections at unit length, so that both sides have equal weight."""

    def merge(self, image: Tensor, text: Tensor) -> Tensor:
        """The mean `[B, De]` of both unit vectors."""
        return (F.normalize(image, dim=-1) + F.normalize(text, dim=-1)) / 2


class ClipMean(ConcatLinear):
    """A connector without tokens. The head is the mean of two projections."""

    fusion = MeanFusion
