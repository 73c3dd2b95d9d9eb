"""Reinforcement of a language model: GRPO with the retrieval reward of AFMRL (arXiv 2604.20135), by the library trl.

The policy is the model with a low-rank adapter (LoRA). It is asked as every night asks (`chat_about`) and its answers pass the same checks, so what is
rewarded is what a night would use. An item's own attributes are hidden, and all keys of its category are asked for.

trl draws G answers for each item of a step. An answer that is no JSON object is invalid and rewarded with INVALID; any other with `RecallRewards` of its
values that pass the checks, perhaps none. An answer's advantage is its reward's deviation from the group's mean, in standard deviations. The loss is
GRPO's (Shao et al. 2024, arXiv 2402.03300): PPO's clipped one, averaged over the tokens of an answer and then over answers, plus the divergence from the
model without its adapter, estimated at each token as exp(r) - r - 1, where r is the reference's log-probability less the policy's. With `warm_up` the
model is first supervised on what the shop states (`tgq.attributes.supervise_model`); the reference is the supervised model then.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from tgq.attributes.answers import checked
from tgq.attributes.reinforce import Point, ReinforceConfig, Rewarding
from tgq.attributes.source import Asked, chat_about
from tgq.attributes.supervise_model import Lesson, adapter, alone, need_trl, supervised
from tgq.attributes.vocabulary import Vocabulary
from tgq.encoder.quiet import quiet_transformers
from tgq.errors import ModelError, SourceError
from tgq.refinement.generators.local import LocalModel, answered, fits
from tgq.refinement.generators.reader import TextReader
from tgq.settings.section import Positive

INVALID = -0.1  # reward of an answer that is no JSON object


@dataclass(frozen=True)
class ModelReinforceConfig(ReinforceConfig):
    """Settings of the reinforcement of a language model. Its answers cost more than those of heads, so there are fewer of them."""

    steps: Positive = 100
    items: Positive = 4  # of a step
    samples: Annotated[int, Field(ge=2)] = 8  # answers for an item: the group
    epochs: Positive = 1  # passes over a step's answers
    every: Positive = 10  # steps between two evaluations
    evaluated: Positive = 50  # items of an evaluation, of each side
    rank: Positive = 16  # of the adapter
    warm_up: Annotated[int, Field(ge=0)] = 0  # supervised steps before, of `items` items each, on the attributes that the shop states
    warm_up_lr: Annotated[float, Field(gt=0)] = 2e-4


@dataclass(frozen=True)
class ModelPoint(Point):
    """As `Point`, where the divergence is of a token, and with the lengths and the invalid ones of the most likely answers."""

    invalid: float  # share of invalid samples since the last point; nan at the start
    train_tokens: float  # of an answer
    held_out_tokens: float
    train_invalid: float  # share of answers that are no JSON object
    held_out_invalid: float


@dataclass(frozen=True)
class ReinforcedModel:
    """The model of the step with the best held-out recall, the first one of equals, and the curve. Step 0 is after a warm-up; the curve then begins
    before it, with the number of its steps as a negative one."""

    tokenizer: Any
    model: Any
    curve: tuple[ModelPoint, ...]
    step: int

    def save(self, folder: Path) -> None:
        """Write a model folder with the adapter merged into the weights (safetensors), the tokenizer and its chat template."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Task:
    """What the model is asked about rows, and how its answers are rewarded."""

    asked: Sequence[Asked]  # by row
    vocabulary: Vocabulary
    rewards: Rewarding

    def said(self, row: int, text: str) -> dict[str, str] | None:
        """The values of an answer that pass the checks of `checked`; None for an answer that is no JSON object."""
        asked = self.asked[row]
        answers = checked(text, asked.item, asked.keys, self.vocabulary)
        if any(answer.reason == "no_json" for answer in answers):
            return None
        return {answer.key: answer.value for answer in answers if answer.verdict == "said" and answer.value is not None}

    def rewarded(self, rows: Sequence[int], texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rewards `[N]` of answers about rows, -0.1 to 1, and which are valid `[N]`."""
        said = [self.said(row, text) for row, text in zip(rows, texts, strict=True)]
        valid = np.array([own is not None for own in said], bool)
        return np.where(valid, self.rewards.recall(rows, [own or {} for own in said]), INVALID), valid


@dataclass(frozen=True)
class _Greedy:
    """Means over the most likely answers about some rows."""

    recall: float  # with what a night would use: an invalid answer adds nothing
    length: float
    tokens: float
    invalid: float


def need_model(local: LocalModel) -> None:
    """Check, without loading weights, that a model can be reinforced.

    Raises:
        UsageError: trl is not installed.
        ModelError: as `LocalModel.need`.
    """
    need_trl()
    local.need()


def reinforce_model(
    local: LocalModel, asked: Sequence[Asked], vocabulary: Vocabulary, rewards: Rewarding, train: np.ndarray, held_out: np.ndarray,
    options: ModelReinforceConfig, log: Callable[[ModelPoint], None] = lambda point: None, lessons: Sequence[Lesson] = (),
    log_warm_up: Callable[[int, float], None] = lambda step, loss: None,
) -> ReinforcedModel:  # fmt: skip
    """Reinforce a language model. Its folder and the encoder behind the rewards stay as they are.

    Nothing is read from a hub or reported to one. The random numbers of torch, numpy and Python begin at the seed.

    Args:
        local: also says how many tokens an answer may have, and how many items an evaluation asks about at a time.
        asked: of all rows; the keys that an item would lack without its attributes.
        train, held_out: numbers of rows with a positive, of different groups.
        lessons: of a warm-up, about items of other groups than `held_out`.
        log_warm_up: called after each step of a warm-up with its number and its loss, in nats per token.

    Cost: for each step `items * samples` answers, which are written together, so memory holds what the model keeps of all their tokens; then each goes
    forward without the adapter once, and for each epoch forward twice, because only the bounds of layers are kept, and back once.

    Raises:
        UsageError: trl is not installed.
        ModelError: the model cannot be loaded, or cannot answer.
        SourceError: there is no item on one of the sides that has keys and texts, and whose prompt the model can read; or none to warm up with.
    """
    need_model(local)
    reader, model = local.load()
    if not isinstance(reader, TextReader):
        raise ModelError(f"{local.reference} is a model that reads pictures, which is not reinforced", "choose a language model of texts")
    task, pick = Task(asked, vocabulary, rewards), np.random.default_rng(options.seed)
    train, held_out = (_readable(rows, task, reader, model, local) for rows in (train, held_out))
    judged = [pick.permutation(rows)[: options.evaluated] for rows in (train, held_out)]
    generation, curve, best = copy.deepcopy(model.generation_config), list[ModelPoint](), dict[str, torch.Tensor]()

    def evaluate(step: int, policy: Any, seen: tuple[float, float, float]) -> None:
        nonlocal best
        a, b = (_greedy(task, rows, reader, policy.eval(), local) for rows in judged)
        curve.append(ModelPoint(step, a.recall, b.recall, a.length, b.length, *seen, a.tokens, b.tokens, a.invalid, b.invalid))
        log(curve[-1])
        if step >= 0 and _best(curve) is curve[-1]:
            best = {name: value.detach().clone() for name, value in policy.named_parameters() if value.requires_grad}

    if options.warm_up:
        evaluate(-options.warm_up, model, (float("nan"),) * 3)
        taught = _teachable(lessons, vocabulary, reader, model, local)
        model = supervised(reader, model, taught, vocabulary, steps=options.warm_up, items=options.items, lr=options.warm_up_lr, rank=options.rank,
                           seed=options.seed, log=log_warm_up)  # fmt: skip
    with alone() as folder:
        trainer = _trainer(reader, model, task, train, local.answer_tokens, options, folder, evaluate)
        evaluate(0, trainer.model, (float("nan"),) * 3)
        trainer.train()
    trainer.model.load_state_dict(best, strict=False)  # of the adapter alone
    merged = trainer.model.merge_and_unload()
    merged.generation_config = generation  # trl sets one for sampling
    return ReinforcedModel(reader.tokenizer, merged, tuple(curve), _best(curve).step)


def _best(curve: Sequence[ModelPoint]) -> ModelPoint:
    return max((point for point in curve if point.step >= 0), key=lambda point: point.held_out_recall)  # the first one of equals


def _readable(rows: np.ndarray, task: Task, reader: TextReader, model: Any, local: LocalModel) -> np.ndarray:
    """The rows that a night would ask the model about, if none had attributes."""
    asked = [row for row in rows.tolist() if task.asked[row].keys and task.asked[row].has_something]
    found = [row for row in asked if fits(reader, model, chat_about(task.asked[row], task.vocabulary), local.answer_tokens)]
    if not found:
        raise SourceError("no item with a relevance pair can be asked about, on one of the two sides of the reinforcement",
                          "train on more items, or with a model that reads longer prompts")  # fmt: skip
    return np.array(found, int)


def _teachable(lessons: Sequence[Lesson], vocabulary: Vocabulary, reader: TextReader, model: Any, local: LocalModel) -> list[Lesson]:
    """The lessons whose question a night would ask, and whose question and answer the model can read."""
    asked = [lesson for lesson in lessons if lesson.asked.keys and lesson.asked.has_something]
    found = [lesson for lesson in asked if fits(reader, model, chat_about(lesson.asked, vocabulary), local.answer_tokens)]
    if not found:
        raise SourceError("no item that states attributes can be learned from in the warm-up", "train on more items, or set warm_up=0")
    return found


def _greedy(task: Task, rows: np.ndarray, reader: TextReader, model: Any, local: LocalModel) -> _Greedy:
    replies = answered(reader, model, [chat_about(task.asked[row], task.vocabulary) for row in rows], local.batch, local.answer_tokens)
    said = [task.said(row, reply.text) for row, reply in zip(rows, replies, strict=True)]
    recall = task.rewards.recall(rows.tolist(), [own or {} for own in said])
    values, written, invalid = ([len(own or {}) for own in said], [reply.written for reply in replies], [own is None for own in said])
    return _Greedy(*(float(np.mean(figures)) for figures in (recall, values, written, invalid)))


def _trainer(
    reader: TextReader, model: Any, task: Task, train: np.ndarray, answer_tokens: int, options: ModelReinforceConfig, folder: str,
    evaluate: Callable[[int, Any, tuple[float, float, float]], None],
) -> Any:  # fmt: skip
    """trl's trainer, which calls `evaluate` with the step, the model, and the means of reward, divergence and invalid answers since the last call."""
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    def recall(completion_ids: Sequence[Sequence[int]], row: Sequence[int], log_metric: Callable[[str, float], None], **_: Any) -> list[float]:
        # decoded as `answered` does, because trl's own texts leave out what a template knows as thoughts
        rewards, valid = task.rewarded(row, reader.tokenizer.batch_decode(completion_ids, skip_special_tokens=True))
        log_metric("invalid", float(1 - valid.mean()))
        return rewards.tolist()

    class Curve(TrainerCallback):
        def __init__(self) -> None:
            self.seen: dict[str, list[float]] = {"reward": [], "kl": [], "invalid": []}

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, model: Any = None, **_: Any) -> None:
            """After each update. Only the first update of a step has new answers, and the last log of a training is no update."""
            if not logs or "loss" not in logs:
                return
            for name, values in self.seen.items():
                values += [float(logs[name])] if name in logs else []
            step, update = divmod(state.global_step, options.epochs)
            if not update and (step % options.every == 0 or step == options.steps):
                reward, divergence, invalid = (float(np.mean(values)) if values else float("nan") for values in self.seen.values())
                evaluate(step, model, (reward, divergence, invalid))
                model.train()
                self.seen = {name: [] for name in self.seen}

    chats = [reader.messages(chat_about(task.asked[row], task.vocabulary)) for row in train]
    own = copy.deepcopy(reader.tokenizer)
    own.model_input_names = ["input_ids", "attention_mask"]  # trl gives the model all that a tokenizer makes, which may be more than it takes
    settings = GRPOConfig(
        output_dir=folder, seed=options.seed, max_steps=options.steps * options.epochs, num_iterations=options.epochs,
        # a group at a time goes through the model, and all of a step are one update
        per_device_train_batch_size=options.samples, num_generations=options.samples, gradient_accumulation_steps=min(options.items, len(train)),
        max_completion_length=answer_tokens, temperature=1.0, top_p=1.0, top_k=0,
        learning_rate=options.lr, lr_scheduler_type="constant", epsilon=options.clip, beta=options.kl, loss_type="grpo", scale_rewards="group",
        use_cpu=model.device.type == "cpu", bf16=model.dtype == torch.bfloat16, gradient_checkpointing=True,
        save_strategy="no", report_to="none", push_to_hub=False, logging_steps=1, disable_tqdm=True,
    )  # fmt: skip
    settings._n_gpu = min(1, settings.n_gpu)  # trl refuses to run beside unused GPUs
    trainer = GRPOTrainer(
        model, recall, settings, Dataset.from_dict({"prompt": chats, "row": train.tolist()}), processing_class=own,
        peft_config=adapter(options.rank), callbacks=[Curve()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer
