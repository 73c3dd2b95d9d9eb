"""Training of the heads on arrays: cross-entropy where an item states the key, calibrated on groups that were left out.

The groups are split into FOLDS by a hash. Heads fitted to the other folds score each fold, so every score is of a group that its heads have not seen.
Temperature and threshold are chosen from these scores; the figures that are reported take, for each fold, those that the other folds chose. The heads
that are kept are fitted to all items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.attributes.calibration import KeyFigures, best_of, figures_of, targets_of, temperature_of, threshold_of
from tgq.attributes.heads import AttributeHeads, HeadsConfig, ItemFeatures
from tgq.attributes.vocabulary import Labelled, Vocabulary, VocabularyOptions, stated
from tgq.errors import SourceError
from tgq.refinement.words import folded

FOLDS = 5
SMALLEST = 1e-3  # standard deviation of a feature below which it counts as constant


@dataclass(frozen=True)
class AttributeTrainConfig:
    """Settings of the training."""

    seed: int = 0  # of the order of batches and of the sides that are left out
    precision: float = 0.9  # wanted share of said values that are right; a key that does not reach it is never said
    steps: int = 400  # batches
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 1.0  # AdamW's
    dropout: float = 0.5  # of features
    side_dropout: float = 0.1  # share of items of which the picture is left out, and of others the text, so that either is enough
    min_items: int = 10  # with a value
    min_groups: int = 3  # with a value
    max_values: int = 100  # of a key
    min_share: float = 0.3  # of a category's items that state a key of its schema
    min_category: int = 30  # items of a category with a schema of its own

    @property
    def frequent(self) -> VocabularyOptions:
        """What counts as frequent."""
        return VocabularyOptions(self.min_items, self.min_groups, self.max_values, self.min_share, self.min_category)


@dataclass(frozen=True)
class TrainedHeads:
    """Heads with their figures on groups that were left out."""

    heads: AttributeHeads
    figures: tuple[KeyFigures, ...]


def train_heads(
    features: ItemFeatures, items: Sequence[Labelled], vision: str, text: str, options: AttributeTrainConfig,
    log: Callable[[int, int], None] = lambda done, total: None,
) -> TrainedHeads:  # fmt: skip
    """Fit heads to items and calibrate them.

    Args:
        features: of the same items, in order.
        vision, text: fingerprints of the towers.
        log: told the fits that are done, and how many there are.

    Raises:
        SourceError: no attribute is frequent, or the items are of fewer than FOLDS groups.

    Cost: FOLDS + 1 fits of `steps` batches; `12 * batch * (Dg + Dp) * values` operations a batch.
    """
    vocabulary = Vocabulary.of(items, options.frequent)
    fold = np.array([fold_of(item.group) for item in items])
    if len({item.group for item in items}) < FOLDS or len(set(fold.tolist())) < 2:
        raise SourceError(f"the {len(items)} items are of too few groups to leave some of them out", "train on more items")
    config = HeadsConfig(vocabulary, vision, text, features.image.shape[1], features.text.shape[1])
    targets = targets_by_key(items, vocabulary)
    unseen = torch.zeros(len(items), sum(len(values) + 1 for values in vocabulary.values.values()))
    for n in range(FOLDS):
        left_out = fold == n
        if not left_out.any():
            continue
        fitted = fit(config, features[~left_out], {key: target[~left_out] for key, target in targets.items()}, replace(options, seed=options.seed + n + 1))
        unseen[left_out] = fitted.logits(features[left_out])
        log(n + 1, FOLDS + 1)
    heads = fit(config, features, targets, options)
    log(FOLDS + 1, FOLDS + 1)
    temperatures, thresholds, figures = calibrated(heads, unseen, targets, fold, options.precision)
    return TrainedHeads(heads.with_calibration(temperatures, thresholds), figures)


def calibrated(
    heads: AttributeHeads, unseen: Tensor, targets: dict[str, Tensor], fold: np.ndarray, precision: float
) -> tuple[dict[str, float], dict[str, float | None], tuple[KeyFigures, ...]]:
    """Temperatures and thresholds by key from the logits of items that heads have not seen, `[N, C]`, and figures by key.

    fold: `[N]`; the figures of a fold take the temperature and the threshold that the other folds choose.
    """
    temperatures, thresholds, figures = {}, {}, []
    for key in heads.keys:
        has = (targets[key] >= 0).numpy()
        logits, target, of_fold = unseen[has][:, heads.slices[key]], targets[key][has], fold[has]
        temperatures[key] = temperature_of(logits, target)
        thresholds[key] = threshold_of(*best_of((logits / temperatures[key]).softmax(1), target), precision)
        score, right, said = np.zeros(len(target)), np.zeros(len(target), bool), np.zeros(len(target), bool)
        for n in range(FOLDS):
            rest, own = of_fold != n, of_fold == n
            t = temperature_of(logits[rest], target[rest])
            least = threshold_of(*best_of((logits[rest] / t).softmax(1), target[rest]), precision)
            score[own], right[own] = best_of((logits[own] / t).softmax(1), target[own])
            said[own] = False if least is None else score[own] >= least
        figures.append(figures_of(key, score, right, said))
    return temperatures, thresholds, tuple(figures)


def fit(config: HeadsConfig, features: ItemFeatures, targets: dict[str, Tensor], options: AttributeTrainConfig) -> AttributeHeads:
    """Heads fitted to items, in eval mode, without temperatures and thresholds.

    Args:
        targets: by key, `[N]` places of values; the number of values for another one, -1 where the key is not stated.
    """
    heads = AttributeHeads(config)
    _standardise(heads, features)
    useful = np.flatnonzero(torch.stack(list(targets.values())).ge(0).any(0).numpy())
    inputs, wanted = heads.inputs(features[useful]), {key: target[useful] for key, target in targets.items()}
    draw = torch.Generator().manual_seed(options.seed)
    optimiser = torch.optim.AdamW(heads.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.lr, total_steps=options.steps)
    heads.train()
    for _ in range(options.steps):
        rows = torch.randint(len(useful), (min(options.batch, len(useful)),), generator=draw)
        logits = heads(_thinned(inputs[rows], config.image_width, options, draw))
        loss = sum_of_losses(logits, {key: target[rows] for key, target in wanted.items()}, heads.slices)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return heads.eval()


def sum_of_losses(logits: Tensor, targets: dict[str, Tensor], slices: dict[str, slice]) -> Tensor:
    """The mean cross-entropy over items and keys that they state."""
    losses = [F.cross_entropy(logits[:, slices[key]], target, ignore_index=-1, reduction="sum") for key, target in targets.items()]
    n = sum(int((target >= 0).sum()) for target in targets.values())
    return torch.stack(losses).sum() / max(1, n)


def _standardise(heads: AttributeHeads, features: ItemFeatures) -> None:
    """Set mean and scale of the features, each side over the items that have it."""
    means, scales = [], []
    for side in (features.image, features.text):
        there = side[np.abs(side).sum(1) > 0]
        means.append(there.mean(0) if len(there) else np.zeros(side.shape[1]))
        deviation = there.std(0) if len(there) else np.zeros(side.shape[1])
        scales.append(np.where(deviation > SMALLEST * max(1e-12, float(deviation.max(initial=0.0))), deviation, np.inf))
    heads.mean.copy_(torch.from_numpy(np.concatenate(means).astype(np.float32)))
    # an infinite scale would make a constant feature zero, but is no number that files should hold
    heads.scale.copy_(torch.from_numpy(np.minimum(np.concatenate(scales), 1e6).astype(np.float32)))


def _thinned(inputs: Tensor, image_width: int, options: AttributeTrainConfig, draw: torch.Generator) -> Tensor:
    """Inputs of which features, and whole sides, are left out by chance."""
    kept = torch.rand(inputs.shape, generator=draw) >= options.dropout
    thinned = inputs * kept / (1 - options.dropout)
    thinned[:, -2:] = inputs[:, -2:]
    side = torch.rand(len(inputs), generator=draw)
    for column, columns, lost in ((-2, slice(0, image_width), side < options.side_dropout), (-1, slice(image_width, -2), side > 1 - options.side_dropout)):
        thinned[lost, columns] = 0.0
        thinned[lost, column] = 0.0
    return thinned


def targets_by_key(items: Sequence[Labelled], vocabulary: Vocabulary) -> dict[str, Tensor]:
    """By key, `[N]`: the place of each item's value; the number of values for one that is not in the vocabulary, -1 where the key is not stated."""
    rows = [{key: folded(value) for key, value in stated(item.attributes).items()} for item in items]
    return {key: targets_of([row.get(key) for row in rows], places) for key, places in vocabulary.places().items()}


def fold_of(group: str) -> int:
    """The fold of a group, by its hash alone."""
    return int.from_bytes(hashlib.sha256(f"{group}:attributes".encode()).digest()[:8], "big") % FOLDS
