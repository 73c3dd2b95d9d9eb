"""The closed-form start of an encoder: what can be had from a training set without one gradient step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.dataset import TrainingSet
from tgq.training.ranking import mean_reciprocal
from tgq.training.split import split_of

CORRELATED = 6000  # rows at most that the correlation reads, drawn evenly from the catalogs
BATCH = 128
STRENGTHS = (0.0, 0.375, 0.75)
HELD_OUT = 0.3  # of the groups, to choose the strength by


@dataclass(frozen=True)
class StartConfig:
    """How to start."""

    seed: int = 0
    vocabulary: bool = True  # the anchor knows the vision checkpoint's class names
    correlation: bool = True  # the anchor learns which tokens go with which texts
    strength: float | None = None  # of the anchor; none: whichever of STRENGTHS ranks held-out groups best
    image_weight: float = 0.45  # linear base: share of the picture in the concatenation
    base_floor: float = 0.2  # linear base: ridge on the covariance within groups, in mean variances


@torch.no_grad()
def start(encoder: TGQFormer, rows: TrainingSet, config: StartConfig) -> None:
    """Set the anchor and the light head's linear base; everything else stays as it was drawn.

    First the vocabulary; with it as a guess at which tokens show the item, the correlation of tokens and texts; then how
    strongly the anchor counts, by what ranks groups best that correlation and base have not seen; with all that, the pooled features that
    the base is fitted to. Cost: the correlation's `Dv^2` per token of 6,000 rows, and for each strength that is tried the
    base's `(Dg + Dp)^3`; the connector is not run.

    Raises:
        TgqError: features that are no numbers.
    """
    encoder.eval()
    if not all(np.isfinite(x).all() for x in (rows.image, rows.text)) or not np.isfinite(rows.image_tokens.sum(dtype=np.float64)):
        raise TgqError("the towers' features hold values that are no numbers", "look for a tower with broken weights")
    rows = rows.subset(np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1)))
    if not len(rows):
        return
    anchor, where = encoder.anchor, torch.zeros(len(rows), encoder.vision.tokens_per_image, device=encoder.null_image.device)
    if anchor is not None:
        tower = encoder.vision
        if config.vocabulary and tower.vocabulary:
            anchor.learn_vocabulary(tower.vocabulary, tower.class_directions(), lambda names: encoder.text(names)[2])
        named = _scores(encoder, rows, anchor.by_vocabulary)
        chosen = config.strength
        if chosen is None and isinstance(encoder.head, LightHead):
            chosen = _best_strength(encoder, rows, named, config)
        where = _pointed(encoder, rows, named, np.ones(len(rows), bool), config)
        if chosen is not None:
            anchor.strength.fill_(chosen)
        where *= anchor.strength
    if isinstance(encoder.head, LightHead):
        _fit(encoder, _moved(encoder, rows, where), rows, np.ones(len(rows), bool), config)


def _best_strength(encoder: TGQFormer, rows: TrainingSet, named: Tensor, config: StartConfig) -> float:
    """That of STRENGTHS with the best MRR of groups that neither correlation nor base has seen; as it stands where there are
    too few to tell. A correlation knows too well where to look for the texts that it was learned from."""
    base, stands = encoder.head.base, float(encoder.anchor.strength)
    asked = np.array([split_of(f"{group}:strength", HELD_OUT) == "test" for group in rows.group], bool)
    if asked.all() or not asked.any():
        return stands
    where = _pointed(encoder, rows, named, ~asked, config)
    text, found = torch.from_numpy(rows.text[rows.metadata_index[:, 0]]), {}
    for strength in STRENGTHS:
        image = _moved(encoder, rows, strength * where)
        _fit(encoder, image, rows, ~asked, config)
        there = torch.ones(len(rows), dtype=torch.bool, device=image.device)
        vectors = F.normalize(base(image, there, text.to(image.device), there), dim=-1).cpu().numpy()
        found[strength] = mean_reciprocal(vectors.__getitem__, rows, asked)
    best = max(found, key=found.get)
    return best if found[best] else stands


def _pointed(encoder: TGQFormer, rows: TrainingSet, named: Tensor, learning: np.ndarray, config: StartConfig) -> Tensor:
    """The anchor's logits `[R, N]` at strength 1 after it has learned the correlation of those of the rows (bool) that are to be learned
    from, with nothing but what the vocabulary says, `named` `[R, N]`, for a guess."""
    anchor = encoder.anchor
    anchor.correlation.zero_()
    if config.correlation:
        guess = (anchor.strength * anchor.point(named, torch.zeros_like(named))).softmax(-1)
        anchor.correlate(_weighted(encoder, rows, guess, learning, np.random.default_rng(config.seed)))
    return anchor.point(named, _scores(encoder, rows, anchor.by_correlation))


def _fit(encoder: TGQFormer, image: Tensor, rows: TrainingSet, learning: np.ndarray, config: StartConfig) -> None:
    """Fit the base to those of the rows (bool) that are to be learned from, pooled to `image` `[R, Dg]`."""
    named = np.char.add(np.char.add(rows.catalog, "\0"), rows.group)
    group, catalog = (torch.from_numpy(np.unique(x[learning], return_inverse=True)[1]).to(image.device) for x in (named, rows.catalog))
    text = torch.from_numpy(rows.text[rows.metadata_index[learning, 0]]).to(image.device)
    if len(group):
        encoder.head.base.fit(image[torch.from_numpy(learning)], text, group, catalog, config.image_weight, config.base_floor)


def _weighted(
    encoder: TGQFormer, rows: TrainingSet, guess: Tensor, learning: np.ndarray, draw: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, texts, and the share of each token in its item; every catalog weighs the same in all."""
    catalogs = sorted(set(rows.catalog[learning].tolist()))
    for catalog in catalogs:
        own = draw.permutation(np.flatnonzero((rows.catalog == catalog) & learning))[: CORRELATED // len(catalogs)]
        for part in _batches(own):
            f = rows.features(part).to(guess.device)
            yield f.image_tokens, f.text, guess[part] / len(own)


def _scores(encoder: TGQFormer, rows: TrainingSet, source: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`[R, N]`: what one of the anchor's sources says of tokens and texts."""
    features = (rows.features(part).to(encoder.null_image.device) for part in _batches(np.arange(len(rows))))
    return torch.cat([source(f.image_tokens, f.text) for f in features])


def _moved(encoder: TGQFormer, rows: TrainingSet, where: Tensor) -> Tensor:
    """f_img `[R, Dg]` where nothing moves it but logits `[R, N]`; no token is read where they are all the same."""
    if not where.any():
        return torch.from_numpy(rows.image[rows.image_index]).to(where.device)
    image = []
    for part in _batches(np.arange(len(rows))):
        f = rows.features(part).to(where.device)
        image.append(encoder.head.moved(f, Streams.untrained(where[part], encoder.config.width)))
    return torch.cat(image)


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]
