"""The closed-form start of an encoder: what can be had from a training set without one gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.anchor import STRENGTH
from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.dataset import TrainingSet
from tgq.training.ranking import mean_reciprocal
from tgq.training.split import split_of

CORRELATED = 6000  # rows at most that the correlation reads, drawn evenly from the catalogs
BATCH = 128
STRENGTHS = (0.0, 0.375, 0.75)
SHARES = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class StartConfig:
    """How to start."""

    seed: int = 0
    vocabulary: bool = True  # the anchor knows the vision checkpoint's class names
    correlation: bool = True  # the anchor learns which tokens go with which texts
    strength: float | None = None  # of the anchor; none: whichever of STRENGTHS ranks held-out groups best
    closeup_share: float | None = None  # of the pooled picture that close-ups have; none: likewise, of SHARES
    image_weight: float = 0.45  # linear base: share of the picture in the concatenation
    base_floor: float = 0.2  # linear base: ridge on the covariance within groups, in mean variances


@torch.no_grad()
def start(encoder: TGQFormer, rows: TrainingSet, config: StartConfig) -> None:
    """Set the anchor, the close-ups' share and the light head's linear base; everything else stays as it was drawn.

    First the vocabulary; with it as a guess at which tokens show the item, the correlation of tokens and texts; then how
    strongly the anchor counts and how much close-ups do, by what ranks groups best that correlation and base have not seen;
    with all that, the pooled features that the base is fitted to. Cost: the correlation's `Dv^2` per token of 6,000 rows,
    twice, and for each of the two halves the base's `(Dg + Dp)^3` for each strength and share that is tried; the connector is
    not run.

    Raises:
        TgqError: features that are no numbers.
    """
    encoder.eval()
    if not all(np.isfinite(x).all() for x in (rows.image, rows.text)) or not np.isfinite(rows.image_tokens.sum(dtype=np.float64)):
        raise TgqError("the towers' features hold values that are no numbers", "look for a tower with broken weights")
    rows = rows.subset(np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1)))
    if not len(rows):
        return
    anchor, tower = encoder.anchor, encoder.vision
    named = torch.zeros(len(rows), tower.tokens_per_image, device=encoder.null_image.device)
    if anchor is not None:
        if config.vocabulary and tower.vocabulary:
            anchor.learn_vocabulary(tower.vocabulary, tower.class_directions(), lambda names: encoder.text(names)[2])
        named = _scores(encoder, rows, anchor.by_vocabulary)
    every = np.ones(len(rows), bool)
    if not isinstance(encoder.head, LightHead):
        _correlate(encoder, rows, named, every, CORRELATED, config)
        return
    _choose(encoder, rows, named, config)
    _correlate(encoder, rows, named, every, CORRELATED, config)
    where = named if anchor is None else anchor.logits(named, _related(encoder, rows), anchor.strength)
    _fit(encoder, _moved(encoder, rows, where), rows, every, config)


def _choose(encoder: TGQFormer, rows: TrainingSet, named: Tensor, config: StartConfig) -> None:
    """Set the anchor's strength and the close-ups' share: those with the best MRR of groups that neither correlation nor base has
    seen, half of the groups by the other half. A correlation knows too well where to look for the texts that it was learned from.
    What there is nothing to choose by stays as it stands."""
    anchor, pooling = encoder.anchor, encoder.head.pooling
    strengths = [0.0] if anchor is None else STRENGTHS if config.strength is None else [config.strength]
    shares = [0.0] if not (pooling.closeups and encoder.connector.looks) else SHARES if config.closeup_share is None else [config.closeup_share]
    chosen, best = (strengths[0], shares[0]), None
    halves = [half for half in _halves(rows) if half.any() and not half.all()]
    if len(strengths) * len(shares) > 1 and halves:
        where: dict[float, list[Tensor]] = {s: [] for s in strengths}
        for asked in halves:
            _correlate(encoder, rows, named, ~asked, CORRELATED // 2, config)
            related = _related(encoder, rows)
            for s in strengths:
                where[s].append(named if anchor is None else anchor.logits(named, related, s))
        for strength in strengths:
            whole = [_moved(encoder, rows, w, share=0.0) for w in where[strength]]
            near = [_moved(encoder, rows, w, share=1.0) for w in where[strength]] if max(shares) else whole
            for share in shares:  # what the pooled picture is linear in
                images = [torch.lerp(w, n, share) for w, n in zip(whole, near, strict=True)]
                found = _mrr(encoder, rows, images, halves, config)
                if best is None or found > best:
                    chosen, best = (strength, share), found
    if anchor is not None and (best or config.strength is not None):
        anchor.strength.fill_(chosen[0])
    if pooling.closeups:
        pooling.share.fill_(chosen[1])


def _halves(rows: TrainingSet) -> list[np.ndarray]:
    """`[R]` bool, twice: which rows are asked for while the others are learned from. No group is on both sides."""
    first = np.array([split_of(f"{group}:start") == "test" for group in rows.group], bool)
    return [first, ~first]


def _mrr(encoder: TGQFormer, rows: TrainingSet, images: list[Tensor], halves: list[np.ndarray], config: StartConfig) -> float:
    """MRR of the linear base over pooled pictures `[R, Dg]`, one for each half that is asked for; their mean."""
    text = torch.from_numpy(rows.text[rows.metadata_index[:, 0]])
    there, found = torch.ones(len(rows), dtype=torch.bool, device=images[0].device), []
    for image, asked in zip(images, halves, strict=True):
        _fit(encoder, image, rows, ~asked, config)
        vectors = F.normalize(encoder.head.base(image, there, text.to(image.device), there), dim=-1).cpu().numpy()
        found.append(mean_reciprocal(vectors.__getitem__, rows, asked))
    return float(np.mean(found))


def _correlate(encoder: TGQFormer, rows: TrainingSet, named: Tensor, learning: np.ndarray, limit: int, config: StartConfig) -> None:
    """Have the anchor learn the correlation of those of the rows (bool) that are to be learned from, with nothing but what the vocabulary
    says, `named` `[R, N]`, for a guess; from the grid, which close-ups would only repeat."""
    anchor, grid = encoder.anchor, named.shape[1] - encoder.vision.n_closeups
    if anchor is None or not config.correlation:
        return
    guess = anchor.logits(named, torch.zeros_like(named), STRENGTH)[:, :grid].softmax(-1)
    anchor.correlation.zero_()
    anchor.correlate(_weighted(encoder, rows, guess, learning, limit, np.random.default_rng(config.seed)))


def _fit(encoder: TGQFormer, image: Tensor, rows: TrainingSet, learning: np.ndarray, config: StartConfig) -> None:
    """Fit the base to those of the rows (bool) that are to be learned from, pooled to `image` `[R, Dg]`."""
    named = np.char.add(np.char.add(rows.catalog, "\0"), rows.group)
    group, catalog = (torch.from_numpy(np.unique(x[learning], return_inverse=True)[1]).to(image.device) for x in (named, rows.catalog))
    text = torch.from_numpy(rows.text[rows.metadata_index[learning, 0]]).to(image.device)
    if len(group):
        encoder.head.base.fit(image[torch.from_numpy(learning)], text, group, catalog, config.image_weight, config.base_floor)


def _weighted(
    encoder: TGQFormer, rows: TrainingSet, guess: Tensor, learning: np.ndarray, limit: int, draw: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, texts, and the share of each token in its item; every catalog weighs the same in all."""
    catalogs = sorted(set(rows.catalog[learning].tolist()))
    for catalog in catalogs:
        own = draw.permutation(np.flatnonzero((rows.catalog == catalog) & learning))[: limit // len(catalogs)]
        for part in _batches(own):
            f = rows.features(part).to(guess.device)
            yield f.image_tokens[:, : guess.shape[1]], f.text, guess[part] / len(own)


def _related(encoder: TGQFormer, rows: TrainingSet) -> Tensor | None:
    """What the correlation says `[R, N]`."""
    return None if encoder.anchor is None else _scores(encoder, rows, encoder.anchor.by_correlation)


def _scores(encoder: TGQFormer, rows: TrainingSet, source: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`[R, N]`: what one of the anchor's sources says of tokens and texts."""
    features = (rows.features(part).to(encoder.null_image.device) for part in _batches(np.arange(len(rows))))
    return torch.cat([source(f.image_tokens, f.text) for f in features])


def _moved(encoder: TGQFormer, rows: TrainingSet, where: Tensor, share: float | None = None) -> Tensor:
    """f_img `[R, Dg]` where nothing moves it but logits `[R, N]` and the close-ups' share; no token is read where there is nothing to
    move it."""
    head, pooling = encoder.head, encoder.head.pooling
    if pooling.closeups and share is not None:
        pooling.share.fill_(share)
    if not where.any() and not (pooling.closeups and pooling.share):
        return torch.from_numpy(rows.image[rows.image_index]).to(where.device)
    image = []
    for part in _batches(np.arange(len(rows))):
        f = rows.features(part).to(where.device)
        image.append(head.moved(f, Streams.untrained(where[part], encoder.config.width)))
    return torch.cat(image)


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]
