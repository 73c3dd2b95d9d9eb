"""Closed-form initialisation of an encoder from a training set, before the first gradient step.

It sets the anchor (vocabulary, correlation, strength), the weight share of the close-ups and the light head's linear base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.layers.anchor import STRENGTH, Moments
from tgq.encoder.layers.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of
from tgq.training.loss.ranking import catalog_mrr
from tgq.training.reliability import fit_reliability

CORRELATION_ROWS = 6000  # maximum number of rows that the correlation is fitted to, drawn evenly from the catalogs
BATCH = 128
STRENGTHS = (0.0, 0.375, 0.75)
SHARES = (0.0, 0.25, 0.5)
FLOORS = (0.2, 0.8, 3.2)
MRR_TOLERANCE = 0.005  # the smallest ridge within this MRR of the best is chosen, because half of the rows favour too large a ridge


@dataclass(frozen=True)
class InitialisationConfig:
    """Settings of the initialisation. The base class of TrainConfig, so the field names are also keys of training.json."""

    seed: int = 0  # of every random draw
    vocabulary: bool = True  # the anchor uses the class names of the vision checkpoint
    correlation: bool = True  # the anchor is fitted to the correlation of visual tokens and texts
    strength: float | None = None  # of the anchor; None: the one of STRENGTHS with the best MRR on held-out groups
    closeup_share: float | None = None  # weight share of the close-ups in the pooled image; None: chosen likewise from SHARES
    image_weight: float = 0.45  # linear base: share of the image in the concatenation
    base_floor: float | None = None  # linear base: ridge on the within-group covariance, in mean variances; None: chosen likewise from FLOORS


@torch.no_grad()
def initialise(encoder: TGQFormer, rows: TrainingSet, config: InitialisationConfig) -> dict[str, float]:
    """Initialise the anchor, the close-ups' share, the light head's linear base and the trust in metadata. Other weights stay unchanged.

    The steps are:

    1. Set the anchor's vocabulary.
    2. Fit the correlation of tokens and texts, with the vocabulary's scores as a guess of which tokens show the item.
    3. Choose the anchor's strength, the close-ups' share and the base's ridge by cross-validation over two halves of the groups:
       each half is ranked by a correlation and a base that are fitted to the other half. The pool is all rows. A pool without the
       fitted groups would hide that a fit to few groups moves their items too close to everything else.
    4. Fit the linear base to the pooled features that result, and the maps that estimate a missing side.
    5. Fit and calibrate the trust in metadata (`fit_reliability`).

    Cost: for the correlation `Dv^2` per token of at most 6,000 rows; for each half and strength a pass over all tokens; for each
    share the base's `(Dg + Dp)^2` per row; for each half and ridge a fit of the base, `(Dg + Dp)^3`. The connector is not run.

    Returns:
        The chosen `strength`, `closeup_share` and `base_floor`, as far as the encoder has them.

    Raises:
        TgqError: a tower feature is infinite or not a number.
    """
    encoder.eval()
    if not all(np.isfinite(x).all() for x in (rows.image, rows.text)) or not np.isfinite(rows.image_tokens.sum(dtype=np.float64)):
        raise TgqError("the tower features contain values that are not finite numbers", "check the towers' weights")
    rows = rows.subset(np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1)))
    if not len(rows):
        return {}
    anchor, tower = encoder.anchor, encoder.vision
    vocabulary = torch.zeros(len(rows), tower.tokens_per_image, device=encoder.null_image.device)
    if anchor is not None:
        if config.vocabulary and tower.vocabulary:
            anchor.set_vocabulary(tower.vocabulary, tower.class_directions(), lambda names: encoder.text(names)[2])
        vocabulary = _scores(encoder, rows, anchor.vocabulary_scores)
    halves = _halves(rows)
    moments = [_moments(encoder, rows, vocabulary, half, config) for half in halves]
    floor = _choose(encoder, rows, vocabulary, halves, moments, config) if isinstance(encoder.head, LightHead) else 0.0
    _fit_correlation(encoder, sum(moments, Moments()))
    chosen = {} if anchor is None else {"strength": float(anchor.strength)}
    if not isinstance(encoder.head, LightHead):
        return chosen
    logits = vocabulary if anchor is None else anchor.logits(vocabulary, _scores(encoder, rows, anchor.correlation_scores), anchor.strength)
    share = float(encoder.head.pooling.share) if encoder.head.pooling.closeups else 0.0
    (image,) = _shifted_images(encoder, rows, logits, [share])
    unguided = _shifted_images(encoder, rows, torch.zeros_like(logits), [share])[0] if encoder.config.imputation else image
    group, catalog, text = _labels(rows, image.device)
    encoder.head.base.fit(image, text, group, catalog, config.image_weight, floor, unguided)
    fit_reliability(encoder, rows, config.seed)
    return {**chosen, "closeup_share": share, "base_floor": floor}


def _choose(
    encoder: TGQFormer, rows: TrainingSet, vocabulary: Tensor, halves: list[np.ndarray], moments: list[Moments], config: InitialisationConfig
) -> float:  # fmt: skip
    """Set the anchor's strength and the close-ups' share, and return the base's ridge: the values with the best cross-validated MRR.

    Each half of the groups is ranked by a correlation and a base that are fitted to the other half. On its own data a
    correlation would look too good, and a base fitted to few rows moves them too close to each other and to all other rows.
    A value without alternatives, or a set without rows in both halves, needs no ranking.
    """
    anchor, pooling = encoder.anchor, light(encoder).pooling
    strengths = [0.0] if anchor is None else STRENGTHS if config.strength is None else [config.strength]
    shares = [0.0] if not (pooling.closeups and encoder.connector.has_tokens) else SHARES if config.closeup_share is None else [config.closeup_share]
    floors = FLOORS if config.base_floor is None else [config.base_floor]
    has_both_halves = all(half.any() for half in halves)
    chosen, floor, best, images = (strengths[0], shares[0]), floors[0], -1.0, []

    def mrr_of(images: list[Tensor], floor: float, leading: bool) -> float:
        return _cross_validated_mrr(encoder, rows, images, halves, config.image_weight, floor, leading)

    if has_both_halves and len(strengths) * len(shares) * len(floors) > 1:
        for setting, pooled in _pooled_images(encoder, rows, vocabulary, halves, moments, strengths, shares):
            mrr = mrr_of(pooled, floor, leading=False) if len(strengths) * len(shares) > 1 else 0.0
            if mrr > best:
                chosen, best, images = setting, mrr, pooled
    if has_both_halves and len(floors) > 1:  # leading directions only: with the others a small training set ranks worse than its final fit
        by_floor = {floor: mrr_of(images, floor, leading=True) for floor in floors}
        floor = min(floor for floor in floors if by_floor[floor] >= max(by_floor.values()) - MRR_TOLERANCE)
    if anchor is not None and (images or config.strength is not None):
        anchor.strength.fill_(chosen[0])
    if pooling.closeups:
        pooling.share.fill_(chosen[1])
    return floor


def _pooled_images(
    encoder: TGQFormer, rows: TrainingSet, vocabulary: Tensor, halves: list[np.ndarray], moments: list[Moments], strengths: Sequence[float],
    shares: Sequence[float],
) -> Iterator[tuple[tuple[float, float], list[Tensor]]]:  # fmt: skip
    """For each (strength, share): the pooled images `[R, Dg]`, once for each half as queries, with the correlation of the other half."""
    logits: dict[float, list[Tensor]] = {s: [] for s in strengths}
    for other_half in reversed(moments) if any(strengths) else ():
        _fit_correlation(encoder, other_half)
        assert encoder.anchor is not None  # without an anchor every strength is 0
        correlation = _scores(encoder, rows, encoder.anchor.correlation_scores)
        for s in filter(None, strengths):
            logits[s].append(encoder.anchor.logits(vocabulary, correlation, s))
    for strength in strengths:
        ends = sorted({0.0, float(max(shares) > 0)})
        pooled = [_shifted_images(encoder, rows, x, ends) for x in logits[strength] or [torch.zeros_like(vocabulary)]]
        pooled *= len(halves) // len(pooled)  # at strength 0 all logits are zero, so both halves have the same images
        for share in shares:  # the pooled image is linear in the share, so it is interpolated between shares 0 and 1
            yield (strength, share), [torch.lerp(images[0], images[-1], share) for images in pooled]


def _halves(rows: TrainingSet) -> list[np.ndarray]:
    """Two complementary masks `[R]` bool that split the rows by group."""
    first = np.array([split_of(f"{group}:start") == "test" for group in rows.group], bool)
    return [first, ~first]


def _cross_validated_mrr(
    encoder: TGQFormer, rows: TrainingSet, images: list[Tensor], halves: list[np.ndarray], weight: float, floor: float, leading: bool
) -> float:  # fmt: skip
    """Mean over both halves of the MRR of a linear base that is fitted to the other half.

    Args:
        images: pooled images `[R, Dg]` for each half.
        leading: see `PlainFusion.fit_and_project`.
    """
    group, catalog, text = _labels(rows, images[0].device)
    scores = []
    for image, queries in zip(images, halves, strict=True):
        learning = torch.from_numpy(~queries).to(image.device)
        vectors = light(encoder).base.fit_and_project(image, text, learning, group, catalog, weight, floor, leading)
        scores.append(catalog_mrr(F.normalize(vectors, dim=-1).cpu().numpy().__getitem__, rows, queries))
    return float(np.mean(scores))


def _labels(rows: TrainingSet, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Group numbers `[R]`, catalog numbers `[R]` and pooled metadata texts `[R, Dp]`."""
    group_names = np.char.add(np.char.add(rows.catalog, "\0"), rows.group)
    group, catalog = (torch.from_numpy(np.unique(x, return_inverse=True)[1]).to(device) for x in (group_names, rows.catalog))
    return group, catalog, torch.from_numpy(rows.text[rows.metadata_index[:, 0]]).to(device)


