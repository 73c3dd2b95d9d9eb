"""Metadata as shops get it wrong: another item's title, fields that nobody filled in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from tgq.nuisances.item import Item


def wrong_title(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """One of the others' titles in place of the item's own; None where none of them has another one."""
    titles = [other.title for other in others if other.title and other.title != item.title]
    return replace(item, title=r.choice(titles)) if titles else None


def missing_brand(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """An empty brand field (a title that names the brand goes on naming it); None where it is empty already."""
    return replace(item, brand="") if item.brand else None


def missing_image(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """No picture; None where there is none already, or where nothing would be left."""
    return replace(item, image=None) if item.image is not None and item.has_text else None


def missing_text(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """No metadata at all; None where there is none already, or where nothing would be left."""
    return replace(item, title="", brand="", category="", attributes={}) if item.image is not None and item.has_text else None


def shuffled_attributes(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """The attributes' values under each other's names; None where fewer than two differ."""
    names = sorted(item.attributes)
    values = [item.attributes[name] for name in names]
    if len(set(values)) < 2:
        return None
    shuffled = list(values)
    while shuffled == values:
        r.shuffle(shuffled)
    return replace(item, attributes=dict(zip(names, shuffled, strict=True)))
