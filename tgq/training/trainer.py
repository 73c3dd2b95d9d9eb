"""Training of the encoder's own part over cached tower features."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tgq.encoder.heads import LightHead
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, TgqError
from tgq.training import checkpoint as checkpoints
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import Known, PairSampler, hard_negatives
from tgq.training.data.split import split_of
from tgq.training.initialisation import StartConfig, start
from tgq.training.objective import Objective, Outputs
from tgq.training.processes import Processes
from tgq.training.ranking import mean_reciprocal

Log = Callable[[int, dict[str, float]], None]
ALONE = Processes()


@dataclass(frozen=True)
class TrainConfig(StartConfig):
    """How to train. All that is drawn at random follows `seed`."""

    steps: int = 200
    pairs: int = 192  # positive pairs in a batch; every other pair of the batch is a negative
    hard: int = 0  # per query, negatives among its neighbours of the last published night, where there is one
    chunk: int = 96  # items that go through the encoder at once; a batch of any size fits the memory in chunks
    regather: bool = False  # forget a chunk's activations and make them again for its gradients (GradCache): less memory, a third more time
    precision: str = "auto"  # of the encoder's passes: float32, bfloat16; auto: bfloat16 on a GPU that has it
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
    encoder: TGQFormer, rows: TrainingSet, config: TrainConfig, log: Log = lambda step, values: None, started: bool = False,
    checkpoint: Path | None = None, processes: Processes = ALONE,
) -> list[dict[str, float]]:  # fmt: skip
    """Train in place; the encoder ends in eval mode with the weights of the best validation, rounded to float16.

    It begins with what has a closed form (`start`), which is also the first to be validated: gradients have to beat it.
    Validation is the mean reciprocal rank of groups that are held out by hash, among all rows of their catalog, averaged
    over catalogs. Cost: about `steps * 2 * pairs` passes of the connector, and one per row at each evaluation; towers are
    never run.

    A batch is cut into chunks whose dropout follows from (seed, step, chunk), and the loss sees the whole batch: one process
    or several, stopped and resumed or not, the curve is the same but for the order in which floats are added.

    Args:
        rows: train groups only; where they are `with_attention_logits`, by this encoder.
        started: the encoder has its closed-form start already.
        checkpoint: written at each evaluation; where it exists, training goes on from it.
        processes: those that share the work; every one is given the same rows.
        log: called with `(step, values)` at each evaluation; at step 0 the values are the validation's and what the start has chosen.

    Returns:
        What was logged.

    Raises:
        SourceError: too few groups to train and validate on.
        ModelError: the checkpoint is of another configuration.
        TgqError: the loss is no number; more processes than chunks.
    """
    if (chunks := -(-2 * config.pairs // config.chunk)) < processes.size:
        raise TgqError(f"a batch of {config.pairs} pairs is {chunks} chunks of {config.chunk} items, but there are {processes.size} processes",
                       f"lower chunk to {max(1, 2 * config.pairs // processes.size)} or less")  # fmt: skip
    held_out = validation(rows, config)
    if held_out.all() or not held_out.any():
        raise SourceError(f"{len(set(rows.group))} groups are too few to train and validate", "give a larger catalog")
    if not held_out[rows.pairs[:, 0]].any():
        raise SourceError(f"none of the {len(set(rows.group[held_out]))} groups held out to validate on has two items that answer each other",
                          "give a larger catalog, or name the column of groups in catalog.columns.group_id")  # fmt: skip
    learning = rows.subset(np.flatnonzero(~held_out))
    sampler, known = PairSampler(learning, config.seed), Known(learning)
    chosen = {} if started else start(encoder, learning, config)
    if rows.attention_logits is None:  # validation asks of every row as it is more than once, training perhaps of every view
        often = 2 * config.steps * config.pairs > rows.metadata_index.size
        rows = rows.with_attention_logits(encoder, views=None if often else 1)
        learning = rows.subset(np.flatnonzero(~held_out))
    objective = Objective(encoder, config)
    optimizer = _optimizer(objective, config)
    batches = _Batches(encoder, objective, learning, sampler, known, config, processes)

    def validated() -> float:
        return processes.agree(mean_reciprocal_rank(encoder, rows, held_out) if processes.rank == 0 else 0.0)

    identity = _identity(encoder, rows, config) if checkpoint else ""
    if checkpoint and checkpoint.is_file():
        so_far, state, best_state = checkpoints.load(checkpoint, identity, optimizer)
        objective.load_state_dict(state, strict=False)
    else:
        best = validated()
        so_far, best_state = checkpoints.Progress(0, best, 0, [{"step": 0, "validation_mrr": best, **chosen}]), copy.deepcopy(encoder.own_state())
    for values in so_far.history:
        log(int(values["step"]), values)

    while so_far.step < config.steps and so_far.worse < config.patience:
        step = so_far.step = so_far.step + 1
        encoder.train()
        values = batches.gradients(step)
        if not math.isfinite(values["loss"]):
            raise TgqError(f"the loss is {values['loss']} at step {step}", "lower lr, or look for broken features")
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, config)
        optimizer.step()
        if step % config.evaluate_every == 0 or step == config.steps:
            values["validation_mrr"] = validated()
            so_far.history.append({"step": step, **values})
            log(step, so_far.history[-1])
            so_far.worse = 0 if values["validation_mrr"] > so_far.best else so_far.worse + 1
            if not so_far.worse:
                so_far.best, best_state = values["validation_mrr"], copy.deepcopy(encoder.own_state())
            if checkpoint and processes.rank == 0:
                checkpoints.save(checkpoint, identity, so_far, _state(objective), best_state, optimizer)
    encoder.load_state_dict({name: value.half().float() for name, value in best_state.items()}, strict=False)
    encoder.eval()
    return so_far.history


@dataclass(frozen=True)
class _Batches:
    """The gradients of whole batches, a chunk at a time (Gao et al. 2021, arXiv 2101.06983)."""

    encoder: TGQFormer
    objective: Objective
    rows: TrainingSet
    sampler: PairSampler
    known: Known
    config: TrainConfig
    processes: Processes

    def gradients(self, step: int) -> dict[str, float]:
        """Leave the gradients of step `step`'s batch in the parameters; the loss and its parts."""
        c = self.config
        left, right = self.sampler.batch(step, c.pairs)
        hard = hard_negatives(self.rows, left, c.hard, self.known) if c.hard else np.zeros(0, int)
        device = self.encoder.null_image.device
        between, beyond = (torch.from_numpy(self.known.between(left, others)).to(device) for others in (right, hard))
        chunks = dict(self._chunks(step, np.concatenate([left, right, hard])))
        mine = {at: features for at, features in chunks.items() if at % self.processes.size == self.processes.rank}
        with torch.set_grad_enabled(not c.regather):
            made = {at: self._outputs(step, at, features) for at, features in mine.items()}
        whole = self._whole([len(features.image) for features in chunks.values()], made).leaves()
        self.objective.zero_grad()
        loss, values = self.objective(whole, between, beyond)
        loss.backward()
        sizes = np.cumsum([0, *(len(features.image) for features in chunks.values())])
        for at, features in mine.items():
            out = self._outputs(step, at, features) if c.regather else made[at]
            rows = slice(sizes[at], sizes[at + 1])
            carried = [(value, leaf.grad[rows]) for value, leaf in zip(out.differentiable(), whole.differentiable(), strict=True)
                       if value.requires_grad and leaf.grad is not None]  # fmt: skip
            torch.autograd.backward([value for value, _ in carried], [grad for _, grad in carried])
        scales = {id(p) for p in self.objective.scales}
        self.processes.share_gradients(p for p in self.objective.parameters() if p.requires_grad and id(p) not in scales)
        return values

    def _chunks(self, step: int, both: np.ndarray) -> Iterator[tuple[int, object]]:
        """The batch's features as they are seen this time: a view of the metadata each, some without picture or metadata."""
        c, draw = self.config, np.random.default_rng([self.config.seed, step, 1])
        view = draw.integers(0, self.rows.metadata_index.shape[1], len(both))
        lost = [torch.from_numpy(draw.random(len(both)) < share) for share in (c.drop_image, c.drop_text)]
        for at, first in enumerate(range(0, len(both), c.chunk)):
            part = slice(first, first + c.chunk)
            features = self.rows.features(both[part], view[part])
            yield at, features.without((lost[0] & ~lost[1])[part], lost[1][part])

    def _outputs(self, step: int, at: int, features) -> Outputs:
        torch.manual_seed(int(np.random.SeedSequence([self.config.seed, step, at]).generate_state(1)[0]))
        features = features.to(self.encoder.null_image.device)
        with self._precision(features.image.device):
            return self.objective.outputs(features)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager:
        wanted = self.config.precision
        if wanted not in ("auto", "float32", "bfloat16"):
            raise TgqError(f"precision={wanted}", "choose auto, float32 or bfloat16")
        half = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
        return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def _whole(self, sizes: list[int], made: dict[int, Outputs]) -> Outputs:
        """All chunks' outputs, those of the other processes too, without what made them."""
        if self.processes.size == 1:
            return Outputs.join([made[at] for at in range(len(sizes))])
        some = next(iter(made.values()))
        parts = [made[at].detached() if at in made else some.zeros(size) for at, size in enumerate(sizes)]
        return Outputs.join(parts).map(self.processes.sum)


