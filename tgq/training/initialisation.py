"""The closed-form start of an encoder: what can be had from a training set without one gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.anchor import STRENGTH, Moments
from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.split import split_of
from tgq.training.ranking import mean_reciprocal

CORRELATED = 6000  # rows at most that the correlation reads, drawn evenly from the catalogs
BATCH = 128
STRENGTHS = (0.0, 0.375, 0.75)
SHARES = (0.0, 0.25, 0.5)
FLOORS = (0.2, 0.8, 3.2)
AS_GOOD = 0.005  # of MRR: half of the rows ask for a higher ridge than all of them will


@dataclass(frozen=True)
class StartConfig:
    """How to start."""

    seed: int = 0
    vocabulary: bool = True  # the anchor knows the vision checkpoint's class names
    correlation: bool = True  # the anchor learns which tokens go with which texts
    strength: float | None = None  # of the anchor; none: whichever of STRENGTHS ranks held-out groups best
    closeup_share: float | None = None  # of the pooled picture that close-ups have; none: likewise, of SHARES
    image_weight: float = 0.45  # linear base: share of the picture in the concatenation
    base_floor: float | None = None  # linear base: ridge on the covariance within groups, in mean variances; none: likewise, of FLOORS


@torch.no_grad()
def start(encoder: TGQFormer, rows: TrainingSet, config: StartConfig) -> dict[str, float]:
    """Set the anchor, the close-ups' share and the light head's linear base; everything else stays as it was drawn. Gives back what
    was chosen: `strength`, `closeup_share`, `base_floor`, those that this encoder has.

    First the vocabulary; with it as a guess at which tokens show the item, the correlation of tokens and texts; then how
    strongly the anchor counts, how much close-ups do and how far the base trusts what it is fitted to, by what ranks groups best
    that correlation and base have not seen, among all rows: those of a fit to few groups come too near to everything, and only a pool that
    holds them shows it. With all that, the pooled features that the base is fitted to. Cost: the correlation's `Dv^2` per token of 6,000
    rows; for each half and strength a pass over all tokens, and for each share the base's `(Dg + Dp)^2` per row; for each half and ridge
    a fit of the base, `(Dg + Dp)^3`. The connector is not run.

    Raises:
        TgqError: features that are no numbers.
    """
    encoder.eval()
    if not all(np.isfinite(x).all() for x in (rows.image, rows.text)) or not np.isfinite(rows.image_tokens.sum(dtype=np.float64)):
        raise TgqError("the towers' features hold values that are no numbers", "look for a tower with broken weights")
    rows = rows.subset(np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1)))
    if not len(rows):
        return {}
    anchor, tower = encoder.anchor, encoder.vision
    named = torch.zeros(len(rows), tower.tokens_per_image, device=encoder.null_image.device)
    if anchor is not None:
        if config.vocabulary and tower.vocabulary:
            anchor.set_vocabulary(tower.vocabulary, tower.class_directions(), lambda names: encoder.text(names)[2])
        named = _scores(encoder, rows, anchor.vocabulary_scores)
    halves = _halves(rows)
    read = [_moments(encoder, rows, named, half, config) for half in halves]
    floor = _choose(encoder, rows, named, halves, read, config) if isinstance(encoder.head, LightHead) else 0.0
    _correlate(encoder, sum(read, Moments()))
    chosen = {} if anchor is None else {"strength": float(anchor.strength)}
    if not isinstance(encoder.head, LightHead):
        return chosen
    where = named if anchor is None else anchor.logits(named, _related(encoder, rows), anchor.strength)
    share = float(encoder.head.pooling.share) if encoder.head.pooling.closeups else 0.0
    (image,) = _moved(encoder, rows, where, [share])
    group, catalog, text = _labels(rows, image.device)
    encoder.head.base.fit(image, text, group, catalog, config.image_weight, floor)
    return {**chosen, "closeup_share": share, "base_floor": floor}


def _choose(encoder: TGQFormer, rows: TrainingSet, named: Tensor, halves: list[np.ndarray], read: list[Moments], config: StartConfig) -> float:
    """Set the anchor's strength and the close-ups' share, then find the base's ridge, which is given back: those with the best MRR of
    groups that neither correlation nor base has seen, each half by what was read of the other. A correlation knows too well where to
    look for the texts that it was learned from, and a base that was fitted to few rows brings them near to each other and to all else.
    What there is nothing to choose by stays as it stands."""
    anchor, pooling = encoder.anchor, encoder.head.pooling
    strengths = [0.0] if anchor is None else STRENGTHS if config.strength is None else [config.strength]
    shares = [0.0] if not (pooling.closeups and encoder.connector.has_tokens) else SHARES if config.closeup_share is None else [config.closeup_share]
    floors = FLOORS if config.base_floor is None else [config.base_floor]
    judged = all(half.any() for half in halves)
    chosen, floor, best, pictures = (strengths[0], shares[0]), floors[0], -1.0, []

    def found(pictures: list[Tensor], floor: float, leading: bool) -> float:
        return _mrr(encoder, rows, pictures, halves, config.image_weight, floor, leading)

    if judged and len(strengths) * len(shares) * len(floors) > 1:
        for setting, pooled in _pooled(encoder, rows, named, halves, read, strengths, shares):
            mrr = found(pooled, floor, leading=False) if len(strengths) * len(shares) > 1 else 0.0
            if mrr > best:
                chosen, best, pictures = setting, mrr, pooled
    if judged and len(floors) > 1:  # in the leading directions: the others would make small training sets look worse than they come out
        by_floor = {floor: found(pictures, floor, leading=True) for floor in floors}
        floor = min(floor for floor in floors if by_floor[floor] >= max(by_floor.values()) - AS_GOOD)
    if anchor is not None and (pictures or config.strength is not None):
        anchor.strength.fill_(chosen[0])
    if pooling.closeups:
        pooling.share.fill_(chosen[1])
    return floor


def _pooled(
    encoder: TGQFormer, rows: TrainingSet, named: Tensor, halves: list[np.ndarray], read: list[Moments], strengths: list[float], shares: list[float]
) -> Iterator[tuple[tuple[float, float], list[Tensor]]]:  # fmt: skip
    """By anchor's strength and close-ups' share: the pooled pictures `[R, Dg]`, once for each half that is asked for."""
    where: dict[float, list[Tensor]] = {s: [] for s in strengths}
    for known in reversed(read) if any(strengths) else ():
        _correlate(encoder, known)
        related = _related(encoder, rows)
        for s in filter(None, strengths):
            where[s].append(encoder.anchor.logits(named, related, s))
    for strength in strengths:
        pooled = [_moved(encoder, rows, w, sorted({0.0, float(max(shares) > 0)})) for w in where[strength] or [torch.zeros_like(named)]]
        pooled *= len(halves) // len(pooled)  # where no logit says anything, both halves pool alike
        for share in shares:  # what the pooled picture is linear in
            yield (strength, share), [torch.lerp(ends[0], ends[-1], share) for ends in pooled]


def _halves(rows: TrainingSet) -> list[np.ndarray]:
    """`[R]` bool, twice: a row is in one of them, a group as well."""
    first = np.array([split_of(f"{group}:start") == "test" for group in rows.group], bool)
    return [first, ~first]


def _mrr(encoder: TGQFormer, rows: TrainingSet, images: list[Tensor], halves: list[np.ndarray], weight: float, floor: float, leading: bool) -> float:
    """MRR of the linear base over pooled pictures `[R, Dg]`, one for each half that is asked for; their mean."""
    group, catalog, text = _labels(rows, images[0].device)
    found = []
    for image, asked in zip(images, halves, strict=True):
        learning = torch.from_numpy(~asked).to(image.device)
        vectors = encoder.head.base.fit_and_project(image, text, learning, group, catalog, weight, floor, leading)
        found.append(mean_reciprocal(F.normalize(vectors, dim=-1).cpu().numpy().__getitem__, rows, asked))
    return float(np.mean(found))


def _labels(rows: TrainingSet, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers of groups and catalogs `[R]`, and the texts `[R, Dp]`."""
    named = np.char.add(np.char.add(rows.catalog, "\0"), rows.group)
    group, catalog = (torch.from_numpy(np.unique(x, return_inverse=True)[1]).to(device) for x in (named, rows.catalog))
    return group, catalog, torch.from_numpy(rows.text[rows.metadata_index[:, 0]]).to(device)


