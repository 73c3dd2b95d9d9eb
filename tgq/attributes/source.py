"""The sources of attributes: heads, and a language model that answers in JSON under the category's schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tgq.attributes.answers import LONGEST, Answer, Verdict, checked
from tgq.attributes.heads import AttributeHeads, ItemFeatures
from tgq.attributes.vocabulary import Vocabulary
from tgq.refinement import picture, prompts
from tgq.refinement.generators.generator import TOKEN_LIMIT, Chat, Generator
from tgq.refinement.refiner import ItemText

FORMAT = 1  # to be raised when the same answers give other values
SHOWN = 20  # known values of a key that a prompt lists
SYSTEM = (
    "You state attributes of a shop's items. You state only what an item's own texts or picture show. You add no brand and no number, "
    "and you leave out what you cannot tell."
)
REQUEST = """State these attributes of the item, as far as its texts or picture show them.

{item}

The attributes, each with values that other items of the shop have:
{schema}

Answer with one JSON object only, with a text of at most {longest} characters for each attribute, and null for one that you cannot tell: {form}"""


@dataclass(frozen=True)
class Asked:
    """An item and the keys that it lacks."""

    item: ItemText
    keys: tuple[str, ...]
    has_something: bool = True  # to be read: a picture, or a text beside its attributes


class AttributeSource(Protocol):
    """Says attributes. The same item has the same answers under the same `version`."""

    @property
    def version(self) -> str:
        """Changes if the answers may change."""
        ...

    def answers(self, asked: Sequence[Asked], features: ItemFeatures | None) -> list[list[Answer]]:
        """The answers for each item, in order: one per key, and perhaps more. Raises nothing because of an item.

        Args:
            features: of the same items, for a source that reads them.
        """
        ...


class HeadSource:
    """Says what heads predict.

    Args:
        threshold: of all keys in place of their own.
    """

    def __init__(self, heads: AttributeHeads, threshold: float | None = None):
        self.heads, self.threshold = heads, threshold

    @property
    def version(self) -> str:
        """A hash of the heads and the threshold."""
        return f"heads-{self.heads.version}" + ("" if self.threshold is None else f"-{self.threshold:g}")

    def answers(self, asked: Sequence[Asked], features: ItemFeatures | None) -> list[list[Answer]]:
        """As `AttributeSource`. Values that are not said have their value and score too, so that a threshold can be judged in SQL."""
        assert features is not None
        predicted = self.heads.predict(features, [one.keys if one.has_something else () for one in asked], self.threshold)
        return [
            [Answer(said.key, "said" if said.is_said else "silent", said.value, round(said.score, 6)) for said in row]
            if one.has_something else [Answer(key, "silent") for key in one.keys]
            for one, row in zip(asked, predicted, strict=True)
        ]  # fmt: skip


class ModelSource:
    """Says what a language model answers and `checked` lets pass. One question per item.

    Args:
        sees_pictures: items may have a picture, which the model is shown with the question.
    """

    def __init__(self, generator: Generator, vocabulary: Vocabulary, sees_pictures: bool = False):
        self.generator, self.vocabulary, self.sees_pictures = generator, vocabulary, sees_pictures

    @property
    def version(self) -> str:
        """A hash of the prompt, the vocabulary and the generator, and of how pictures are shown if they are."""
        limits = [FORMAT, SHOWN, LONGEST, prompts.LONGEST_FIELD, prompts.MOST_ATTRIBUTES]
        parts: list[object] = [limits, SYSTEM, REQUEST, self.vocabulary.as_json(), self.generator.version]
        if self.sees_pictures:
            parts += [picture.SIDE, picture.QUALITY]
        return f"model-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"

    def answers(self, asked: Sequence[Asked], features: ItemFeatures | None = None) -> list[list[Answer]]:
        """As `AttributeSource`."""
        if not asked:
            return []
        replies = iter(self.generator.answers([chat_about(one, self.vocabulary) for one in asked if one.has_something], True))
        found: list[list[Answer]] = []
        for one in asked:
            if not one.has_something:
                found.append([Answer(key, "silent") for key in one.keys])
                continue
            reply = next(replies)
            if reply.reason is not None:
                verdict: Verdict = "waiting" if reply.reason == TOKEN_LIMIT else "failed"
                row = [Answer(key, verdict, reason=reply.reason, detail=reply.detail) for key in one.keys]
            else:
                row = checked(reply.text, one.item, one.keys, self.vocabulary)
            found.append([replace(row[0], tokens=reply.tokens), *row[1:]])
        return found


def chat_about(asked: Asked, vocabulary: Vocabulary) -> Chat:
    """The question about one item. Its texts and the schema are quoted as JSON, so that none of them passes for a part of the prompt."""
    schema = json.dumps({key: vocabulary.values[key][:SHOWN] for key in asked.keys}, ensure_ascii=False)
    form = json.dumps(dict.fromkeys(asked.keys, "..."), ensure_ascii=False)
    return Chat(SYSTEM, REQUEST.format(item=prompts.described(asked.item), schema=schema, longest=LONGEST, form=form), asked.item.picture)
