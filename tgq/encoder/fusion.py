"""The linear base: both frozen towers' pooled features in one vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT_FLOOR = 1e-3


class PlainFusion(nn.Module):
    """A linear map of the frozen towers' pooled features: `W_i u(r(f_img) - mean) + W_t u(f_txt - mean)`, u = unit length.

    r is the signed square root, which keeps a few loud channels of a picture from deciding everything (Perronnin,
    Sánchez, Mensink 2010); off, it is the identity. The strong base of the light head. `W` starts as a random
    projection, which keeps the cosine of the concatenated features up to noise; `fit` replaces it by what a catalog's
    groups say. A side that is missing is a learned vector.
    """

    image_mean: Tensor
    text_mean: Tensor

    def __init__(self, image_width: int, text_width: int, dim: int, image_root: bool = True):
        super().__init__()
        self.image_root = image_root
        self.image = nn.Parameter(torch.randn(dim, image_width) / dim**0.5)
        self.text = nn.Parameter(torch.randn(dim, text_width) / dim**0.5)
        self.null_image = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.null_text = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.register_buffer("image_mean", torch.zeros(image_width))
        self.register_buffer("text_mean", torch.zeros(text_width))

    def forward(self, image: Tensor, has_image: Tensor, text: Tensor, has_text: Tensor) -> Tensor:
        """`[B, Dg]`, `[B]`, `[B, Dp]`, `[B]` to `[B, De]`, not normalised."""
        seen = F.linear(F.normalize(self.rooted(image) - self.image_mean, dim=-1), self.image)
        read = F.linear(F.normalize(text - self.text_mean, dim=-1), self.text)
        return self.merge(torch.where(has_image[:, None], seen, self.null_image), torch.where(has_text[:, None], read, self.null_text))

    def merge(self, seen: Tensor, read: Tensor) -> Tensor:
        """Both sides' projections `[B, De]` to one; a rival's fusion does it otherwise."""
        return seen + read

    def rooted(self, image: Tensor) -> Tensor:
        """Signed square root of `[..., Dg]`, with a slope at 0 that training survives; the identity where it is off."""
        return image / (image.abs() + ROOT_FLOOR).sqrt() if self.image_root else image

    @torch.no_grad()
    def fit(self, image: Tensor, text: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float) -> None:
        """Set means and maps from pooled features `[n, Dg]` and `[n, Dp]` of n items and their groups and catalogs `[n]`.

        Within-class covariance normalisation (Hatch, Kajarekar, Stolcke 2006) of `z = [w u_img, (1-w) u_txt]`,
        w = `image_weight`: what differs between items of one group is divided out, `(S_within + floor s I)^(-1/2)`, s the
        mean variance of all; then the leading principal directions of the result (which are the same from any root of the
        inverse, so from the cheapest, Cholesky's). A catalog counts with the square root of its groups. Closed form;
        `(Dg + Dp)^3` operations, whatever n.
        """
        learned = _learn(self.rooted(image), text, group, catalog, image_weight, floor)
        maps = learned.leading(len(self.image))
        maps /= (learned.joined(self.rooted(image), text) @ maps.T).norm(dim=-1).mean().clamp(min=1e-12)
        self.image_mean.copy_(learned.image_mean)
        self.text_mean.copy_(learned.text_mean)
        self.image.copy_(maps[:, : image.shape[1]] * image_weight)
        self.text.copy_(maps[:, image.shape[1]:] * (1 - image_weight))

    @torch.no_grad()
    def tried(
        self, image: Tensor, text: Tensor, learning: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float, leading: bool
    ) -> Tensor:  # fmt: skip
        """`[n, De]`: what `fit` to those of the rows that are `learning` `[n]` (bool) would make of all of them; without `leading`
        `[n, Dg + Dp]`, in all directions: the same cosines but for the directions that `fit` leaves out, and no eigenvectors to find."""
        image = self.rooted(image)
        learned = _learn(image[learning], text[learning], group[learning], catalog[learning], image_weight, floor)
        z = learned.joined(image, text)
        return z @ learned.leading(len(self.image)).T if leading else torch.linalg.solve_triangular(learned.root, z.T, upper=False).T


class _Learned(NamedTuple):
    """What pooled features and groups say: means, covariance of all `[D, D]` and a root (lower) of that within groups."""

    image_mean: Tensor
    text_mean: Tensor
    image_weight: float
    total: Tensor
    root: Tensor

    def joined(self, image: Tensor, text: Tensor) -> Tensor:
        """`[n, D]`: z of `fit`."""
        return _joined(image, text, self.image_mean, self.text_mean, self.image_weight)

    def leading(self, dim: int) -> Tensor:
        """`[dim, D]`: maps of z to the directions that differ most once what differs within groups is divided out; zeros where D is less."""
        flat = torch.linalg.solve_triangular(self.root, self.total, upper=False)
        flat = torch.linalg.solve_triangular(self.root, flat.T, upper=False)
        kept = torch.linalg.eigh(flat)[1][:, -dim:]
        maps = torch.zeros(dim, len(flat), device=flat.device)
        maps[: kept.shape[1]] = torch.linalg.solve_triangular(self.root.T, kept, upper=True).T
        return maps


def _learn(image: Tensor, text: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float) -> _Learned:
    """From rooted pooled features `[n, Dg]`, `[n, Dp]`, groups and catalogs `[n]`."""
    per_catalog = [torch.where(catalog == c)[0] for c in catalog.unique()]
    image_mean, text_mean = (torch.stack([x[rows].mean(0) for rows in per_catalog]).mean(0) for x in (image, text))
    z = _joined(image, text, image_mean, text_mean, image_weight)
    within, total = (torch.zeros(z.shape[1], z.shape[1], device=z.device) for _ in range(2))
    weights = 0.0
    for rows in per_catalog:
        own, (groups, place, sizes) = z[rows], group[rows].unique(return_inverse=True, return_counts=True)
        weight = len(groups) ** 0.5
        inside = (own - _group_means(own, place, sizes))[sizes[place] > 1]
        if len(inside):
            within += weight * inside.T @ inside / len(inside)
        total += weight * torch.cov(own.T, correction=0)
        weights += weight
    within, total = within / weights, total / weights
    ridge = (floor * total.diagonal().mean()).clamp(min=1e-12) * torch.eye(len(total), device=z.device)  # items that are all alike have none
    return _Learned(image_mean, text_mean, image_weight, total, torch.linalg.cholesky(within + ridge))


def _joined(image: Tensor, text: Tensor, image_mean: Tensor, text_mean: Tensor, image_weight: float) -> Tensor:
    return torch.cat([image_weight * F.normalize(image - image_mean, dim=-1), (1 - image_weight) * F.normalize(text - text_mean, dim=-1)], dim=-1)


def _group_means(rows: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """Each row's group mean `[n, D]`."""
    sums = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, place, rows)
    return (sums / sizes[:, None])[place]
