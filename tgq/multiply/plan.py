"""What one variant shows and says: the other products beside the item, and its metadata. Draws depend on item, number and seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tgq.multiply.options import Options
from tgq.multiply.product import Product
from tgq.nuisances import Item
from tgq.nuisances.draws import seeded
from tgq.nuisances.words import missing_brand, wrong_title


@dataclass(frozen=True)
class Partners:
    """The other products that may stand beside an item, sorted by id: `near` ones have its category, `far` ones another."""

    near: tuple[Product, ...]
    far: tuple[Product, ...]


@dataclass(frozen=True)
class Plan:
    """A variant before it is drawn.

    Attributes:
        number: of the variant among those of its item, from 0.
        others: the products beside the item.
        told: the row's metadata, with its noise.
        banner: whether an offer is printed over the picture.
        surface: whether a gradient or texture is behind the products.
    """

    product: Product
    number: int
    others: tuple[Product, ...]
    told: Item
    banner: bool
    surface: bool

    @property
    def same_category(self) -> bool:
        """Whether one of the others has the item's category."""
        return any(other.category == self.product.category for other in self.others if other.category)


def partners_of(product: Product, candidates: Iterable[Product]) -> Partners:
    """The candidates that can be told apart from the product, each once, in an order that is theirs alone.

    An item of unknown category is `near` to none and `far` from all.
    """
    found = {other.item_id: other for other in candidates if product.is_another(other)}
    others = [found[item_id] for item_id in sorted(found)]
    near = tuple(other for other in others if other.category and other.category == product.category)
    return Partners(near, tuple(other for other in others if not other.category or other.category != product.category))


def plan_of(options: Options, product: Product, partners: Partners, number: int) -> Plan:
    """Plan the variant `number` of a product.

    Each nuisance has draws of its own, so that another share of one leaves the others where they are. Where a scene has no partner
    of the kind that it should have, it has some of the other kind; without any partner the item is alone.
    """
    return Plan(
        product, number, _others(options, product, partners, number), _told(options, product, partners, number),
        banner=draws(options, product, number, "banner").random() < options.banners,
        surface=draws(options, product, number, "background").random() < options.backgrounds,
    )  # fmt: skip


def draws(options: Options, product: Product, number: int, part: str) -> random.Random:
    """The random numbers of one part of a variant."""
    return seeded("multiply", part, product.item_id, number, options.seed)


def _others(options: Options, product: Product, partners: Partners, number: int) -> tuple[Product, ...]:
    r = draws(options, product, number, "scene")
    is_scene, count, alike = r.random() < options.scenes, r.choice((1, 1, 2, 3)), r.random() < options.same_category
    if not is_scene:
        return ()
    if alike and partners.near:
        first = r.choice(partners.near)
        rest = [other for other in (*partners.near, *partners.far) if other is not first]
        return (first, *r.sample(rest, min(count - 1, len(rest))))
    others = partners.far or partners.near
    return tuple(r.sample(others, min(count, len(others))))


def _told(options: Options, product: Product, partners: Partners, number: int) -> Item:
    told = product.told
    r = draws(options, product, number, "title")
    if r.random() < options.wrong_titles:
        told = wrong_title(r, told, [other.told for other in (*partners.near, *partners.far)]) or told
    r = draws(options, product, number, "metadata")
    if r.random() < options.missing:
        told = missing_brand(r, told, ()) or told
    kept = {name: told.attributes[name] for name in sorted(told.attributes) if r.random() >= options.missing}
    return replace(told, attributes=kept)
