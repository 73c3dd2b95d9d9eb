"""The vocabulary of attributes: keys and values that are frequent in a catalog, and which keys the items of a category have.

It is counted from items whose attributes the shop states, as far as the encoder may read them. A value counts without case and accents, under its most
frequent spelling. A category has the keys that most of its items state; one with few items has those of the category above it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tgq.encoder.text import normalise
from tgq.errors import SourceError
from tgq.refinement.words import folded

LEVELS = " > "  # between the levels of a category
WHOLE = ""  # the category of all items


@dataclass(frozen=True)
class Labelled:
    """An item with its own attributes, from which is learned."""

    group: str  # items of a group are never both learned from and judged
    category: str = WHOLE
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VocabularyOptions:
    """What counts as frequent."""

    min_items: int = 10  # with a value, and with a key
    min_groups: int = 3  # with a value: one that a single product has cannot be judged on others
    max_values: int = 100  # of a key, the most frequent ones
    min_share: float = 0.3  # of a category's items that state a key of its schema
    min_category: int = 30  # items of a category with a schema of its own


@dataclass(frozen=True)
class Vocabulary:
    """Values by key, most frequent first, and keys by category path; the path WHOLE is always there."""

    values: Mapping[str, tuple[str, ...]]
    schemas: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, items: Sequence[Labelled], options: VocabularyOptions) -> Vocabulary:
        """The vocabulary of some items.

        Raises:
            SourceError: no key has two frequent values.
        """
        items_with, groups_with, spellings = _counted(items)
        values: dict[str, tuple[str, ...]] = {}
        for key in sorted(spellings):
            counts = sorted(items_with[key].items(), key=lambda pair: (-pair[1], pair[0]))
            common = [v for v, n in counts if n >= options.min_items and len(groups_with[key, v]) >= options.min_groups]
            if len(common) >= 2:  # a key with one value tells no items apart
                values[key] = tuple(min(spellings[key][v].items(), key=lambda pair: (-pair[1], pair[0]))[0] for v in common[: options.max_values])
        if not values:
            raise SourceError(f"no attribute of {len(items)} items has two values that {options.min_items} items of {options.min_groups} groups state",
                              "name more in metadata.attributes, or train on more items")  # fmt: skip
        return cls(values, _schemas(items, values, options))

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Vocabulary:
        """What `as_json` wrote."""
        return cls(*({name: tuple(listed) for name, listed in read[part].items()} for part in ("values", "schemas")))

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"values": {k: list(v) for k, v in self.values.items()}, "schemas": {k: list(v) for k, v in self.schemas.items()}}

    def schema(self, category: str) -> tuple[str, ...]:
        """The keys that an item of this category should have."""
        return next(self.schemas[path] for path in _upwards(category) if path in self.schemas)

    def missing(self, category: str, attributes: Mapping[str, str], readable: Sequence[str] | None = None) -> tuple[str, ...]:
        """The keys of the category's schema for which an item states no value.

        Args:
            readable: names of attributes that the encoder may read; None: all.
        """
        stated = {normalise(key) for key, value in attributes.items() if normalise(value)}
        return tuple(key for key in self.schema(category) if key not in stated and (readable is None or key in readable))

    def places(self) -> dict[str, dict[str, int]]:
        """By key, the place of each value in `values`, by the value without case and accents."""
        return {key: {folded(value): at for at, value in enumerate(listed)} for key, listed in self.values.items()}


def _counted(items: Sequence[Labelled]) -> tuple[dict[str, Counter[str]], dict[tuple[str, str], set[str]], dict[str, dict[str, Counter[str]]]]:
    """Items by key and folded value, groups by both, and spellings by both."""
    items_with: dict[str, Counter[str]] = defaultdict(Counter)
    groups_with: dict[tuple[str, str], set[str]] = defaultdict(set)
    spellings: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for item in items:
        for key, value in stated(item.attributes).items():
            same = folded(value)
            items_with[key][same] += 1
            groups_with[key, same].add(item.group)
            spellings[key][same][value] += 1
    return items_with, groups_with, spellings


def _schemas(items: Sequence[Labelled], keys: Mapping[str, object], options: VocabularyOptions) -> dict[str, tuple[str, ...]]:
    total: Counter[str] = Counter()
    having: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        present = [key for key in stated(item.attributes) if key in keys]
        for path in _upwards(item.category):
            total[path] += 1
            having[path].update(present)
    return {
        path: tuple(sorted(key for key, n in having[path].items() if n >= options.min_share * total[path]))
        for path in sorted(total) if path == WHOLE or total[path] >= options.min_category
    }  # fmt: skip


def stated(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes with a value, normalised."""
    pairs = ((normalise(key), normalise(value)) for key, value in attributes.items())
    return {key: value for key, value in pairs if key and value}


def _upwards(category: str) -> Iterator[str]:
    """A category's path, then those above it, and WHOLE."""
    levels = category.split(LEVELS) if category else []
    for n in range(len(levels), 0, -1):
        yield LEVELS.join(levels[:n])
    yield WHOLE