def _identity(encoder: TGQFormer, rows: TrainingSet, config: TrainConfig) -> str:
    """16 hex digits over all that decides the curve; more steps than before are another curve, for the rate follows a cosine."""
    digest = hashlib.sha256(json.dumps([asdict(encoder.config), asdict(config)], sort_keys=True).encode())
    for name in ("item", "group", "catalog", "pairs", "hard", "metadata_index"):
        digest.update(np.ascontiguousarray(getattr(rows, name)).tobytes())
    digest.update(f"{encoder.vision.fingerprint}{encoder.text.fingerprint}{rows.image.sum():.3f}".encode())
    return digest.hexdigest()[:16]


def _state(objective: Objective) -> dict[str, torch.Tensor]:
    """The weights of encoder, temperatures and teacher that are neither the towers' nor a language model's frozen ones."""
    own = {f"encoder.{name}" for name in objective.encoder.own_state()}
    return {name: value for name, value in objective.state_dict().items() if not name.startswith("encoder.") or name in own}


def validation(rows: TrainingSet, config: TrainConfig) -> np.ndarray:
    """`[R]` bool: the rows that are held out, by a hash of their group."""
    return np.array([split_of(f"{group}:validation", config.validation_share) == "test" for group in rows.group], bool)


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
    return mean_reciprocal(lambda pool: embed(encoder, rows.subset(pool)), rows, asked)


def rate(step: int, config: TrainConfig) -> float:
    """Share of the learning rate at a step (from 1): a linear warm-up, then half a cosine (Loshchilov, Hutter 2017)."""
    warm = max(1, round(config.warmup * config.steps))
    rest = (step - 1 - warm) / max(1, config.steps - warm)
    return step / warm if step <= warm else 0.5 * (1 + math.cos(math.pi * rest))


def _optimizer(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    head = objective.encoder.head
    slow = {id(p) for p in ((head.base.image, head.base.text) if isinstance(head, LightHead) else ())}
    own = [p for p in objective.parameters() if p.requires_grad]
    return torch.optim.AdamW([
        {"params": [p for p in own if id(p) not in slow and p.ndim > 1], "peak": config.lr},
        {"params": [p for p in own if id(p) not in slow and p.ndim <= 1], "peak": config.lr, "weight_decay": 0.0},
        {"params": [p for p in own if id(p) in slow], "peak": config.base_lr, "weight_decay": 0.0},
    ], weight_decay=config.weight_decay)