def _fit_correlation(encoder: TGQFormer, moments: Moments) -> None:
    if encoder.anchor is not None:
        encoder.anchor.correlation.zero_()
        encoder.anchor.fit_correlation(moments)


def _moments(encoder: TGQFormer, rows: TrainingSet, vocabulary: Tensor, half: np.ndarray, config: InitialisationConfig) -> Moments:
    """Moments of tokens and texts over the rows of `half` (`[R]` bool); every catalog has the same weight.

    A token's weight is a guess from the vocabulary's scores `[R, N]` alone. Close-ups are left out, because they would repeat
    what the grid shows.
    """
    anchor, grid = encoder.anchor, vocabulary.shape[1] - encoder.vision.n_closeups
    if anchor is None or not config.correlation:
        return Moments()
    guess = anchor.logits(vocabulary, torch.zeros_like(vocabulary), STRENGTH)[:, :grid].softmax(-1)
    catalogs, draw = sorted(set(rows.catalog[half].tolist())), np.random.default_rng(config.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for catalog in catalogs:
            own = draw.permutation(np.flatnonzero((rows.catalog == catalog) & half))[: CORRELATION_ROWS // 2 // len(catalogs)]
            for part in _batches(own):
                f = rows.features(part).to(guess.device)
                yield f.image_tokens[:, :grid], f.text, guess[part] / len(own)

    return Moments.of(batches())


def _scores(encoder: TGQFormer, rows: TrainingSet, source: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The scores `[R, N]` of one of the anchor's sources for all rows."""
    features = (rows.features(part).to(encoder.null_image.device) for part in _batches(np.arange(len(rows))))
    return torch.cat([source(f.image_tokens, f.text) for f in features])


def _shifted_images(encoder: TGQFormer, rows: TrainingSet, logits: Tensor, shares: list[float]) -> list[Tensor]:
    """f_img `[R, Dg]` after the pooling of an untrained connector, for each close-up share; `logits` are the anchor's `[R, N]`.

    Without logits and shares nothing shifts f_img, so no token is read.
    """
    head = light(encoder)
    pooling = head.pooling
    if not logits.any() and not any(shares):
        return [torch.from_numpy(rows.image[rows.image_index]).to(logits.device)]
    images: list[list[Tensor]] = [[] for _ in shares]
    for part in _batches(np.arange(len(rows))):
        f, streams = rows.features(part).to(logits.device), Streams.untrained(logits[part], encoder.config.width)
        for share, parts in zip(shares, images, strict=True):
            if pooling.closeups:
                pooling.share.fill_(share)
            parts.append(head.shifted_image(f, streams))
    return [torch.cat(parts) for parts in images]


def light(encoder: TGQFormer) -> LightHead:
    """The encoder's light head, which has a linear base."""
    assert isinstance(encoder.head, LightHead)
    return encoder.head


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]
