"""Training of the encoder's own part over cached tower features."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tgq.encoder.features import Features
from tgq.encoder.heads import LightHead, Streams
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, TgqError
from tgq.training.dataset import TrainingSet
from tgq.training.losses import info_nce, redundancy, relation
from tgq.training.sampling import PairSampler, known_pairs
from tgq.training.split import split_of
from tgq.training.start import StartConfig, start

Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class TrainConfig(StartConfig):
    """How to train. All that is drawn at random follows `seed`."""

    steps: int = 200
    pairs: int = 192  # positive pairs in a batch; every other pair of the batch is a negative
    lr: float = 1e-4  # connector, gates and additions of the head
    base_lr: float = 1e-4  # the head's linear base, which starts good
    weight_decay: float = 0.02
    warmup: float = 0.1  # share of the steps
    temperature: float = 0.07  # at the start; learned
    max_scale: float = 50.0  # cap of the learned inverse temperature
    redundancy_weight: float = 0.02  # of L_rr
    alignment_weight: float = 0.1  # of the image-title contrast that teaches S_title's space
    relation_weight: float = 20.0  # of the distance of a batch's cosines from those at the start
    drop_image: float = 0.05  # share of training items that lose their picture
    drop_text: float = 0.1  # share that lose their metadata
    validation_share: float = 0.15  # of the training groups
    evaluate_every: int = 50
    patience: int = 5  # evaluations without a better one before stopping


def train(
    encoder: TGQFormer, rows: TrainingSet, config: TrainConfig, log: Log = lambda step, values: None, started: bool = False
) -> list[dict[str, float]]:
    """Train in place; the encoder ends in eval mode with the weights of the best validation, rounded to float16.

    It begins with what has a closed form (`start`), which is also the first to be validated: gradients have to beat it.
    Validation is the mean reciprocal rank of groups that are held out by hash, among all rows of their catalog, averaged
    over catalogs. Cost: about `steps * 2 * pairs` passes of the connector, and one per row at each evaluation; towers are
    never run.

    Args:
        rows: train groups only.
        started: the encoder has its closed-form start already.
        log: called with `(step, values)` at each evaluation; at step 0 the values are the validation's alone.

    Returns:
        What was logged.

    Raises:
        SourceError: too few groups to train and validate on.
        TgqError: the loss is no number.
    """
    torch.manual_seed(config.seed)
    held_out = validation(rows, config)
    if held_out.all() or not held_out.any():
        raise SourceError(f"{len(set(rows.group))} groups are too few to train and validate", "give a larger catalog")
    learning = rows.subset(np.flatnonzero(~held_out))
    if not started:
        start(encoder, learning, config)
    sampler, rng = PairSampler(learning, config.seed), np.random.default_rng(config.seed)
    loss_of = Objective(encoder, config)
    optimizer, schedule = _optimizer(loss_of, config)
    best, best_state, worse = mean_reciprocal_rank(encoder, rows, held_out), copy.deepcopy(encoder.own_state()), 0
    history = [{"step": 0, "validation_mrr": best}]
    log(0, history[0])

    for step, (left, right) in enumerate(sampler.batches(config.pairs, config.steps), start=1):
        encoder.train()
        both = np.concatenate([left, right])
        features = learning.features(both, rng.integers(0, learning.metadata_index.shape[1], len(both)))
        lost = [torch.from_numpy(rng.random(len(both)) < share) for share in (config.drop_image, config.drop_text)]
        features = features.without(lost[0] & ~lost[1], lost[1]).to(encoder.null_image.device)
        loss, values = loss_of(features, torch.from_numpy(known_pairs(learning, left, right)))
        if not math.isfinite(values["loss"]):
            raise TgqError(f"the loss is {values['loss']} at step {step}", "lower lr, or look for broken features")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(loss_of.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % config.evaluate_every == 0 or step == config.steps:
            values["validation_mrr"] = mean_reciprocal_rank(encoder, rows, held_out)
            log(step, values)
            history.append({"step": step, **values})
            worse = 0 if values["validation_mrr"] > best else worse + 1
            if not worse:
                best, best_state = values["validation_mrr"], copy.deepcopy(encoder.own_state())
            if worse >= config.patience:
                break
    encoder.load_state_dict({name: value.half().float() for name, value in best_state.items()}, strict=False)
    encoder.eval()
    return history


def validation(rows: TrainingSet, config: TrainConfig) -> np.ndarray:
    """`[R]` bool: the rows that are held out, by a hash of their group."""
    return np.array([split_of(f"{group}:validation", config.validation_share) == "test" for group in rows.group])


class Objective(nn.Module):
    """The encoder's loss on a batch whose first half are queries and whose second half their positives."""

    def __init__(self, encoder: TGQFormer, config: TrainConfig):
        super().__init__()
        self.encoder, self.config = encoder, config
        self.teacher = copy.deepcopy(encoder.head).requires_grad_(False).eval() if isinstance(encoder.head, LightHead) else None
        device = encoder.null_image.device
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))
        self.align_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature), device=device))

    def forward(self, features: Features, known: Tensor) -> tuple[Tensor, dict[str, float]]:
        c, out = self.config, self.encoder(features)
        known, half = known.to(out.embedding.device), len(known)
        scale = self.log_scale.exp().clamp(max=c.max_scale)
        contrast = info_nce(out.embedding[:half], out.embedding[half:], scale, known)
        overlap = redundancy(out.anchored, out.exploratory) if self.encoder.connector.decorrelated else contrast.new_zeros(())
        align = self._alignment(features, known)
        far = relation(out.embedding, self._taught(features))
        loss = contrast + c.redundancy_weight * overlap + c.alignment_weight * align + c.relation_weight * far
        values = {
            "loss": loss, "info_nce": contrast, "redundancy": overlap, "alignment": align, "relation": far, "scale": scale,
            "gate_metadata": out.gate_metadata.mean(), "gate_exploratory": out.gate_exploratory.mean(),
        }
        return loss, {name: float(value.detach()) for name, value in values.items()}

    @torch.no_grad()
    def _taught(self, features: Features) -> Tensor:
        """The embeddings `[B, De]` of the start; without a light head the frozen towers' concatenation, unit length."""
        if self.teacher is None:
            sides = F.normalize(features.image, dim=-1), F.normalize(features.text, dim=-1)
            return F.normalize(torch.cat(sides, dim=-1), dim=-1)
        streams = Streams.untrained(self.encoder.where(features), self.encoder.config.width)
        return F.normalize(self.teacher(features, streams), dim=-1)

    def _alignment(self, features: Features, known: Tensor) -> Tensor:
        """Image-title contrast over the items that have both; nothing where the towers are an aligned pair."""
        usable = (features.has_image & features.has_title)[: len(known)]
        if isinstance(self.encoder.alignment.image, nn.Identity) or usable.sum() < 2:
            return torch.zeros((), device=usable.device)
        seen, titled = self.encoder.alignment(features.image[: len(known)][usable], features.title[: len(known)][usable])
        return info_nce(seen, titled, self.align_scale.exp().clamp(max=self.config.max_scale), known[usable][:, usable])


