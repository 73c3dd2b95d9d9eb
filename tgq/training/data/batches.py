"""The batches of a training: which items a step shows to the encoder, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tgq.encoder.features import Features
from tgq.encoder.model import TGQFormer
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import ExcludedNegatives, PairSampler, hard_negatives
from tgq.training.data.scenes import Cast, compose_into
from tgq.training.loss.attributes import AttributeSimilarity, LogWeights


@dataclass(frozen=True)
class Chunk:
    """The part of a batch that goes through the encoder at once, B items."""

    features: Features
    teacher: Tensor  # [B, T] the teacher's embeddings of the undisturbed items
    composed: Tensor | None = None  # [B] bool, items in a composed scene; None: the batch has no scenes
    box: Tensor | None = None  # [B, N] bool, tokens that show the item; all false where nothing is asked of the attention
    wrong_text: Tensor | None = None  # [B] bool, items with the metadata of another item; None: there are none

    def to(self, device: torch.device) -> Chunk:
        """A copy on another device."""
        marks = (self.composed, self.box, self.wrong_text)
        return Chunk(self.features.to(device), self.teacher.to(device), *(None if value is None else value.to(device) for value in marks))

    @property
    def misleading(self) -> Tensor:
        """`[B, 2]`: 1 where a stream misleads, the metadata because they are another item's, the picture because it shows a scene; else 0.

        -1 for items of which a stream has nothing to read: those without metadata or picture.
        """
        f = self.features
        none = torch.zeros_like(f.has_image)
        text, scene = (none if mark is None else mark for mark in (self.wrong_text, self.composed))
        both = f.has_image & f.has_text
        return torch.stack([torch.where(both, text.float(), -1.0), torch.where(f.has_image, scene.float(), -1.0)], -1)

    def with_own_logits(self, encoder: TGQFormer) -> Chunk:
        """A copy in which the precomputed attention logits of items in scenes or with wrong metadata are replaced.

        They are of the items' own pictures and metadata. Without precomputed logits the encoder computes all of them itself.
        """
        f, marks = self.features, [mark for mark in (self.composed, self.wrong_text) if mark is not None]
        at = torch.stack(marks).any(0) if marks else None
        if f.attention_logits is None or at is None or encoder.anchor is None or not at.any():
            return self
        logits = f.attention_logits.clone()
        logits[at] = encoder.anchor(f.image_tokens[at], f.text[at], (f.has_image & f.has_text)[at])
        return replace(self, features=replace(f, attention_logits=logits))


@dataclass(frozen=True)
class Batch:
    """B items: P queries, then their P positives, then H hard negatives. They go through the encoder in chunks."""

    rows: TrainingSet
    teacher: np.ndarray  # [R, T] the teacher's embeddings of all rows
    items: np.ndarray  # [B] row numbers
    view: np.ndarray  # [B] metadata view of each item
    metadata_of: np.ndarray  # [B] row numbers of the metadata that the items are shown with, mostly their own
    without_image: np.ndarray  # [B] bool, items whose image is dropped
    without_text: np.ndarray  # [B] bool, items whose metadata is dropped
    excluded: np.ndarray  # [P, P] bool, query and positive that must not count as a negative pair
    hard_excluded: np.ndarray  # [P, H] bool, query and hard negative, likewise
    log_weights: LogWeights | None  # of the pairs in InfoNCE, by their attributes; None: all weigh the same
    chunk_size: int  # maximum number of items in a chunk
    scene: np.ndarray | None = None  # [B] number of the item's scene in `cast`, -1: its own picture; None: no scenes
    cast: Cast | None = None

    @property
    def sizes(self) -> list[int]:
        """Number of items in each chunk."""
        return [min(self.chunk_size, len(self.items) - first) for first in range(0, len(self.items), self.chunk_size)]

    def chunk(self, at: int) -> Chunk:
        """Chunk `at`, on CPU."""
        part = slice(at * self.chunk_size, (at + 1) * self.chunk_size)
        without_image, without_text = (torch.from_numpy(dropped[part]) for dropped in (self.without_image, self.without_text))
        shown = self.rows.features(self.items[part], self.view[part], self.metadata_of[part])
        chunk = self._composed(shown, torch.from_numpy(self.teacher[self.items[part]]), part)
        features = chunk.features.without(without_image & ~without_text, without_text)
        wrong = torch.from_numpy(self.metadata_of[part] != self.items[part])
        # without its text nothing tells which of the products is the item
        asked = features.has_image & features.has_text & ~wrong
        return replace(chunk, features=features, box=None if chunk.box is None else chunk.box & asked[:, None], wrong_text=wrong if wrong.any() else None)

    def _composed(self, features: Features, teacher: Tensor, part: slice) -> Chunk:
        """The features with the scenes of the items in `part` in place of their pictures."""
        if self.scene is None or self.cast is None or self.rows.parts is None or self.rows.banks is None:
            return Chunk(features, teacher)
        composed = self.scene[part] >= 0
        at = torch.from_numpy(composed)
        box = torch.zeros(features.image_tokens.shape[:2], dtype=torch.bool)
        # the tensors are copies that `TrainingSet.features` made for this chunk
        own = [features.image_tokens[row] for row in np.flatnonzero(composed).tolist()]
        features.image[at], box[at] = compose_into(own, self.rows.parts, self.rows.banks, self.cast.part(self.scene[part][composed]))
        return Chunk(features, teacher, at, box)


class Batches:
    """Draws batches. A batch is a function of (seed, step), so every process and every restart draws the same.

    Args:
        rows: the items to learn from.
        sampler: draws the positive pairs of the same rows.
        casting: casts scenes of the same rows; None: no scenes.
        teacher: `[R, T]`, the teacher's embeddings of the same rows.
        config: a TrainConfig.
    """

    def __init__(self, rows: TrainingSet, sampler: PairSampler, casting: Casting | None, teacher: np.ndarray, config):
        self.rows, self.sampler, self.casting, self.teacher, self.config = rows, sampler, casting, teacher, config
        self.excluded = ExcludedNegatives(rows)
        self.attributes = AttributeSimilarity(rows) if config.agcl else None

    def draw(self, step: int) -> Batch:
        """The batch of a step: a random metadata view per item, some items without image or metadata or with another's, some in scenes."""
        c, draw = self.config, np.random.default_rng([self.config.seed, step, 1])
        left, right = self.sampler.batch(step, c.pairs)
        hard = hard_negatives(self.rows, left, c.hard, self.excluded) if c.hard else np.zeros(0, int)
        items = np.concatenate([left, right, hard])
        view = draw.integers(0, self.rows.metadata_index.shape[1], len(items))
        without_image, without_text = (draw.random(len(items)) < share for share in (c.drop_image, c.drop_text))
        excluded, hard_excluded = (self.excluded.mask(left, others) for others in (right, hard))
        scene, cast = self.casting.draw(items, np.random.default_rng([c.seed, step, 2])) if self.casting else (None, None)
        weights = self.attributes.log_weights(left, right, hard, c.agcl_threshold) if self.attributes else None
        metadata_of = self._metadata_of(items, np.random.default_rng([c.seed, step, 4]))
        return Batch(self.rows, self.teacher, items, view, metadata_of, without_image, without_text, excluded, hard_excluded, weights, c.chunk, scene, cast)

    def _metadata_of(self, items: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """The row numbers whose metadata the items `[B]` are shown with: those of the batch's other items for the share `wrong_text`.

        Another item of the same group has no wrong metadata, so such an item keeps its own.
        """
        other = draw.permutation(items)
        wrong = (draw.random(len(items)) < self.config.wrong_text) & (self.rows.group[other] != self.rows.group[items])
        return np.where(wrong, other, items)
