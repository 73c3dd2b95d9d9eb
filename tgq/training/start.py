"""The closed-form start of an encoder: what can be had from a training set without one gradient step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import TgqError
from tgq.training.dataset import TrainingSet

CORRELATED = 6000  # rows at most that the correlation reads, drawn evenly from the catalogs
BATCH = 128


@dataclass(frozen=True)
class StartConfig:
    """How to start."""

    seed: int = 0
    vocabulary: bool = True  # the anchor knows the vision checkpoint's class names
    correlation: bool = True  # the anchor learns which tokens go with which texts
    image_weight: float = 0.45  # linear base: share of the picture in the concatenation
    base_floor: float = 0.2  # linear base: ridge on the covariance within groups, in mean variances


@torch.no_grad()
def start(encoder: TGQFormer, rows: TrainingSet, config: StartConfig) -> None:
    """Set the anchor and the light head's linear base; everything else stays as it was drawn.

    First the vocabulary; with it as a guess at which tokens show the item, the correlation of tokens and texts; with both,
    the pooled features that the base is fitted to. Cost: the correlation's `Dv^2` per token of 6,000 rows, and the base's
    `(Dg + Dp)^3`; the connector is not run.

    Raises:
        TgqError: features that are no numbers.
    """
    encoder.eval()
    if not all(np.isfinite(x).all() for x in (rows.image, rows.text)) or not np.isfinite(rows.image_tokens.sum(dtype=np.float64)):
        raise TgqError("the towers' features hold values that are no numbers", "look for a tower with broken weights")
    both = np.flatnonzero((rows.image_index >= 0) & rows.text_mask[rows.metadata_index[:, 0]].any(1))
    if not len(both):
        return
    if encoder.anchor is not None:
        tower = encoder.vision
        if config.vocabulary and tower.vocabulary:
            encoder.anchor.learn_vocabulary(tower.vocabulary, tower.class_directions(), lambda names: encoder.text(names)[2])
        if config.correlation:
            encoder.anchor.correlate(_weighted(encoder, rows, both, np.random.default_rng(config.seed)))
    if isinstance(encoder.head, LightHead):
        image, text = _moved(encoder, rows, both)
        catalog = np.unique(rows.catalog[both], return_inverse=True)[1]
        group = np.unique(np.char.add(np.char.add(rows.catalog[both], "\0"), rows.group[both]), return_inverse=True)[1]
        ids = (torch.from_numpy(x).to(image.device) for x in (group, catalog))
        encoder.head.base.fit(image, text, *ids, config.image_weight, config.base_floor)


def _weighted(
    encoder: TGQFormer, rows: TrainingSet, both: np.ndarray, draw: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Tokens, texts, and the share of each token in its item; every catalog weighs the same in all."""
    catalogs = sorted(set(rows.catalog[both].tolist()))
    for catalog in catalogs:
        own = draw.permutation(both[rows.catalog[both] == catalog])[: CORRELATED // len(catalogs)]
        for part in _batches(own):
            f = rows.features(part).to(encoder.null_image.device)
            yield f.image_tokens, f.text, encoder.where(f).softmax(-1) / len(own)


def _moved(encoder: TGQFormer, rows: TrainingSet, both: np.ndarray) -> tuple[Tensor, Tensor]:
    image, text = [], []
    for part in _batches(both):
        f = rows.features(part).to(encoder.null_image.device)
        image.append(encoder.head.moved(f, Streams.untrained(encoder.where(f), encoder.config.width)))
        text.append(f.text)
    return torch.cat(image), torch.cat(text)


def _batches(rows: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]
