"""The register of product types: their names, their places in the category tree, their drawings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape

Drawing = Callable[[Canvas, Shape], None]

CLOTH = ("solid", "solid", "striped", "dotted", "checked", "chevron", "floral", "triangles", "colour block")
PLAIN = ("solid", "solid", "solid", "striped", "colour block")


@dataclass(frozen=True)
class Product:
    """One product type.

    Attributes:
        name: the type's own name; `fine_class` in the catalog.
        path: its place in the category tree, `a > b > c`.
        nouns: what titles call it.
        materials, patterns: what its styles choose from.
        price: lowest and highest, in the shop's currency.
        stance: how it is photographed: `stands` on a surface, `lies` seen from above, or `worn` by a person.
        sizes: the sizes it is sold in, if any.
        weight: how many styles it has, relative to the others.
        draw: draws it into the middle of a canvas.
    """

    name: str
    path: str
    nouns: tuple[str, ...]
    materials: tuple[str, ...]
    price: tuple[float, float]
    draw: Drawing = field(repr=False)
    patterns: tuple[str, ...] = ("solid",)
    stance: str = "stands"
    sizes: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def department(self) -> str:
        """The first level of the category path."""
        return self.path.split(" > ")[0]


_REGISTER: dict[str, Product] = {}


def product(
    path: str, nouns: Sequence[str], materials: Sequence[str], price: tuple[float, float], **more: Any
) -> Callable[[Drawing], Drawing]:
    """Registers the decorated drawing as a product type named after the last level of its category path."""

    def register(draw: Drawing) -> Drawing:
        name = path.split(" > ")[-1]
        _REGISTER[name] = Product(name, path, tuple(nouns), tuple(materials), price, draw, **more)
        return draw

    return register


def products() -> tuple[Product, ...]:
    """All product types, in a fixed order."""
    from tgq.demo import types  # noqa: F401  (importing them registers them)

    return tuple(_REGISTER.values())
