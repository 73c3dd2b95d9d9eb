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
    """One kind of view. `make(generator, item, others)` gives None where the item has not what it would disturb."""

    name: str
    disturbs: Literal["picture", "metadata"]  # what the encoder sees of it; the other side stays as it was
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
    """The item's view under a nuisance, or None where the item has not what the nuisance would disturb.

    A function of (item_id, name, seed), of the item, and of who the others are, not of their order: whatever the partitioning, the
    same pixels. A picture keeps its size. Nothing that is passed in is changed, and what the nuisance leaves alone is shared.

    Args:
        name: one of NUISANCES.
        others: other products to draw names, titles and pictures from; the item itself is passed over.

    Raises:
        UsageError: no such nuisance.
    """
    (nuisance,) = chosen([name])
    company = sorted((other for other in others if other.item_id != item.item_id), key=lambda other: other.item_id)
    return nuisance.make(seeded("view", name, item.item_id, seed), item, company)


def chosen(names: Iterable[str] | None = None) -> tuple[Nuisance, ...]:
    """The nuisances of these names, each once, in the registry's order; all of them where none is named.

    Raises:
        UsageError: no such nuisance; names the known ones.
    """
    wanted = set(names or NUISANCES)
    if unknown := sorted(wanted - NUISANCES.keys()):
        raise UsageError(f"no nuisance named '{unknown[0]}'", f"choose from {', '.join(NUISANCES)}")
    return tuple(nuisance for name, nuisance in NUISANCES.items() if name in wanted)
