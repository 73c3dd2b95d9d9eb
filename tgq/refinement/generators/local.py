"""A causal language model of transformers in this process."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tgq.encoder.towers import hub
from tgq.errors import ModelError
from tgq.refinement.generators.generator import Chat, Reply

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

    @property
    def version(self) -> str:
        """A hash of the model's files and of what limits its answers. Of weights it covers their sizes and both ends, because hashing
        some ten GB takes a minute."""
        return _fingerprint(self.reference, self.answer_tokens)

    def need(self) -> None:
        """Check, without loading weights, that the model can be used.

        Raises:
            ModelError: there is no such folder, or it has no weights, no tokenizer or no chat template.
        """
        _tokenizer(self.reference)

    def answers(self, chats: Sequence[Chat], json: bool) -> list[Reply]:
        """As `Generator`. A conversation that is longer than the model reads, or on which the model fails, has no answer."""
        return answered(*_loaded(self.reference, self.device, self.dtype), chats, self.batch, self.answer_tokens)

    def load(self) -> tuple[Any, Any]:
        """A tokenizer and a model in eval mode of one's own, to be changed.

        Raises:
            ModelError: as `need`, or the weights cannot be loaded.
        """
        return _load(self.reference, self.device, self.dtype)


def answered(tokenizer: Any, model: Any, chats: Sequence[Chat], batch: int, answer_tokens: int) -> list[Reply]:
    """The most likely answers of a model that is loaded. A conversation that is longer than the model reads, or on which it fails, has none.

    Args:
        batch, answer_tokens: as those of `LocalModel`.
    """
    texts = [_written(tokenizer, chat)[1] for chat in chats]
    lengths, longest = _lengths(tokenizer, texts), _longest(model, answer_tokens)
    replies = [Reply(reason="prompt_too_long", detail=f"the prompt has {n} tokens, above the model's {longest}") for n in lengths]
    fitting = sorted((at for at, n in enumerate(lengths) if n <= longest), key=lambda at: lengths[at])  # of like lengths, so with little padding
    for start in range(0, len(fitting), batch):
        part = fitting[start : start + batch]
        for at, reply in zip(part, _batch(tokenizer, model, [texts[at] for at in part], answer_tokens), strict=True):
            replies[at] = reply
    return replies


def fits(tokenizer: Any, model: Any, chat: Chat, answer_tokens: int) -> bool:
    """Whether the model can read a conversation and then write so many tokens."""
    return _lengths(tokenizer, [_written(tokenizer, chat)[1]])[0] <= _longest(model, answer_tokens)


def messages(tokenizer: Any, chat: Chat) -> list[dict[str, str]]:
    """A conversation as the model's chat template takes it. Where the template knows no message of the system, that text precedes the user's."""
    return _written(tokenizer, chat)[0]


def _lengths(tokenizer: Any, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]] if texts else []


def _longest(model: Any, answer_tokens: int) -> int:
    return (getattr(model.config, "max_position_embeddings", None) or 2**31) - answer_tokens


def _batch(tokenizer: Any, model: Any, texts: list[str], answer_tokens: int) -> list[Reply]:
    import torch

    inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False, verbose=False)
    ids, mask = (inputs[name].to(model.device) for name in ("input_ids", "attention_mask"))
    try:
        with torch.inference_mode():
            out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=answer_tokens, do_sample=False)
    except RuntimeError as error:  # as where the memory of a GPU does not suffice
        if len(texts) > 1:
            return [reply for text in texts for reply in _batch(tokenizer, model, [text], answer_tokens)]
        return [Reply(reason="model_error", detail=" ".join(str(error).split())[:200])]
    written, read = out[:, ids.shape[1] :], mask.sum(1).tolist()
    new = (written != model.generation_config.pad_token_id).sum(1).tolist()
    return [
        Reply(text, tokens=a + b, written=b) for text, a, b in zip(tokenizer.batch_decode(written, skip_special_tokens=True), read, new, strict=True)
    ]  # fmt: skip


def _load(reference: str, device: str, dtype: str) -> tuple[Any, Any]:
    from transformers import GenerationConfig

    from tgq.encoder.towers.loading import load_model
    from tgq.inference.device import choose_device, choose_dtype

    chosen = choose_device(device)
    tokenizer = _load_tokenizer(reference)
    model = load_model(hub.resolve(reference), "AutoModelForCausalLM", choose_dtype(chosen, dtype)).to(chosen).eval()
    ends = model.generation_config.eos_token_id or tokenizer.eos_token_id
    # a configuration of our own: that of the folder may ask for sampling
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return tokenizer, model


_loaded = functools.lru_cache(maxsize=1)(_load)


def _load_tokenizer(reference: str) -> Any:
    from tgq.encoder.towers.loading import load_tokenizer

    folder = hub.resolve(reference)
    tokenizer = load_tokenizer(folder)
    if not tokenizer.chat_template:
        raise ModelError(f"model folder {folder} has no chat template", "choose a model that was trained to follow instructions")
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {folder} names no end token", "save its tokenizer with eos_token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


_tokenizer = functools.lru_cache(maxsize=2)(_load_tokenizer)


def _written(tokenizer: Any, chat: Chat) -> tuple[list[dict[str, str]], str]:
    """The messages that the template takes, and the text that it makes of them."""
    from jinja2 import TemplateError

    try:
        return chat.messages, tokenizer.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
    except TemplateError:
        merged = [{"role": "user", "content": f"{chat.system}\n\n{chat.user}"}]
        return merged, tokenizer.apply_chat_template(merged, tokenize=False, add_generation_prompt=True)


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
