"""A language model of transformers in this process: one of texts, or one that sees pictures too."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgq.encoder.towers import hub
from tgq.errors import ModelError
from tgq.refinement.generators.generator import Chat, Reply
from tgq.refinement.generators.reader import Prompt, Reader, TextReader
from tgq.refinement.generators.vision import VisionReader, is_vision_model

END = 2**20  # bytes at each end of a file of weights that its fingerprint covers


@dataclass(frozen=True)
class LocalModel:
    """A generator that holds plain values only; the model is loaded once per process, at the first answer.

    Conversations are written by the model's chat template, padded on the left and answered greedily. Cost: memory for the weights in each
    process, and time that grows with the longest answer of a batch.
    """

    reference: str  # folder, hub name, or the name of a bundled model
    device: str = "auto"
    dtype: str = "auto"
    batch: int = 8  # conversations that are answered together
    answer_tokens: int = 128  # of an answer; a longer one is cut off
    sees_pictures: bool = False  # conversations may have a picture, so the model must be one that reads pictures

    @property
    def version(self) -> str:
        """A hash of the model's files and of what limits its answers. Of weights it covers their sizes and both ends, because hashing
        some ten GB takes a minute."""
        return _fingerprint(self.reference, self.answer_tokens)

    def need(self) -> None:
        """Check, without loading weights, that the model can be used.

        Raises:
            ModelError: there is no such folder, or it has no weights, no tokenizer, no chat template, or no processor that reads pictures.
        """
        _reader(self.reference, self.sees_pictures)

    def answers(self, chats: Sequence[Chat], json: bool) -> list[Reply]:
        """As `Generator`. A conversation that is longer than the model reads, or on which the model fails, has no answer."""
        return answered(*_loaded(self.reference, self.device, self.dtype, self.sees_pictures), chats, self.batch, self.answer_tokens)

    def load(self) -> tuple[Reader, Any]:
        """A reader and a model in eval mode of one's own, to be changed.

        Raises:
            ModelError: as `need`, or the weights cannot be loaded.
        """
        return _load(self.reference, self.device, self.dtype, self.sees_pictures)


def answered(reader: Reader, model: Any, chats: Sequence[Chat], batch: int, answer_tokens: int) -> list[Reply]:
    """The most likely answers of a model that is loaded. A conversation that is longer than the model reads, or on which it fails, has none.

    Args:
        batch, answer_tokens: as those of `LocalModel`.
    """
    longest = _longest(model, answer_tokens)
    found = [_prompt(reader, chat, longest) for chat in chats]
    replies = [one if isinstance(one, Reply) else Reply() for one in found]
    # of like lengths, so with little padding; and those with a picture apart, because not every processor takes both together
    fitting = [(at, one) for at, one in enumerate(found) if isinstance(one, Prompt)]
    fitting.sort(key=lambda one: (one[1].picture is not None, one[1].tokens))
    for _, alike in itertools.groupby(fitting, lambda one: one[1].picture is not None):
        group = list(alike)
        for start in range(0, len(group), batch):
            part = group[start : start + batch]
            for (at, _), reply in zip(part, _batch(reader, model, [prompt for _, prompt in part], answer_tokens), strict=True):
                replies[at] = reply
    return replies


def fits(reader: Reader, model: Any, chat: Chat, answer_tokens: int) -> bool:
    """Whether the model can read a conversation and then write so many tokens."""
    return isinstance(_prompt(reader, chat, _longest(model, answer_tokens)), Prompt)


def _longest(model: Any, answer_tokens: int) -> int:
    return (getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31) - answer_tokens


def _batch(reader: Reader, model: Any, prompts: list[Prompt], answer_tokens: int) -> list[Reply]:
    import torch

    try:
        inputs = reader.inputs(prompts, model.device, model.dtype)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=answer_tokens, do_sample=False)
    except Exception as error:
        if not isinstance(error, RuntimeError) and prompts[0].picture is None:  # of pictures, processors and models raise many classes
            raise
        if len(prompts) > 1:  # as where the memory of a GPU does not suffice
            return [reply for prompt in prompts for reply in _batch(reader, model, [prompt], answer_tokens)]
        return [_failed(error)]
    written, read = out[:, inputs["input_ids"].shape[1] :], inputs["attention_mask"].sum(1).tolist()
    new = (written != model.generation_config.pad_token_id).sum(1).tolist()
    texts = reader.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [Reply(text, tokens=a + b, written=b) for text, a, b in zip(texts, read, new, strict=True)]


def _prompt(reader: Reader, chat: Chat, longest: int) -> Prompt | Reply:
    """A conversation as the model reads it, or why it cannot."""
    try:
        prompt = reader.prompt(chat)
    except Exception as error:
        if chat.picture is None:  # processors raise many classes of a picture that they do not take, such as one of extreme shape
            raise
        return _failed(error)
    if prompt.tokens > longest:
        return Reply(reason="prompt_too_long", detail=f"the prompt has {prompt.tokens} tokens, above the model's {longest}")
    return prompt


def _failed(error: Exception) -> Reply:
    return Reply(reason="model_error", detail=" ".join(str(error).split())[:200])


def _load(reference: str, device: str, dtype: str, sees_pictures: bool) -> tuple[Reader, Any]:
    from transformers import GenerationConfig

    from tgq.encoder.towers.loading import load_model
    from tgq.inference.device import choose_device, choose_dtype

    chosen = choose_device(device)
    reader = _load_reader(reference, sees_pictures)
    model = load_model(hub.resolve(reference), reader.model_class, choose_dtype(chosen, dtype)).to(chosen).eval()
    ends = model.generation_config.eos_token_id or reader.tokenizer.eos_token_id
    # a configuration of our own: that of the folder may ask for sampling
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=reader.tokenizer.pad_token_id)
    return reader, model


_loaded = functools.lru_cache(maxsize=1)(_load)


def _load_reader(reference: str, sees_pictures: bool) -> Reader:
    from tgq.encoder.towers.loading import load_tokenizer

    folder = hub.resolve(reference)
    reader: Reader = VisionReader(folder) if is_vision_model(folder, sees_pictures) else TextReader(load_tokenizer(folder))
    if not reader.has_template:
        raise ModelError(f"model folder {folder} has no chat template", "choose a model that was trained to follow instructions")
    tokenizer = reader.tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {folder} names no end token", "save its tokenizer with eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return reader


_reader = functools.lru_cache(maxsize=2)(_load_reader)


@functools.lru_cache(maxsize=4)
def _fingerprint(reference: str, answer_tokens: int) -> str:
    folder = hub.resolve(reference)
    weights = set(hub.weight_files(folder))
    known = sorted(file for file in folder.iterdir() if file in weights or file.suffix in (".json", ".jinja", ".txt", ".model"))
    parts = [f"{file.name} {_ends(file) if file in weights else hub.sha256_of(file)}" for file in known]
    return hashlib.sha256(json.dumps([answer_tokens, *parts]).encode()).hexdigest()[:16]


def _ends(file: Path) -> str:
    """The size of a file, and a hash of its first and last END bytes."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(END))
        opened.seek(max(0, size - END))
        digest.update(opened.read(END))
    return f"{size} {digest.hexdigest()}"
