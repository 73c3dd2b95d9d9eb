"""Reading the answers of a language model."""

from __future__ import annotations

import json
import re
from typing import Any

from tgq.encoder.text import normalise

STOP = "<STOP>"
FENCE = re.compile(r"\A```(?:json)?\s*\n?(.*?)\n?```\Z", re.DOTALL)
LONGEST = 20_000  # characters of an answer that is read


class AnswerError(Exception):
    """An answer that is not as the prompt demands. The message is one line for the model and for people."""


def title_of(answer: str) -> str:
    """The title of an answer: one JSON object with the key `title` and no other.

    Raises:
        AnswerError: it is anything else.
    """
    found = object_of(answer)
    if set(found) != {"title"} or not isinstance(found["title"], str):
        raise AnswerError("the answer is not a JSON object with a text named title and nothing else")
    return normalise(found["title"])


def object_of(answer: str) -> dict[str, Any]:
    """The JSON object of an answer, alone or between the marks of a code block.

    Raises:
        AnswerError: it is anything else.
    """
    text = answer[:LONGEST].strip()
    if block := FENCE.match(text):
        text = block[1].strip()
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise AnswerError("the answer is no JSON object") from None
    if not isinstance(found, dict):
        raise AnswerError("the answer is no JSON object")
    return found


def critique_of(answer: str) -> str | None:
    """An evaluator's critique in one line; None if it says `<STOP>`, which ends the rounds. An empty answer is no critique and ends them too."""
    text = normalise(answer[:LONGEST])
    return None if not text or STOP in text.upper() else text
