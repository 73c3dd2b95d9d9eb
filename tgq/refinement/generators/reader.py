"""How a local language model reads conversations: written by its chat template and made to numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from PIL import Image

from tgq.refinement.generators.generator import Chat

Written = TypeVar("Written")


@dataclass(frozen=True)
class Prompt:
    """A conversation as the model reads it."""

    text: str
    tokens: int  # with those of the picture
    picture: Image.Image | None = None


class Reader(Protocol):
    """Writes conversations for one model."""

    tokenizer: Any
    model_class: str  # the class of transformers that loads the model

    @property
    def has_template(self) -> bool:
        """Whether the model says how conversations are written."""
        ...

    def prompt(self, chat: Chat) -> Prompt:
        """The conversation, to be continued by the model."""
        ...

    def inputs(self, prompts: Sequence[Prompt], device: Any, dtype: Any) -> Mapping[str, Any]:
        """The model's arguments, padded on the left: `input_ids` and `attention_mask` (B, T), and for pictures what the model reads of them.

        Args:
            dtype: of pixels.
        """
        ...


class TextReader:
    """Reads conversations without pictures, by a tokenizer of transformers."""

    model_class = "AutoModelForCausalLM"

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    @property
    def has_template(self) -> bool:
        """As `Reader`."""
        return bool(self.tokenizer.chat_template)

    def prompt(self, chat: Chat) -> Prompt:
        """As `Reader`."""
        text = written(chat, self._written)
        return Prompt(text, len(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]))

    def messages(self, chat: Chat) -> list[dict[str, Any]]:
        """The conversation as the model's chat template takes it."""

        def taken(one: Chat) -> list[dict[str, Any]]:
            self._written(one)
            return one.messages

        return written(chat, taken)

    def _written(self, chat: Chat) -> str:
        text: str = self.tokenizer.apply_chat_template(chat.messages, tokenize=False, add_generation_prompt=True)
        return text

    def inputs(self, prompts: Sequence[Prompt], device: Any, dtype: Any) -> Mapping[str, Any]:
        """As `Reader`."""
        texts = [prompt.text for prompt in prompts]
        found = self.tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False, verbose=False)
        return {name: found[name].to(device) for name in ("input_ids", "attention_mask")}


def written(chat: Chat, template: Callable[[Chat], Written]) -> Written:
    """What a template makes of a conversation. Where it knows no message of the system, that text precedes the user's."""
    from jinja2 import TemplateError

    try:
        return template(chat)
    except TemplateError:
        return template(chat.merged)
