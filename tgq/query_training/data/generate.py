"""Queries by rules from a catalog's own items, so that a shop without logs can train a query tower.

Shoppers name a kind of thing and what it shall be like ("red cotton shirt men"), or they type a few words of a title that they know.
The rules do both, and make the mistakes that shoppers make. They see only the texts: nothing asks for what only the picture shows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tgq.encoder.text import normalise
from tgq.nuisances.draws import seeded
from tgq.nuisances.spelling import mistyped, plural_of, singular_of
from tgq.query_training.data.words import leaf_of, values_of, without_repeats, words_of

TITLES = 0.4  # share of the queries that are words of a title, where an item has more than a title
SHORTEST, LONGEST = 2, 5  # words taken of a title
SHUFFLED, TYPOS, PLURALS, LOWER = 0.3, 0.12, 0.3, 0.85  # shares of the queries
BRANDS, BEHIND = 0.3, 0.25  # how often the brand is named, and how often an attribute's value stands behind the noun
ATTRIBUTES = (0, 1, 1, 1, 2, 2, 3)  # how many attributes are named
SOUGHT = 5.0  # how much likelier an attribute is named that shoppers usually ask for
MOST_WORDS, MOST_CHARACTERS = 8, 60  # of a query, before a typo
TRIES = 4  # draws for each query that is wanted; items with few words give the same ones again


@dataclass(frozen=True)
class Item:
    """The texts of an item. `category` is a path `a > b > c`."""

    title: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Generated:
    """A query, and the index of the item that it was made from."""

    text: str
    item: int


def generated_queries(items: Sequence[Item], per_item: int, seed: int) -> list[Generated]:
    """At most `per_item` queries of each item, in the order of the items; those of one item are all different.

    They depend on the item's texts and the seed alone: not on the item's place, nor on the other items. With a larger `per_item` come
    more queries after the same first ones. A query is never empty, and has at most 8 words and 61 characters. An item without a letter
    or a digit gives none, and an item of few words gives few.

    Cost: about 35 microseconds a query on one core.
    """
    return [Generated(text, index) for index, item in enumerate(items) for text in _queries_of(item, per_item, seed)]


def _queries_of(item: Item, per_item: int, seed: int) -> list[str]:
    parts = _Parts.of(item)
    if parts is None:
        return []
    r = seeded(seed, "query", item.title, item.brand, item.category, sorted(item.attributes.items()))
    found: dict[str, None] = {}
    for _ in range(TRIES * per_item):
        if len(found) == per_item:
            break
        found[_query(r, parts)] = None
    return list(found)


@dataclass(frozen=True)
class _Parts:
    """What an item's queries are made of."""

    title: list[str]  # words
    brand: str
    nouns: list[str]
    values: list[tuple[str, bool]]  # of attributes, and whether shoppers usually ask for them

    @classmethod
    def of(cls, item: Item) -> _Parts | None:
        """None for an item without words."""
        made = cls(words_of(item.title), " ".join(words_of(item.brand)), leaf_of(item.category), values_of(item.attributes))
        return made if made.title or made.brand or made.nouns or made.values else None


def _query(r: random.Random, parts: _Parts) -> str:
    described = bool(parts.nouns or parts.values or parts.brand)
    of_title = bool(parts.title) and (not described or r.random() < TITLES)
    words = _of_title(r, parts.title) if of_title else _description(r, parts)
    if r.random() < LOWER:
        words = [normalise(word.lower()) for word in words]
    text = " ".join(_within(without_repeats(words)))
    return mistyped(r, text) if r.random() < TYPOS else text


def _of_title(r: random.Random, title: Sequence[str]) -> list[str]:
    """Two to five words of a title, side by side or not, in their order or shuffled."""
    count = min(r.randint(SHORTEST, LONGEST), len(title))
    if r.random() < 0.5:
        start = r.randrange(len(title) - count + 1)
        chosen = list(title[start : start + count])
    else:
        chosen = [title[i] for i in sorted(r.sample(range(len(title)), count))]
    if r.random() < SHUFFLED:
        r.shuffle(chosen)
    return chosen


def _description(r: random.Random, parts: _Parts) -> list[str]:
    """Words for a kind of thing, its attributes and its brand."""
    noun = _numbered(r, r.choice(parts.nouns)) if parts.nouns else ""
    count = min(r.choice(ATTRIBUTES), len(parts.values))
    # the largest of random numbers to the power 1 / weight: a sample without replacement in which weights count
    order = sorted(parts.values, key=lambda value: -(r.random() ** (1 / (SOUGHT if value[1] else 1.0))))
    values = [text for text, _ in order[:count]]
    before: list[str] = []
    behind: list[str] = []
    for value in values:
        (behind if r.random() < BEHIND else before).append(value)
    if parts.brand and (r.random() < BRANDS or not (noun or values)):
        (behind if r.random() < BEHIND else before).insert(0, parts.brand)
    if parts.title and not (before or behind or (noun and r.random() < 0.5)):
        behind.append(r.choice(parts.title))  # a noun alone asks for any item of its kind
    said = [*before, noun, *behind]
    if not any(said):
        said = [text for text, _ in order[:1]]
    return [word for text in said for word in text.split()]


def _numbered(r: random.Random, noun: str) -> str:
    """A noun in the singular or the plural, by English rules; in a language with others a form may come out that nobody types."""
    if not noun.isascii():
        return noun
    one = singular_of(noun.lower())
    if one != noun.lower():  # categories are mostly named in the plural
        return noun if r.random() < PLURALS else one
    return plural_of(one) if r.random() < PLURALS else noun


def _within(words: list[str]) -> list[str]:
    """The first words that are not too many and not too long together; at least one."""
    kept = words[:MOST_WORDS]
    while len(kept) > 1 and len(" ".join(kept)) > MOST_CHARACTERS:
        kept.pop()
    return kept
