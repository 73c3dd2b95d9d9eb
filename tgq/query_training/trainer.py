"""Training of a query tower, stage by stage.

The order is that of Beyond Text (arXiv 2603.04836): first the text side learns the shop's language, then queries are aligned with each
side of the items, and last with the items themselves.

    domain    generated queries -> the item that each was generated from
    text      queries -> what the text of the judged items tells of their embeddings
    picture   queries -> what their picture tells of them
    both      the sum of the two losses before
    fusion    queries -> the item embeddings; the item side may be trained with it

Each stage goes on with the weights of the one before, also where they are worse for the moment: an alignment prepares the next stage. The
training ends with the best weights of all its evaluations, by NDCG@10 of the validation queries over all items. `picture`, and then `both`,
are skipped if no item has a picture.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tgq.errors import SourceError, TgqError
from tgq.query_tower.tower import QueryTower
from tgq.query_training.config import BOTH, DOMAIN, FUSION, PICTURE, TEXT, QueryTrainConfig
from tgq.query_training.data.batches import Batch, Batches
from tgq.query_training.data.features import TextFeatures
from tgq.query_training.data.judged import Items, JudgedQueries
from tgq.query_training.initialisation import initialise, side_targets
from tgq.query_training.item_side import ItemSide
from tgq.query_training.loss import listwise
from tgq.query_training.measure import graded_metrics
from tgq.training.config import learning_rate_factor

Log = Callable[[str, int, dict[str, float]], None]


@dataclass(frozen=True)
class QuerySets:
    """The queries of a training, disjoint by text."""

    training: JudgedQueries
    validation: JudgedQueries
    generated: JudgedQueries  # each from one item


@dataclass
class _Best:
    """The best weights so far, and their NDCG@10 on validation queries."""

    value: float = -1.0
    tower: dict[str, Tensor] = field(default_factory=dict)
    side: dict[str, Tensor] = field(default_factory=dict)


def train_queries(
    tower: QueryTower, items: Items, sets: QuerySets, config: QueryTrainConfig, side: ItemSide | None = None,
    log: Log = lambda stage, step, values: None, own_text: bool = True, prior: bool = False,
) -> list[dict[str, float | str]]:  # fmt: skip
    """Train the tower in place, and with `config.joint` the item side. It ends with the best weights by validation, rounded to float16.

    Without training queries generated ones take their place in every stage. With them, every stage but `domain` also has the loss of a
    batch of generated queries, weighted by `generated_weight`, so that a tower that learns few judged queries by heart still knows the
    other items. Cost: `steps` passes of the checkpoint over one or two batches in each stage, and of the validation queries at each
    evaluation, with N * De multiplications a query.

    Args:
        side: what makes embeddings of the items' features; needed with `config.joint` only.
        log: called with (stage, step, values) at each evaluation.
        own_text: the items' text features come from the tower's own checkpoint.
        prior: the tower has the encoder's map of texts already (`take_encoder_map`).

    Returns:
        The logged values of each evaluation, with `stage` and `step`.

    Raises:
        SourceError: there are no queries to train on or to validate with.
        TgqError: the loss is infinite or not a number.
    """
    training = sets.training.answerable()
    if not len(training):
        training = sets.generated
    validation = sets.validation.answerable()
    if not len(training) or not len(validation):
        raise SourceError(f"there are {len(training)} queries to train on and {len(validation)} to validate with", "give judged queries, or a larger catalog")
    best, history = _Best(), list[dict[str, float | str]]()
    frozen = torch.from_numpy(items.vectors)
    validating, generated = TextFeatures(tower, validation.texts), TextFeatures(tower, sets.generated.texts)
    asked = {"generated": (sets.generated, generated)} if len(sets.generated) else {}
    judged = generated
    if training is not sets.generated:
        judged = TextFeatures(tower, training.texts)
        asked["judged"] = training, judged

    def vectors() -> np.ndarray:
        return side.vectors() if side is not None and config.joint else items.vectors

    def value() -> float:
        return float(graded_metrics(validating.vectors(), vectors(), validation)["ndcg@10"].mean())

    def evaluated(stage: str, step: int, **values: float) -> None:
        found = value()
        if found > best.value:
            best.value, best.tower = found, copy.deepcopy(tower.own_state())
            best.side = copy.deepcopy(side.state_dict()) if side is not None else {}
        history.append({"stage": stage, "step": step, "validation_ndcg": found, **values})
        log(stage, step, {"validation_ndcg": found, **values})

    tower.eval()
    start = initialise(tower, items, asked, value, prior, own_text)
    evaluated("start", 0, ridge=start["ridge"])
    targets = {TEXT: side_targets(items.text, items.vectors), PICTURE: side_targets(items.image, items.vectors)}
    for stage in config.order:
        if (stage in (PICTURE, BOTH) and not items.has_image.any()) or (stage == TEXT and not items.has_text.any()):
            continue
        queries, features = (sets.generated, generated) if stage == DOMAIN else (training, judged)
        if not len(queries):
            continue
        joint = stage == FUSION and config.joint and side is not None

        def loss(batch: Batch, features: TextFeatures, stage: str = stage, joint: bool = joint) -> Tensor:
            asking = tower(features.of(batch))
            gains = torch.from_numpy(batch.gains).to(asking.device)
            if joint and side is not None:
                banks = [side(batch.candidates)]
            elif stage in (DOMAIN, FUSION):
                banks = [frozen[batch.candidates].to(asking.device)]
            else:
                sides = (TEXT, PICTURE) if stage == BOTH else (stage,)
                banks = [torch.from_numpy(targets[name][batch.candidates]).to(asking.device) for name in sides]
            return torch.stack([listwise(asking @ bank.T / config.temperature, gains) for bank in banks]).mean()

        allowed = {TEXT: items.has_text, PICTURE: items.has_image, BOTH: items.has_image & items.has_text}.get(stage)
        batches = Batches(queries, len(items), config, allowed)
        with_generated = config.generated_weight > 0 and queries is not sets.generated and len(sets.generated) > 0
        further = Batches(sets.generated, len(items), config, allowed) if with_generated else None
        optimizer = _optimizer(tower, side if joint else None, config)
        for step in range(1, config.steps + 1):
            optimizer.zero_grad()
            found = loss(batches.draw(), features)
            if further is not None:
                found = found + config.generated_weight * loss(further.draw(), generated)
            if not torch.isfinite(found):
                raise TgqError(f"the loss is {found.item()} at step {step} of stage {stage}", "lower lr and layers_lr")
            found.backward()
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * learning_rate_factor(step, config.steps, config.warmup)
            optimizer.step()
            if step % config.evaluate_every == 0 or step == config.steps:
                evaluated(stage, step, loss=found.item())
    tower.load_own_state({name: value.half().float() for name, value in best.tower.items()})
    if side is not None and best.side:
        side.load_state_dict({name: value.half().float() for name, value in best.side.items()})
    tower.eval()
    return history


def _optimizer(tower: QueryTower, side: ItemSide | None, config: QueryTrainConfig) -> torch.optim.Optimizer:
    top = [value for name, value in tower.named_parameters() if value.requires_grad and not name.startswith("project.")]
    maps = [tower.project.weight, *([p for p in side.parameters() if p.requires_grad] if side is not None else [])]
    groups = [{"params": maps, "peak": config.lr}, {"params": top, "peak": config.layers_lr}]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)
