"""The prompts of the language model: files of this folder, filled with an item's texts. Their hash is part of the refiner's version."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from tgq.refinement.refiner import ItemText

NAMES = ("system", "summarizer", "evaluator", "refiner")
LONGEST_FIELD = 600  # characters of a field that a prompt holds
MOST_ATTRIBUTES = 30
_TEMPLATES = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)  # noqa: S701  the text is for a model, not a page


@functools.cache
def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8").strip()


@functools.cache
def version() -> str:
    """A hash of all prompts and of what limits the item's texts in them, 16 hex digits."""
    parts = [LONGEST_FIELD, MOST_ATTRIBUTES, *(_source(name) for name in NAMES)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def prompt(name: str, **values: object) -> str:
    """A prompt of NAMES with these values in place of its variables.

    Raises:
        jinja2.UndefinedError: a variable has no value.
    """
    return _template(name).render(values)


@functools.cache
def _template(name: str):
    return _TEMPLATES.from_string(_source(name))


def described(item: ItemText) -> str:
    """The item's texts as JSON. Quoted so, a text cannot end its field and pass for a part of the prompt."""
    attributes = {name[:LONGEST_FIELD]: value[:LONGEST_FIELD] for name, value in sorted(item.attributes.items())[:MOST_ATTRIBUTES] if value}
    fields = {"title": item.title[:LONGEST_FIELD], "brand": item.brand[:LONGEST_FIELD], "category": item.category[:LONGEST_FIELD], "attributes": attributes}
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)