@torch.no_grad()
def embed(encoder: TGQFormer, rows: TrainingSet, batch: int = 256) -> np.ndarray:
    """Embeddings `[R, De]` of all rows, from their cached features."""
    encoder.eval()
    parts = []
    for first in range(0, len(rows), batch):
        features = rows.features(np.arange(first, min(first + batch, len(rows))))
        parts.append(encoder(features.to(encoder.null_image.device)).embedding.cpu().numpy())
    return np.concatenate(parts)


def mean_reciprocal_rank(encoder: TGQFormer, rows: TrainingSet, asked: np.ndarray) -> float:
    """MRR of the first positive, averaged over catalogs; the queries are the rows `asked` (bool), the pool is their catalog's rows."""
    scores = []
    for catalog in sorted(set(rows.catalog[asked].tolist())):
        part = np.flatnonzero(rows.catalog == catalog)
        pool = rows.subset(part)
        ranks = first_ranks(embed(encoder, pool), pool, np.flatnonzero(asked[part]))
        if np.isfinite(ranks).any():
            scores.append(float(np.nanmean(1 / ranks)))
    return float(np.mean(scores)) if scores else 0.0


def first_ranks(vectors: np.ndarray, rows: TrainingSet, queries: np.ndarray) -> np.ndarray:
    """Rank (from 1) of the best positive among all rows, for each of the row numbers `queries`; nan where it has none.

    A row itself, its picture's copies and other rows of its variant are hidden: neither found nor in the way. Of equal
    scores the positive comes last.
    """

    def same(values: np.ndarray) -> np.ndarray:
        return values[queries][:, None] == values[None]

    hidden = same(rows.image_index) & (rows.image_index[queries] >= 0)[:, None]
    hidden |= same(rows.variant) & (rows.variant[queries] != "")[:, None]
    hidden[np.arange(len(queries)), queries] = True
    positive = same(rows.group) & ~hidden
    scores = np.where(hidden, -np.inf, vectors[queries] @ vectors.T)
    best = np.where(positive, scores, -np.inf).max(1)
    before = (scores >= best[:, None]) & ~positive & ~hidden
    return np.where(positive.any(1), 1.0 + before.sum(1), np.nan)


def _optimizer(objective: Objective, config: TrainConfig):
    head = objective.encoder.head
    slow = {id(p) for p in ((head.base.image, head.base.text) if isinstance(head, LightHead) else ())}
    own = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([
        {"params": [p for p in own if id(p) not in slow and p.ndim > 1], "lr": config.lr},
        {"params": [p for p in own if id(p) not in slow and p.ndim <= 1], "lr": config.lr, "weight_decay": 0.0},
        {"params": [p for p in own if id(p) in slow], "lr": config.base_lr, "weight_decay": 0.0},
    ], weight_decay=config.weight_decay)
    warm = max(1, round(config.warmup * config.steps))

    def factor(step: int) -> float:
        rest = (step - warm) / max(1, config.steps - warm)
        return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
