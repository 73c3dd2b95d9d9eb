"""The batches of a training: which items a step shows to the encoder, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tgq.encoder.features import Features
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import ExcludedNegatives, PairSampler, hard_negatives


@dataclass(frozen=True)
class Batch:
    """B items: P queries, then their P positives, then H hard negatives. They go through the encoder in chunks."""

    rows: TrainingSet
    items: np.ndarray  # [B] row numbers
    view: np.ndarray  # [B] metadata view of each item
    without_image: np.ndarray  # [B] bool, items whose image is dropped
    without_text: np.ndarray  # [B] bool, items whose metadata is dropped
    excluded: np.ndarray  # [P, P] bool, query and positive that must not count as a negative pair
    hard_excluded: np.ndarray  # [P, H] bool, query and hard negative, likewise
    chunk: int  # maximum number of items in a chunk

    @property
    def sizes(self) -> list[int]:
        """Number of items in each chunk."""
        return [min(self.chunk, len(self.items) - first) for first in range(0, len(self.items), self.chunk)]

    def features(self, at: int) -> Features:
        """Tower features of chunk `at`, on CPU."""
        part = slice(at * self.chunk, (at + 1) * self.chunk)
        without_image, without_text = (torch.from_numpy(dropped[part]) for dropped in (self.without_image, self.without_text))
        return self.rows.features(self.items[part], self.view[part]).without(without_image & ~without_text, without_text)


class Batches:
    """Draws batches. A batch is a function of (seed, step), so every process and every restart draws the same.

    Args:
        rows: the items to learn from.
        sampler: draws the positive pairs of the same rows.
        config: a TrainConfig.
    """

    def __init__(self, rows: TrainingSet, sampler: PairSampler, config):
        self.rows, self.sampler, self.config = rows, sampler, config
        self.excluded = ExcludedNegatives(rows)

    def draw(self, step: int) -> Batch:
        """The batch of a step: a random metadata view per item, some items without image or metadata."""
        c, draw = self.config, np.random.default_rng([self.config.seed, step, 1])
        left, right = self.sampler.batch(step, c.pairs)
        hard = hard_negatives(self.rows, left, c.hard, self.excluded) if c.hard else np.zeros(0, int)
        items = np.concatenate([left, right, hard])
        view = draw.integers(0, self.rows.metadata_index.shape[1], len(items))
        without_image, without_text = (draw.random(len(items)) < share for share in (c.drop_image, c.drop_text))
        excluded, hard_excluded = (self.excluded.mask(left, others) for others in (right, hard))
        return Batch(self.rows, items, view, without_image, without_text, excluded, hard_excluded, c.chunk)
