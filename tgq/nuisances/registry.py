"""The nuisances by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tgq.errors import UsageError
from tgq.nuisances import lettering, pixels, scenery, words
from tgq.nuisances.draws import seeded
from tgq.nuisances.item import Item


@dataclass(frozen=True)
class Nuisance:
    """One kind of disturbance. `make(generator, item, others)` returns None if the item lacks what it disturbs."""

    name: str
    disturbs: Literal["picture", "metadata"]  # the part of the item that it changes; the other part stays as it is
    text: str  # one line for people
    make: Callable[[random.Random, Item, Sequence[Item]], Item | None]


NUISANCES: dict[str, Nuisance] = {
    nuisance.name: nuisance
    for nuisance in (
        Nuisance("typographic", "picture", "another product's name written large on the picture", lettering.typographic),
        Nuisance("typographic_own", "picture", "the item's own name written large on the picture", lettering.typographic_own),
        Nuisance("banner", "picture", "a shop's offer printed over the picture", lettering.banner),
        Nuisance("background", "picture", "a gradient or texture in place of a plain white background", scenery.background),
        Nuisance("scene", "picture", "1 to 3 other products beside the item", scenery.scene),
        Nuisance("jpeg", "picture", "strong JPEG compression", pixels.jpeg),
        Nuisance("crop", "picture", "a window of half to two thirds of the picture", pixels.crop),
        Nuisance("wrong_title", "metadata", "another item's title", words.wrong_title),
        Nuisance("missing_brand", "metadata", "an empty brand field", words.missing_brand),
        Nuisance("missing_image", "picture", "no picture, metadata alone", words.missing_image),
        Nuisance("missing_text", "metadata", "no metadata, the picture alone", words.missing_text),
        Nuisance("shuffled_attributes", "metadata", "attribute values under each other's names", words.shuffled_attributes),
    )
}


def apply(name: str, item: Item, others: Sequence[Item], seed: int) -> Item | None:
    """The item's view under a nuisance, or None if the item lacks what the nuisance disturbs.

    The result depends on (item_id, name, seed), the item and the set of others, not on their order or the partitioning. A picture
    keeps its size. The arguments are not changed; the view shares what the nuisance leaves alone.

    Args:
        name: one of NUISANCES.
        others: other products to draw names, titles and pictures from; the item itself is skipped.

    Raises:
        UsageError: no such nuisance.
    """
    (nuisance,) = chosen([name])
    candidates = sorted((other for other in others if other.item_id != item.item_id), key=lambda other: other.item_id)
    return nuisance.make(seeded("view", name, item.item_id, seed), item, candidates)


def chosen(names: Iterable[str] | None = None) -> tuple[Nuisance, ...]:
    """The nuisances with the given names, each once, in the registry's order; all if no name is given.

    Raises:
        UsageError: no such nuisance; names the known ones.
    """
    wanted = set(names or NUISANCES)
    if unknown := sorted(wanted - NUISANCES.keys()):
        raise UsageError(f"no nuisance named '{unknown[0]}'", f"choose from {', '.join(NUISANCES)}")
    return tuple(nuisance for name, nuisance in NUISANCES.items() if name in wanted)
