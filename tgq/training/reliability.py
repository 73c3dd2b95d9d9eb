"""Closed-form initialisation of what judges an item's metadata by its picture (`tgq.encoder.layers.reliability`)."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.layers.heads import LightHead
from tgq.encoder.layers.reliability import Alignment, Reliability
from tgq.encoder.model import TGQFormer
from tgq.errors import ModelError, SourceError
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of

RIDGE = 3.0  # on both covariances, in mean variances
WRONG = 0.3  # share of items whose metadata is another item's, as the calibration assumes it
LEAST_ROWS = 32  # rows with a picture and a text that a correlation is fitted to
PENALTY = 1e-3  # on the squared weights of the logistic regression, in items
STEPS = 50  # of Newton's method
RANK = 64  # of the maps that estimate a missing side, for an encoder without them
BATCH = 128
STRONGEST = 0.97  # correlation; a perfect one would make the evidence infinite
CLAMP = 30.0  # log odds beyond which probabilities are 0 or 1


@torch.no_grad()
def fit_reliability(encoder: TGQFormer, rows: TrainingSet, seed: int) -> float | None:
    """Fit the shared spaces of pictures with titles and with metadata, and calibrate their evidence.

    The calibration compares pictures with their own metadata and with another item's of the same catalog. The evidence is cross-fitted:
    that of each half of the groups comes from correlations of the other half, because on their own data they would look too good.
    Groups serve for this split only: no relevance pairs are needed. Cost: `Dg^2` per row and `Dg^3`.

    Returns:
        How well the cross-fitted evidence tells an item's own metadata from another's, as area under the ROC curve. None: the encoder
        has no trust, or the rows are too few to fit it.
    """
    reliability = encoder.reliability
    if reliability is None or len(rows) < 2 * LEAST_ROWS:
        return None
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
    if not _calibrate(reliability, evidence, belongs, weights):
        return None
    odds = _odds(reliability, evidence).cpu().numpy()
    known = np.isfinite(odds)
    return auc(odds[: len(rows)][known[: len(rows)]], odds[len(rows) :][known[len(rows) :]])


def calibrated(encoder: TGQFormer, rows: TrainingSet, seed: int = 0) -> tuple[TGQFormer, float]:
    """A copy of an encoder whose trust in metadata, and what stands for a missing or distrusted side, are fitted to these rows.

    All else but the space of S_title stays. Text that is not trusted is replaced by what the picture makes one expect (`Imputation`), which differs
    from shop to shop as the trust does. Cost: two passes of the connector, and those of `fit_reliability` and `PlainFusion.fit_missing`.

    Args:
        encoder: with or without trust in metadata.
        rows: items of the catalog that it is to embed. Those without picture or metadata do not count.
        seed: of the other items whose metadata stands for wrong metadata.

    Returns:
        The encoder, in eval mode, and the area under the ROC curve of `fit_reliability`.

    Raises:
        ModelError: the encoder has no light head with gates, so it can have no such trust.
        SourceError: there are too few items with a picture and metadata.
    """
    config = dataclasses.replace(encoder.config, reliability=True, imputation=encoder.config.imputation or RANK)
    made = TGQFormer(config, encoder.relative_to)
    if made.reliability is None:
        raise ModelError(f"an encoder with connector {encoder.config.connector} and head {encoder.config.head} has no trust in metadata",
                         "choose one with the light head and gates, such as the bundled one")  # fmt: skip
    kept = {name: value for name, value in encoder.own_state().items() if not name.startswith(("alignment.", "reliability."))}
    made.load_state_dict(kept, strict=False)
    rows = rows.subset(np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1)))
    area = fit_reliability(made, rows, seed)
    if area is None:
        raise SourceError(f"{len(rows)} items have a picture and metadata, which are too few to fit the trust in metadata",
                          f"calibrate on at least {4 * LEAST_ROWS} such items")  # fmt: skip
    made.eval()
    assert isinstance(made.head, LightHead)  # no other has such a trust
    guided, unguided = (_shifted_images(made, rows, with_text) for with_text in (True, False))
    text, weight = rows.text[rows.metadata_index[:, 0]], _catalog_weights(rows)
    made.head.base.fit_missing(guided, unguided, *(torch.from_numpy(x).to(guided.device) for x in (text, weight)))
    return made, area


@torch.no_grad()
def _shifted_images(encoder: TGQFormer, rows: TrainingSet, with_text: bool) -> Tensor:
    """f_img `[R, Dg]` after the encoder's own pooling, which has or has not read the texts."""
    assert isinstance(encoder.head, LightHead)
    found, device = [], encoder.null_image.device
    for first in range(0, len(rows), BATCH):
        features = rows.features(np.arange(first, min(first + BATCH, len(rows)))).to(device)
        hidden = torch.full_like(features.has_image, not with_text)
        features = features.without(torch.zeros_like(hidden), hidden)
        found.append(encoder.head.shifted_image(features, encoder.streams(features)[0]))
    return torch.cat(found)


def auc(right: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a right item's value is above a wrong one's, the area under the ROC curve (Mann and Whitney 1947); ties count half."""
    order = np.sort(wrong)
    below, up_to = (np.searchsorted(order, right, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(wrong))


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


def _calibrate(reliability: Reliability, evidence: Tensor, belongs: Tensor, weight: Tensor) -> bool:
    """Fit both logistic regressions to the evidence `[n, 2]` of title and metadata; nan: not known. Without titles to learn from they do not count.

    Returns whether there were enough rows.
    """
    known = ~evidence.isnan()

    def fitted(columns: slice, use: Tensor) -> Tensor | None:
        if min((belongs[use] > 0).sum(), (belongs[use] == 0).sum()) < LEAST_ROWS:
            return None
        return logistic_regression(evidence[use][:, columns], belongs[use], weight[use])

    if (alone := fitted(slice(1, 2), known[:, 1])) is None:
        return False
    reliability.without_title.copy_(alone)
    both = fitted(slice(0, 2), known.all(1))
    reliability.with_title.copy_(F.pad(alone, (1, 0)) if both is None else both)
    return True


def _odds(reliability: Reliability, evidence: Tensor) -> Tensor:
    """Log odds `[n]` of evidence `[n, 2]` of title and metadata; nan where that of the metadata is not known."""
    both, alone = reliability.with_title, reliability.without_title
    of_title, of_metadata = evidence.T
    return torch.where(of_title.isnan(), alone[0] * of_metadata + alone[1], both[0] * of_title + both[1] * of_metadata + both[2])


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

