"""The linear base of the light head: it maps the pooled features of both frozen towers to one vector."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT_FLOOR = 1e-3
IMPUTED = 0.5  # of the expectation; with all of it an item without text is too near to typical items of its kind
RIDGE = 1.0  # of the regression that fills in a missing side, in mean variances


class Imputation(nn.Module):
    """What one side is expected to add to the embedding, given the other side: a linear map of low rank.

    It starts at zero. `fit` computes reduced-rank ridge regression (Izenman 1975) in closed form.
    """

    def __init__(self, width: int, dim: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Parameter(torch.zeros(rank, width)), nn.Parameter(torch.zeros(dim, rank))

    def forward(self, known: Tensor) -> Tensor:
        """`[B, De]` for the known side `[B, D]`."""
        return F.linear(F.linear(known, self.down), self.up)

    @torch.no_grad()
    def fit(self, known: Tensor, missing: Tensor, weight: Tensor) -> None:
        """Fit to n items. Cost: `D^2` per item and `D^3`.

        Args:
            known: `[n, D]`, the side that is there.
            missing: `[n, De]`, what the other side adds to the embedding.
            weight: `[n]` of the items.
        """
        weighted = known * (weight / weight.sum())[:, None]
        covariance = weighted.T @ known
        ridge = (RIDGE * covariance.diagonal().mean()).clamp(min=1e-12) * torch.eye(len(covariance), device=known.device)
        maps = torch.linalg.solve(covariance + ridge, weighted.T @ missing)
        directions = torch.linalg.eigh(maps.T @ covariance @ maps)[1][:, -len(self.down):]
        self.up[:, : directions.shape[1]] = directions
        self.down[: directions.shape[1]] = (maps @ directions).T


class PlainFusion(nn.Module):
    """Linear fusion of pooled features: `W_i u(r(f_img) - mean) + W_t u(f_txt - mean)`, with u(x) = x at unit length.

    r is the signed square root, which limits the influence of a few dominant image channels (Perronnin, Sánchez, Mensink
    2010), or the identity if `image_root` is off. `W` starts as a random projection, which preserves the cosine of the
    concatenated features up to noise. `fit` replaces it by a map that is fitted to a catalog's groups.

    A missing image or text is replaced by a learned vector plus, with `imputation`, IMPUTED times what the other side makes one expect.
    Text that is trusted only in part is replaced by that part of it. Otherwise items that lack the same side would be near each other,
    whatever they are.
    """

    image_mean: Tensor
    text_mean: Tensor

    def __init__(self, image_width: int, text_width: int, dim: int, image_root: bool = True, imputation: int = 0):
        super().__init__()
        self.image_root = image_root
        self.image_expected = Imputation(text_width, dim, imputation) if imputation else None
        self.text_expected = Imputation(image_width, dim, imputation) if imputation else None
        self.image = nn.Parameter(torch.randn(dim, image_width) / dim**0.5)
        self.text = nn.Parameter(torch.randn(dim, text_width) / dim**0.5)
        self.null_image = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.null_text = nn.Parameter(torch.randn(dim) * 0.1 / dim**0.5)
        self.register_buffer("image_mean", torch.zeros(image_width))
        self.register_buffer("text_mean", torch.zeros(text_width))

    def forward(
        self, image: Tensor, has_image: Tensor, text: Tensor, has_text: Tensor, trust: Tensor | None = None, dropout: float = 0.0
    ) -> Tensor:  # fmt: skip
        """Embeddings `[B, De]`, not normalised.

        Args:
            image: `[B, Dg]`. has_image: `[B]` bool.
            text: `[B, Dp]`. has_text: `[B]` bool.
            trust: `[B]`, trust in the text, 0 to 1; None: 1.
            dropout: share of the features that are left out at random, for training.
        """
        image, text = self._unit_sides(image, text)
        if dropout:
            image, text = F.dropout(image, dropout), F.dropout(text, dropout)
        no_image, no_text = self.null_image, self.null_text
        if self.image_expected is not None and self.text_expected is not None:
            no_image = no_image + IMPUTED * self.image_expected(text * has_text[:, None])
            no_text = no_text + IMPUTED * self.text_expected(image * has_image[:, None])
        trust = has_text.to(text.dtype) if trust is None else trust * has_text
        of_image, of_text = F.linear(image, self.image), F.linear(text, self.text)
        of_text = torch.lerp(no_text.to(of_text.dtype).expand_as(of_text), of_text, trust[:, None].to(of_text.dtype))
        return self.merge(torch.where(has_image[:, None], of_image, no_image), of_text)

    def _unit_sides(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """u(r(f_img) - mean) and u(f_txt - mean), `[B, Dg]` and `[B, Dp]`."""
        return F.normalize(self.signed_root(image) - self.image_mean, dim=-1), F.normalize(text - self.text_mean, dim=-1)

    def merge(self, image: Tensor, text: Tensor) -> Tensor:
        """Combine the projections of both sides, `[B, De]` each. Subclasses replace the sum."""
        return image + text

    def signed_root(self, image: Tensor) -> Tensor:
        """Signed square root of `[..., Dg]`, with a finite slope at 0 so that gradients stay finite; the identity if switched off."""
        return image / (image.abs() + ROOT_FLOOR).sqrt() if self.image_root else image

    @torch.no_grad()
    def fit(
        self, image: Tensor, text: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float, unguided: Tensor | None = None
    ) -> None:  # fmt: skip
        """Fit means and maps to n items, in closed form.

        The method is within-class covariance normalisation (Hatch, Kajarekar, Stolcke 2006) of
        `z = [w u_img, (1 - w) u_txt]`. It divides out the differences between items of one group by
        `(S_within + floor s I)^(-1/2)`, where s is the mean variance of all items. It then keeps the leading principal directions
        of the result. These do not depend on which root of the inverse is used, so the cheapest one is: Cholesky's. Each catalog
        has the weight of the square root of its number of groups. Cost: `(Dg + Dp)^3` operations, independent of n.

        Args:
            image: `[n, Dg]`, pooled image features.
            text: `[n, Dp]`, pooled text features.
            group: `[n]`, group number of each item.
            catalog: `[n]`, catalog number of each item.
            image_weight: w, the share of the image in z, in (0, 1).
            floor: ridge, in units of s.
            unguided: `[n, Dg]`, image features that the text had no influence on; None: `image`. Missing texts are estimated from them.
        """
        statistics = _statistics(self.signed_root(image), text, group, catalog, image_weight, floor)
        maps = statistics.leading(len(self.image))
        maps /= (statistics.concatenate(self.signed_root(image), text) @ maps.T).norm(dim=-1).mean().clamp(min=1e-12)
        self.image_mean.copy_(statistics.image_mean)
        self.text_mean.copy_(statistics.text_mean)
        self.image.copy_(maps[:, : image.shape[1]] * image_weight)
        self.text.copy_(maps[:, image.shape[1]:] * (1 - image_weight))
        weight = torch.ones_like(text[:, 0])
        for c in catalog.unique():
            own = catalog == c
            weight[own] = len(group[own].unique()) ** 0.5 / own.sum()
        self.fit_missing(image, image if unguided is None else unguided, text, weight)

    @torch.no_grad()
    def fit_missing(self, image: Tensor, unguided: Tensor, text: Tensor, weight: Tensor) -> None:
        """Fit what stands for a missing side to n items that have both; nothing without `imputation`. Needs no groups.

        Args:
            image: `[n, Dg]`, pooled image features. unguided: `[n, Dg]`, those that the text had no influence on.
            text: `[n, Dp]`, pooled text features.
            weight: `[n]` of the items.
        """
        if self.image_expected is None or self.text_expected is None:
            return
        guided, texts = self._unit_sides(image, text)
        self.image_expected.fit(texts, F.linear(guided, self.image), weight)
        self.text_expected.fit(self._unit_sides(unguided, text)[0], F.linear(texts, self.text), weight)
        self.null_image.zero_()
        self.null_text.zero_()

    @torch.no_grad()
    def fit_and_project(
        self, image: Tensor, text: Tensor, learning: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float, leading: bool
    ) -> Tensor:  # fmt: skip
        """Projections of n items under a fit to some of them. The module itself stays unchanged.

        Args:
            learning: `[n]` bool, the items to fit to. The other arguments are those of `fit`.
            leading: project to the De directions that `fit` keeps. Otherwise to all directions, which needs no eigenvectors and gives
                the same cosines apart from the directions that `fit` drops.

        Returns:
            `[n, De]` if `leading`, else `[n, Dg + Dp]`.
        """
        image = self.signed_root(image)
        statistics = _statistics(image[learning], text[learning], group[learning], catalog[learning], image_weight, floor)
        z = statistics.concatenate(image, text)
        return z @ statistics.leading(len(self.image)).T if leading else torch.linalg.solve_triangular(statistics.root, z.T, upper=False).T


class _Statistics(NamedTuple):
    """Means of the pooled features, total covariance `[D, D]` and lower Cholesky root of the covariance within groups, D = Dg + Dp."""

    image_mean: Tensor
    text_mean: Tensor
    image_weight: float
    total: Tensor
    root: Tensor

    def concatenate(self, image: Tensor, text: Tensor) -> Tensor:
        """z of `fit`, `[n, D]`."""
        return _concatenate(image, text, self.image_mean, self.text_mean, self.image_weight)

    def leading(self, dim: int) -> Tensor:
        """Maps `[dim, D]` of z to its leading directions after within-group whitening; the rows beyond D are zero."""
        flat = torch.linalg.solve_triangular(self.root, self.total, upper=False)
        flat = torch.linalg.solve_triangular(self.root, flat.T, upper=False)
        directions = torch.linalg.eigh(flat)[1][:, -dim:]
        maps = torch.zeros(dim, len(flat), device=flat.device)
        maps[: directions.shape[1]] = torch.linalg.solve_triangular(self.root.T, directions, upper=True).T
        return maps


def _statistics(image: Tensor, text: Tensor, group: Tensor, catalog: Tensor, image_weight: float, floor: float) -> _Statistics:
    """Statistics of features `[n, Dg]` (after the signed root) and `[n, Dp]` with groups and catalogs `[n]`."""
    per_catalog = [torch.where(catalog == c)[0] for c in catalog.unique()]
    image_mean, text_mean = (torch.stack([x[rows].mean(0) for rows in per_catalog]).mean(0) for x in (image, text))
    z = _concatenate(image, text, image_mean, text_mean, image_weight)
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
    # The clamp keeps the matrix invertible when all items are equal and the variance is zero.
    ridge = (floor * total.diagonal().mean()).clamp(min=1e-12) * torch.eye(len(total), device=z.device)
    return _Statistics(image_mean, text_mean, image_weight, total, torch.linalg.cholesky(within + ridge))


def _concatenate(image: Tensor, text: Tensor, image_mean: Tensor, text_mean: Tensor, image_weight: float) -> Tensor:
    return torch.cat([image_weight * F.normalize(image - image_mean, dim=-1), (1 - image_weight) * F.normalize(text - text_mean, dim=-1)], dim=-1)


def _group_means(rows: Tensor, place: Tensor, sizes: Tensor) -> Tensor:
    """The mean of each row's group, `[n, D]`."""
    sums = rows.new_zeros(len(sizes), rows.shape[1]).index_add_(0, place, rows)
    return (sums / sizes[:, None])[place]
