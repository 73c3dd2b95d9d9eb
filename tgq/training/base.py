"""Contrastive training of the linear base alone, on pooled features.

A step of the whole encoder costs seconds on a CPU, because it reads the tokens of all pictures. With the attention as it was initialised, an item's
embedding is the linear base of its pooled features, and these are computed once: of each picture, and of some composed scenes. A step then costs a tenth of
a second, so batches can be large and many, which is what makes the base better than its closed form.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tgq.encoder.layers.fusion import PlainFusion
from tgq.encoder.model import TGQFormer
from tgq.training.config import BASE_RATES, TrainConfig, learning_rate_factor
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import ExcludedNegatives, PairSampler
from tgq.training.initialisation import light
from tgq.training.loss.losses import info_nce
from tgq.training.loss.ranking import catalog_mrr
from tgq.training.validation import chunks_of

EVALUATIONS = 8  # of a training


@dataclass(frozen=True)
class PooledViews:
    """What the linear base reads of R rows: V views of each, view 0 of the picture as it is, the others of composed scenes."""

    image: Tensor  # [V, R, Dg] float16
    trust: Tensor  # [V, R] in the metadata
    has_image: Tensor  # [R] bool
    has_text: Tensor  # [R] bool

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: TGQFormer, rows: TrainingSet, castings: Sequence[tuple[Casting | None, int]]) -> PooledViews:
        """The views under the encoder as it is, one for each casting and its seed; None: the pictures as they are.

        Cost: a pass of the connector over all rows for each view. Memory: `2 Dg` bytes per row and view.
        """
        encoder.eval()
        head, device = light(encoder), encoder.null_image.device
        image: list[Tensor] = []
        trust: list[Tensor] = []
        has: list[tuple[Tensor, Tensor]] = []
        for casting, seed in castings:
            views: list[tuple[Tensor, Tensor]] = []
            for chunk in chunks_of(rows, casting, seed):
                chunk = chunk.to(device).with_own_logits(encoder)
                streams = encoder.streams(chunk.features)[0]
                views.append((head.shifted_image(chunk.features, streams).half(), streams.trust.float()))
                if not image:
                    has.append((chunk.features.has_image, chunk.features.has_text))
            of_images, of_trust = zip(*views, strict=True)
            image.append(torch.cat(of_images))
            trust.append(torch.cat(of_trust))
        has_image, has_text = zip(*has, strict=True)
        return cls(torch.stack(image), torch.stack(trust), torch.cat(has_image), torch.cat(has_text))

    def pictures(self, rows: Tensor) -> PooledViews:
        """The pictures alone, of some rows."""
        return PooledViews(self.image[:1, rows], self.trust[:1, rows], self.has_image[rows], self.has_text[rows])

    def joined(self, other: PooledViews) -> PooledViews:
        """With further views of the same rows."""
        return PooledViews(torch.cat([self.image, other.image]), torch.cat([self.trust, other.trust]), self.has_image, self.has_text)

    def embedded(
        self, base: PlainFusion, text: Tensor, view: Tensor, row: Tensor, without: tuple[Tensor, Tensor] | None = None, dropout: float = 0.0
    ) -> Tensor:
        """Embeddings `[B, De]`, unit length.

        Args:
            text: `[B, Dp]`, pooled text features.
            view, row: `[B]`, numbers.
            without: `[B]` bool each, items whose image and items whose metadata are dropped.
            dropout: share of the features that are left out at random.
        """
        has_image, has_text = self.has_image[row], self.has_text[row]
        if without is not None:
            has_image, has_text = has_image & ~(without[0] & ~without[1]), has_text & ~without[1]
        return F.normalize(base(self.image[view, row].float(), has_image, text, has_text, self.trust[view, row], dropout), dim=-1)


def train_base(encoder: TGQFormer, rows: TrainingSet, held_out: np.ndarray, config: TrainConfig) -> dict[str, float]:
    """Train the linear base of an initialised encoder in place, for `base_steps` batches of `base_pairs` pairs. All other weights stay.

    The loss is InfoNCE at `base_temperature`. A batch is a function of (seed, step). Items lose their picture or metadata as in the training of the whole
    encoder, so what stands for a missing side is trained too. The weights that are kept are those with the best mean reciprocal rank of held-out rows, as
    `Validation` measures it, among EVALUATIONS states of each learning rate and the start.

    Args:
        rows: all rows, with attention logits of this encoder if it has an anchor.
        held_out: `[R]` bool, rows that are not learned from.

    Returns:
        `base_mrr_before`, `base_mrr`, `base_steps_lr` and `base_step`, the learning rate and the step whose weights are kept.

    Cost: a pass of the connector over the rows for each view of them: one without scenes, and `2 + base_scenes` if `scene_share` is above 0 (two of all
    rows, to validate on); then the base's `4 base_pairs (Dg + Dp) De` operations forward and twice that back for each step
    and learning rate.
    """
    base, learned = light(encoder).base, torch.from_numpy(np.flatnonzero(~held_out))
    learning = rows.subset(learned.numpy())
    seen = Casting(rows, 1.0, config.scene_same_category) if config.scene_share else None
    judged = PooledViews.of(encoder, rows, [(None, 0), *([(seen, config.seed)] if seen else [])])
    views = judged.pictures(learned.to(judged.image.device))
    if config.scene_share and config.base_scenes:
        own = Casting(learning, 1.0, config.scene_same_category)
        views = views.joined(PooledViews.of(encoder, learning, [(own, _seed(config, n)) for n in range(config.base_scenes)]))
    found = {"base_mrr_before": _mrr(base, judged, rows, held_out, config), "base_mrr": 0.0, "base_steps_lr": 0.0, "base_step": 0.0}
    found["base_mrr"], start = found["base_mrr_before"], copy.deepcopy(base.state_dict())
    best, batches = start, _Batches(views, learning, config)
    for rate in BASE_RATES if config.base_steps_lr is None else (config.base_steps_lr,):
        base.load_state_dict(start)
        optimizer = torch.optim.AdamW(base.parameters(), lr=rate, weight_decay=0.0)
        for step in range(1, config.base_steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = rate * learning_rate_factor(step, config.base_steps, config.warmup)
            optimizer.zero_grad()
            batches.loss(base, step).backward()
            optimizer.step()
            if step % max(1, config.base_steps // EVALUATIONS) == 0 or step == config.base_steps:
                mrr = _mrr(base, judged, rows, held_out, config)
                if mrr > found["base_mrr"]:
                    found |= {"base_mrr": mrr, "base_steps_lr": rate, "base_step": float(step)}
                    best = copy.deepcopy(base.state_dict())
    base.load_state_dict(best)
    return found


class _Batches:
    """Draws batches of views. A batch is a function of (seed, step)."""

    def __init__(self, views: PooledViews, rows: TrainingSet, config: TrainConfig):
        self.views, self.rows, self.config = views, rows, config
        self.sampler, self.excluded = PairSampler(rows, config.seed), ExcludedNegatives(rows)

    def loss(self, base: PlainFusion, step: int) -> Tensor:
        """InfoNCE of the batch of a step."""
        c, rows, device = self.config, self.rows, self.views.image.device
        left, right = self.sampler.batch(step, c.base_pairs)
        items, draw = np.concatenate([left, right]), np.random.default_rng([c.seed, step, 5])
        scenes = len(self.views.image) - 1
        view = np.where(draw.random(len(items)) < c.scene_share, draw.integers(1, 1 + scenes, len(items)), 0) if scenes else np.zeros(len(items), int)
        metadata = rows.metadata_index[items, draw.integers(0, rows.metadata_index.shape[1], len(items))]
        no_image, no_text = (torch.from_numpy(draw.random(len(items)) < share).to(device) for share in (c.drop_image, c.drop_text))
        text = torch.from_numpy(rows.text[metadata]).float().to(device)
        torch.manual_seed(int(np.random.SeedSequence([c.seed, step, 7]).generate_state(1)[0]))  # of the dropout
        of_view, of_row = torch.from_numpy(view).to(device), torch.from_numpy(items).to(device)
        vectors = self.views.embedded(base, text, of_view, of_row, (no_image, no_text), c.base_dropout)
        mask = torch.from_numpy(self.excluded.mask(left, right)).to(device)
        return info_nce(vectors[: len(left)], vectors[len(left) :], vectors.new_tensor(1 / c.base_temperature), mask)


@torch.no_grad()
def _mrr(base: PlainFusion, views: PooledViews, rows: TrainingSet, held_out: np.ndarray, config: TrainConfig) -> float:
    """As `Validation`, of views of all rows: of pictures, and with scenes the mean of both, weighted by `scene_share`."""
    device, everything = views.image.device, torch.arange(len(rows), device=views.image.device)
    text, found = torch.from_numpy(rows.text[rows.metadata_index[:, 0]]).float().to(device), []
    for view in range(len(views.image)):
        vectors = views.embedded(base, text, torch.full_like(everything, view), everything).cpu().numpy()
        found.append(catalog_mrr(vectors.__getitem__, rows, held_out))
    return found[0] if len(found) == 1 else (1 - config.scene_share) * found[0] + config.scene_share * found[1]


def _seed(config: TrainConfig, scene: int) -> int:
    """The seed of a view of scenes, other than that of the validation's."""
    return int(np.random.SeedSequence([config.seed, scene, 6]).generate_state(1)[0])
