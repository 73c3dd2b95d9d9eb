"""Supervised training of a language model on the attributes that a shop states, by the library trl: what AFMRL (arXiv 2604.20135) reinforces afterwards.

The model is asked as every night asks (`chat_about`) about items whose attributes are hidden, and learns to answer with the JSON object of the stated
ones. An asked attribute that the item does not state is null there. The loss is the cross-entropy of the answer's tokens. A low-rank adapter (LoRA) learns
and is merged into the weights.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from tgq.attributes.source import Asked, chat_about
from tgq.attributes.vocabulary import Vocabulary
from tgq.encoder.quiet import quiet_transformers
from tgq.errors import UsageError
from tgq.refinement.generators.reader import TextReader

if TYPE_CHECKING:
    from peft import LoraConfig

IGNORED = -100  # label of a token that the loss leaves out


@dataclass(frozen=True)
class Lesson:
    """A question, and the attributes that the shop states."""

    asked: Asked
    stated: Mapping[str, str]

    @property
    def answer(self) -> str:
        """The JSON object that the model should answer with."""
        return json.dumps({key: self.stated.get(key) for key in self.asked.keys}, ensure_ascii=False)


def need_trl() -> None:
    """Check that a language model can be trained.

    Raises:
        UsageError: trl is not installed.
    """
    if missing := [name for name in ("trl", "datasets") if not find_spec(name)]:
        raise UsageError(f"the reinforcement of a language model needs the packages trl and datasets; {missing[0]} is not installed",
                         "install them, with Python 3.11 or newer: pip install 'tgq[reinforce]'")  # fmt: skip


def supervised(
    reader: TextReader, model: Any, lessons: Sequence[Lesson], vocabulary: Vocabulary, *, steps: int, items: int, lr: float, rank: int, seed: int,
    log: Callable[[int, float], None] = lambda step, loss: None,
) -> Any:  # fmt: skip
    """Train a loaded model, in place, and return it with the adapter merged.

    Args:
        lessons: whose questions and answers the model can read (`fits`).
        items: of a step; they go through the model one at a time.
        rank: of the adapter.
        log: called after each step with its number and its loss, in nats per token.

    Cost: `items` times forward twice and back once for each step, because only the bounds of layers are kept in memory.
    """
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Log(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                log(state.global_step, float(logs["loss"]))

    rows = Dataset.from_list([_tokens(reader, lesson, vocabulary) for lesson in lessons])
    with alone() as folder:
        settings = SFTConfig(
            output_dir=folder, seed=seed, max_steps=steps, per_device_train_batch_size=1, gradient_accumulation_steps=min(items, len(lessons)),
            max_length=None, learning_rate=lr, lr_scheduler_type="constant", use_cpu=model.device.type == "cpu", bf16=model.dtype == torch.bfloat16,
            gradient_checkpointing=True, save_strategy="no", report_to="none", push_to_hub=False, logging_steps=1, disable_tqdm=True,
        )  # fmt: skip
        settings._n_gpu = min(1, settings.n_gpu)  # trl refuses to run beside unused GPUs
        trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=reader.tokenizer, peft_config=adapter(rank), callbacks=[Log()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.model.merge_and_unload().eval()


def adapter(rank: int) -> LoraConfig:
    """A low-rank adapter of all linear layers."""
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")


@contextlib.contextmanager
def alone() -> Iterator[str]:
    """A temporary folder, where transformers and trl print nothing, and no hub is asked or told anything: trl would report that it is used."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        with quiet_transformers(), warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="tgq-reinforce-") as folder:
            warnings.simplefilter("ignore")  # trl uses names of transformers that will go
            yield folder
    finally:
        constants.HF_HUB_OFFLINE = before


def _tokens(reader: TextReader, lesson: Lesson, vocabulary: Vocabulary) -> dict[str, list[int]]:
    """The question as the model reads it, the answer and the end token; the loss is of the latter two."""
    tokenizer = reader.tokenizer
    asked, answer = (
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in (reader.prompt(chat_about(lesson.asked, vocabulary)).text, lesson.answer)
    )
    answer = [*answer, tokenizer.eos_token_id]
    return {"input_ids": [*asked, *answer], "labels": [IGNORED] * len(asked) + answer}
