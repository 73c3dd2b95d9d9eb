"""Closed-form initialisation of what judges an item's metadata by its picture (`tgq.encoder.layers.reliability`)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.reliability import Alignment, Reliability
from tgq.encoder.model import TGQFormer
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of

RIDGE = 3.0  # on both covariances, in mean variances
WRONG = 0.3  # share of items whose metadata is another item's, as the calibration assumes it
LEAST_ROWS = 32  # rows with a picture and a text that a correlation is fitted to
PENALTY = 1e-3  # on the squared weights of the logistic regression, in items
STEPS = 50  # of Newton's method
STRONGEST = 0.97  # correlation; a perfect one would make the evidence infinite
CLAMP = 30.0  # log odds beyond which probabilities are 0 or 1


@torch.no_grad()
def fit_reliability(encoder: TGQFormer, rows: TrainingSet, seed: int) -> None:
    """Fit the shared spaces of pictures with titles and with metadata, and calibrate their evidence.

    The calibration compares pictures with their own metadata and with another item's of the same catalog. The evidence is cross-fitted:
    that of each half of the groups comes from correlations of the other half, because on their own data they would look too good.
    Cost: `Dg^2` per row and `Dg^3`.
    """
    reliability = encoder.reliability
    if reliability is None or len(rows) < 2 * LEAST_ROWS:
        return
    device = encoder.null_image.device
    image, text, title = (torch.from_numpy(x).to(device) for x in
                          (rows.image[rows.image_index], rows.text[rows.metadata_index[:, 0]], rows.title[rows.title_index]))
    titled = title.abs().sum(1) > 0
    weight = torch.from_numpy(_catalog_weights(rows)).to(device)
    other = torch.from_numpy(others(rows, np.random.default_rng(seed))).to(device)
    first = torch.from_numpy(np.array([split_of(f"{group}:reliability") == "test" for group in rows.group], bool)).to(device)
    right, wrong = (torch.full((len(rows), 2), float("nan"), device=device) for _ in range(2))
    for learning in (first, ~first):
        for column, space, texts, usable in ((0, encoder.alignment, title, titled), (1, reliability.metadata, text, torch.ones_like(titled))):
            if fit_alignment(space, image, texts, weight * (learning & usable)):
                asked = ~learning & usable
                right[asked, column] = space.evidence(image[asked], texts[asked])
                asked = ~learning & usable[other]
                wrong[asked, column] = space.evidence(image[asked], texts[other[asked]])
    fit_alignment(encoder.alignment, image, title, weight * titled)
    fit_alignment(reliability.metadata, image, text, weight)
    evidence, belongs = torch.cat([right, wrong]), torch.cat([torch.ones(len(rows)), torch.zeros(len(rows))]).to(device)
    weights = torch.cat([weight * (1 - WRONG), weight * WRONG])
    _calibrate(reliability, evidence, belongs, weights)


@torch.no_grad()
def fit_alignment(space: Alignment, image: Tensor, text: Tensor, weight: Tensor) -> bool:
    """Set the projections by canonical correlation analysis (Hotelling 1936) with a ridge; each direction is scaled by the root of its correlation.

    Args:
        image: `[n, Dg]`. text: `[n, Dp]`.
        weight: `[n]`; rows of weight 0 are left out.

    Returns:
        Whether there were enough rows. An aligned pair keeps its own space, which counts as enough.
    """
    if not isinstance(space.image, nn.Linear):
        return True
    assert isinstance(space.title, nn.Linear)
    use = weight > 0
    if use.sum() < LEAST_ROWS:
        return False
    share = (weight[use] / weight[use].sum())[:, None]
    sides = [F.normalize(x[use], dim=-1) for x in (image, text)]
    means = [(x * share).sum(0) for x in sides]
    sides = [x - mean for x, mean in zip(sides, means, strict=True)]
    whitening = [_whitening((x * share).T @ x) for x in sides]
    left, correlation, right = torch.linalg.svd(whitening[0].T @ ((sides[0] * share).T @ sides[1]) @ whitening[1], full_matrices=False)
    k, correlation = min(space.image.out_features, len(correlation)), correlation.clamp(0, STRONGEST)
    for layer, root, directions, mean in zip((space.image, space.title), whitening, (left, right.T), means, strict=True):
        maps = torch.zeros_like(layer.weight)
        maps[:k] = (root @ directions[:, :k] * correlation[:k].sqrt()).T
        layer.weight.copy_(maps)
        layer.bias.copy_(-maps @ mean)
    if space.correlation is not None:
        space.correlation.zero_()
        space.correlation[:k] = correlation[:k]
    return True


def _whitening(covariance: Tensor) -> Tensor:
    variance, directions = torch.linalg.eigh(covariance)
    return directions / (variance.clamp(min=0) + RIDGE * variance.mean()).clamp(min=1e-12).sqrt()


def _catalog_weights(rows: TrainingSet) -> np.ndarray:
    """`[R]` float32: each catalog has the weight of the square root of its number of groups, as in the linear base."""
    weight = np.ones(len(rows), np.float32)
    for catalog in np.unique(rows.catalog):
        own = rows.catalog == catalog
        weight[own] = len(np.unique(rows.group[own])) ** 0.5 / own.sum()
    return weight * len(rows) / weight.sum()


def others(rows: TrainingSet, draw: np.random.Generator) -> np.ndarray:
    """`[R]` int: for each row a random one of the same catalog and another group, or the row itself if there is none."""
    other = np.arange(len(rows))
    for catalog in np.unique(rows.catalog):
        own = np.flatnonzero(rows.catalog == catalog)
        for _ in range(8):  # a drawn row of the same group is drawn again
            same = own[rows.group[other[own]] == rows.group[own]]
            other[same] = draw.choice(own, len(same))
    return other


def _calibrate(reliability: Reliability, evidence: Tensor, belongs: Tensor, weight: Tensor) -> None:
    """Fit both logistic regressions to the evidence `[n, 2]` of title and metadata; nan: not known. Without titles to learn from they do not count."""
    known = ~evidence.isnan()

    def fitted(columns: slice, use: Tensor) -> Tensor | None:
        if min((belongs[use] > 0).sum(), (belongs[use] == 0).sum()) < LEAST_ROWS:
            return None
        return logistic_regression(evidence[use][:, columns], belongs[use], weight[use])

    if (alone := fitted(slice(1, 2), known[:, 1])) is None:
        return
    reliability.without_title.copy_(alone)
    both = fitted(slice(0, 2), known.all(1))
    reliability.with_title.copy_(F.pad(alone, (1, 0)) if both is None else both)


def logistic_regression(inputs: Tensor, belongs: Tensor, weight: Tensor) -> Tensor:
    """Weights and bias `[k + 1]` of a logistic regression with a small ridge, by Newton's method.

    Args:
        inputs: `[n, k]`. belongs: `[n]`, 0 or 1. weight: `[n]`.
    """
    x = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1).double()
    weight, belongs, found = weight.double(), belongs.double(), x.new_zeros(x.shape[1])
    ridge = PENALTY * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    for _ in range(STEPS):
        odds = (x @ found).clamp(-CLAMP, CLAMP)
        p = odds.sigmoid()
        slope = x.T @ (weight * (belongs - p)) - ridge @ found
        curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + ridge
        step = torch.linalg.solve(curvature, slope)
        found = found + step * min(1.0, 10.0 / float(step.norm().clamp(min=1e-12)))
    return found.float()

