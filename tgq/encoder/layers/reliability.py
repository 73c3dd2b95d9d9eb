"""How far an item's metadata is trusted: the probability that it belongs to the item's picture (ours)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.features import Features
from tgq.encoder.layers.linear import Linear

CERTAIN = 30.0  # log odds whose sigmoid is 1 in float32


class Alignment(nn.Module):
    """A shared space of pictures and texts, whose cosine is the agreement of the two: `S_title = cos(f_img, f_title)`.

    The towers of an aligned pair such as CLIP share a space already, so their features are used as they are. For other towers there are
    two projections: canonical correlation analysis (`tgq.training.reliability`), or a contrastive image-text loss.

    Args:
        learned: False for an aligned pair.
        centred: the projections subtract a mean.
    """

    correlation: Tensor  # [A] of the directions, if they are canonical; zero before they are fitted

    def __init__(self, image_width: int, text_width: int, dim: int, learned: bool, centred: bool = False):
        super().__init__()
        self.register_buffer("correlation", torch.zeros(dim) if learned and centred else None)
        self.image = Linear(image_width, dim, bias=centred) if learned else nn.Identity()
        self.title = Linear(text_width, dim, bias=centred) if learned else nn.Identity()

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Image `[B, Dg]` and text `[B, Dp]` in the shared space, `[B, A]` each, unit length; a missing one is meaningless."""
        image, text = self.image(F.normalize(image, dim=-1)), self.title(F.normalize(text, dim=-1))
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1)

    def cosine(self, image: Tensor, text: Tensor) -> Tensor:
        """The agreement `[B]` of images `[B, Dg]` and texts `[B, Dp]`, in [-1, 1]."""
        image, text = self(image, text)
        return (image * text).sum(-1)

    def evidence(self, image: Tensor, text: Tensor) -> Tensor:
        """How much speaks for images `[B, Dg]` and texts `[B, Dp]` belonging together, `[B]`.

        In a canonical space it is the log-likelihood ratio of a pair against two unrelated sides, under a joint Gaussian:
        `sum_k -log(1 - r^2) / 2 - (r (x^2 + y^2) - 2 x y) / (2 (1 - r^2))`, where x and y are projections times the root of their
        correlation r. In the space of an aligned pair it is the cosine.
        """
        if self.correlation is None:
            return self.cosine(image, text)
        x, y, r = self.image(F.normalize(image, dim=-1)), self.title(F.normalize(text, dim=-1)), self.correlation
        rest = 1 - r.square()
        return (-rest.log() / 2 - (r * (x.square() + y.square()) - 2 * x * y) / (2 * rest)).sum(-1)


class Reliability(nn.Module):
    """The probability that metadata belongs to the picture, from the evidence of the title and of the whole metadata.

    Logistic regression calibrates both (Platt 1999). Before it is fitted, all metadata is trusted.
    """

    with_title: Tensor  # [3] weights of both kinds of evidence, and the bias
    without_title: Tensor  # [2] weight of the metadata's evidence, and the bias

    def __init__(self, image_width: int, text_width: int, dim: int, learned: bool):
        super().__init__()
        self.metadata = Alignment(image_width, text_width, dim, learned, centred=True).requires_grad_(False)
        self.register_buffer("with_title", torch.tensor([0.0, 0.0, CERTAIN]))
        self.register_buffer("without_title", torch.tensor([0.0, CERTAIN]))

    def forward(self, features: Features, title_space: Alignment) -> Tensor:
        """The probability `[B]`; 1 for an item without picture or without metadata, where nothing contradicts.

        Args:
            title_space: the space of S_title.
        """
        f, both, alone = features, self.with_title, self.without_title
        of_title, of_metadata = title_space.evidence(f.image, f.title), self.metadata.evidence(f.image, f.text)
        odds = torch.where(f.has_title, both[0] * of_title + both[1] * of_metadata + both[2], alone[0] * of_metadata + alone[1])
        return torch.where(f.has_image & f.has_text, odds.sigmoid(), 1.0)
