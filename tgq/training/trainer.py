"""Training of the encoder's own weights on cached tower features. The towers are frozen and never run."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tgq.encoder.layers.heads import LightHead
from tgq.encoder.model import TGQFormer
from tgq.errors import SourceError, TgqError
from tgq.training import checkpoint as checkpoints
from tgq.training.base import train_base
from tgq.training.config import TrainConfig, learning_rate_factor
from tgq.training.data.batches import Batches
from tgq.training.data.casting import Casting
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import PairSampler
from tgq.training.gradients import BatchGradients
from tgq.training.initialisation import initialise
from tgq.training.loss.objective import Objective
from tgq.training.processes import Processes
from tgq.training.validation import Validation, teacher_embeddings, validation_rows

Log = Callable[[int, dict[str, float]], None]
SINGLE_PROCESS = Processes()
CLOSED_FORM = ("image.", "text.", "image_expected.", "text_expected.")  # parts of the linear base, which have a learning rate of their own


def train(
    encoder: TGQFormer, rows: TrainingSet, config: TrainConfig, log: Log = lambda step, values: None, initialised: bool = False,
    checkpoint: Path | None = None, processes: Processes = SINGLE_PROCESS,
) -> list[dict[str, float]]:  # fmt: skip
    """Train the encoder in place. It ends in eval mode with the weights of the best validation, rounded to float16.

    Training begins with the closed-form initialisation (`initialise`), fitted to scenes too if `scene_share` is above 0. With `base_steps` the linear base
    is then trained alone, on pooled features (`train_base`). Where the other steps begin is also validated: later weights replace it only if they are
    better (see `Validation`; its groups are held out by a hash of the group id). Cost: about `steps * 2 * pairs` passes of the connector, and one or two
    passes per row at each evaluation.

    A batch is processed in chunks, and the loss is computed over the whole batch. The dropout of a chunk follows from (seed,
    step, chunk), and composed scenes follow from (seed, step). The curve is therefore the same for one process or several and
    for a resumed training, up to the order in which floats are added.

    Args:
        rows: rows of training groups only. Precomputed attention logits must come from this encoder.
        log: called with `(step, values)` at each evaluation. At step 0 the values are the validation MRR, the values that the
            initialisation chose and those of `train_base`.
        initialised: the encoder is already initialised by `initialise`.
        checkpoint: file that is written at each evaluation. If it exists, training resumes from it.
        processes: the process group that shares the work. Every process is given the same rows.

    Returns:
        The logged values of each evaluation.

    Raises:
        SourceError: there are too few groups to train and validate on, or scenes are wanted of a training set without parts.
        ModelError: the checkpoint was written with another configuration or other data.
        TgqError: the loss is infinite or not a number, a tower feature is, or there are more processes than chunks.
    """
    if (chunks := -(-2 * config.pairs // config.chunk)) < processes.size:
        raise TgqError(f"a batch of {config.pairs} pairs is {chunks} chunks of {config.chunk} items, but there are {processes.size} processes",
                       f"lower chunk to {max(1, 2 * config.pairs // processes.size)} or less")  # fmt: skip
    held_out = validation_rows(rows, config)
    if held_out.all() or not held_out.any():
        raise SourceError(f"{len(set(rows.group))} groups are too few for training and validation", "give a larger catalog")
    if not held_out[rows.pairs[:, 0]].any():
        raise SourceError(f"none of the {len(set(rows.group[held_out]))} groups held out for validation has a positive pair",
                          "give a larger catalog, or name the column of groups in catalog.columns.group_id")  # fmt: skip
    learning = rows.subset(np.flatnonzero(~held_out))
    sampler = PairSampler(learning, config.seed)
    casting = Casting(learning, config.scene_share, config.scene_same_category) if config.scene_share else None
    chosen = {} if initialised else initialise(encoder, casting.applied(config.seed) if casting else learning, config)
    if rows.attention_logits is None:
        # Validation uses the first view of every row several times. Long trainings use the other views several times as well.
        all_views = 2 * config.steps * config.pairs > rows.metadata_index.size
        rows = rows.with_attention_logits(encoder, views=None if all_views else 1)
        learning = rows.subset(np.flatnonzero(~held_out))
    if config.base_steps and isinstance(encoder.head, LightHead):
        chosen |= train_base(encoder, rows, held_out, config)
    objective = Objective(encoder, config)
    optimizer = _optimizer(objective, config)
    gradients = BatchGradients(encoder, objective, Batches(learning, sampler, casting, teacher_embeddings(encoder, learning), config), config, processes)

    validation = Validation(rows, held_out, config)

    def validated() -> dict[str, float]:
        found = validation(encoder) if processes.rank == 0 else {}
        return found | {"validation_mrr": processes.broadcast(found.get("validation_mrr", 0.0))}

    identity = _identity(encoder, rows, config) if checkpoint else ""
    if checkpoint and checkpoint.is_file():
        progress, state, best_state = checkpoints.load(checkpoint, identity, optimizer)
        objective.load_state_dict(state, strict=False)
    else:
        start = validated()
        history = [{"step": 0, **start, **chosen}]
        progress, best_state = checkpoints.Progress(0, start["validation_mrr"], 0, history), copy.deepcopy(encoder.own_state())
    for values in progress.history:
        log(int(values["step"]), values)

    while progress.step < config.steps and progress.worse < config.patience:
        step = progress.step = progress.step + 1
        encoder.train()
        values = gradients.of_step(step)
        if not math.isfinite(values["loss"]):
            raise TgqError(f"the loss is {values['loss']} at step {step}", "lower lr, or check the tower features for broken values")
        nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * learning_rate_factor(step, config.steps, config.warmup)
        optimizer.step()
        if step % config.evaluate_every == 0 or step == config.steps:
            values |= validated()
            progress.history.append({"step": step, **values})
            log(step, progress.history[-1])
            progress.worse = 0 if values["validation_mrr"] > progress.best else progress.worse + 1
            if not progress.worse:
                progress.best, best_state = values["validation_mrr"], copy.deepcopy(encoder.own_state())
            if checkpoint and processes.rank == 0:
                checkpoints.save(checkpoint, identity, progress, _state(objective), best_state, optimizer)
    encoder.load_state_dict({name: value.half().float() for name, value in best_state.items()}, strict=False)
    encoder.eval()
    return progress.history


def _identity(encoder: TGQFormer, rows: TrainingSet, config: TrainConfig) -> str:
    """16 hex digits: a hash of everything that determines the curve. It includes `steps`, because the learning rate schedule does."""
    digest = hashlib.sha256(json.dumps([asdict(encoder.config), asdict(config)], sort_keys=True).encode())
    for name in ("item", "group", "catalog", "pairs", "hard", "metadata_index"):
        digest.update(np.ascontiguousarray(getattr(rows, name)).tobytes())
    digest.update(f"{encoder.vision.fingerprint}{encoder.text.fingerprint}{rows.image.sum():.3f}".encode())
    if config.scene_share and rows.parts is not None and rows.banks is not None:
        for array in (rows.category, rows.parts.known, rows.banks.rows):
            digest.update(b"" if array is None else array.tobytes())
        digest.update(f"{rows.parts.half.sum(dtype=np.float64):.3f} {rows.banks.backgrounds.sum(dtype=np.float64):.3f}".encode())
    if config.agcl:
        digest.update("\0".join(rows.texts).encode())
    return digest.hexdigest()[:16]


def _state(objective: Objective) -> dict[str, torch.Tensor]:
    """The weights of encoder and temperatures, without the frozen weights of the towers and of a language model."""
    own = {f"encoder.{name}" for name in objective.encoder.own_state()}
    return {name: value for name, value in objective.state_dict().items() if not name.startswith("encoder.") or name in own}


def _optimizer(objective: Objective, config: TrainConfig) -> torch.optim.Optimizer:
    head = objective.encoder.head
    slow = {id(p) for name, p in head.base.named_parameters() if f"{name}.".startswith(CLOSED_FORM)} if isinstance(head, LightHead) else set()
    own = [p for p in objective.parameters() if p.requires_grad]
    return torch.optim.AdamW([
        {"params": [p for p in own if id(p) not in slow and p.ndim > 1], "peak": config.lr},
        {"params": [p for p in own if id(p) not in slow and p.ndim <= 1], "peak": config.lr, "weight_decay": 0.0},
        {"params": [p for p in own if id(p) in slow], "peak": config.base_lr, "weight_decay": 0.0},
    ], weight_decay=config.weight_decay)