def _correlate(encoder: TGQFormer, read: Moments) -> None:
    if encoder.anchor is not None:
        encoder.anchor.correlation.zero_()
        encoder.anchor.fit_correlation(read)


def _moments(encoder: TGQFormer, rows: TrainingSet, named: Tensor, chosen: np.ndarray, config: StartConfig) -> Moments:
    """Of those of the rows (bool), with nothing but what the vocabulary says, `named` `[R, N]`, for a guess at which tokens show what
    the text names; from the grid, which close-ups would only repeat. Every catalog weighs the same."""
    anchor, grid = encoder.anchor, named.shape[1] - encoder.vision.n_closeups
    if anchor is None or not config.correlation:
        return Moments()
    guess = anchor.logits(named, torch.zeros_like(named), STRENGTH)[:, :grid].softmax(-1)
    catalogs, draw = sorted(set(rows.catalog[chosen].tolist())), np.random.default_rng(config.seed)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for catalog in catalogs:
            own = draw.permutation(np.flatnonzero((rows.catalog == catalog) & chosen))[: CORRELATED // 2 // len(catalogs)]
            for part in _batches(own):
                f = rows.features(part).to(guess.device)
                yield f.image_tokens[:, :grid], f.text, guess[part] / len(own)

    return Moments.of(batches())


def _related(encoder: TGQFormer, rows: TrainingSet) -> Tensor | None:
    """What the correlation says `[R, N]`."""
    return None if encoder.anchor is None else _scores(encoder, rows, encoder.anchor.correlation_scores)


def _scores(encoder: TGQFormer, rows: TrainingSet, source: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`[R, N]`: what one of the anchor's sources says of tokens and texts."""
    features = (rows.features(part).to(encoder.null_image.device) for part in _batches(np.arange(len(rows))))
    return torch.cat([source(f.image_tokens, f.text) for f in features])


def _moved(encoder: TGQFormer, rows: TrainingSet, where: Tensor, shares: list[float]) -> list[Tensor]:
    """f_img `[R, Dg]` where nothing moves it but logits `[R, N]` and the close-ups' share, for each of these shares; no token is
    read where there is nothing to move it."""
    head, pooling = encoder.head, encoder.head.pooling
    if not where.any() and not any(shares):
        return [torch.from_numpy(rows.image[rows.image_index]).to(where.device)]
    image: list[list[Tensor]] = [[] for _ in shares]
    for part in _batches(np.arange(len(rows))):
        f, streams = rows.features(part).to(where.device), Streams.untrained(where[part], encoder.config.width)
        for share, found in zip(shares, image, strict=True):
            if pooling.closeups:
                pooling.share.fill_(share)
            found.append(head.shifted_image(f, streams))
    return [torch.cat(found) for found in image]


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]
