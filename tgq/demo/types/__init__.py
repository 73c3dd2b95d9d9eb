"""The product types: one YAML file for some departments each, with a table for every type.

A new type is a new table at the end of a file: its place in the category tree, what a shop says about it, what its styles vary, and the
rows that draw it. `tgq.demo.drawing.table` explains the rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tgq.demo.drawing.table import Drawing, compile_table

FILES = ("fashion", "electronics", "footwear", "furniture", "home", "kitchen", "sports", "toys")  # the order is part of what a seed draws
PATTERNS = {  # what tables may call several patterns; a repeated one is as many times as likely
    "plain": ("solid", "solid", "solid", "striped", "colour block"),
    "cloth": ("solid", "solid", "striped", "dotted", "checked", "chevron", "floral", "triangles", "colour block"),
}


@dataclass(frozen=True)
class Product:
    """One product type.

    Attributes:
        path: its place in the category tree, `a > b > c`.
        nouns: what titles call it.
        materials, patterns: what its styles choose from.
        price: lowest and highest, in the shop's currency.
        stance: how it is photographed: `stands` on a surface, `lies` seen from above, or `worn` by a person.
        sizes: the sizes it is sold in, if any.
        weight: how many styles it has, relative to the others.
        draw: draws it into the middle of a canvas.
    """

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
    def name(self) -> str:
        """The last level of the category path; `fine_class` in the catalog."""
        return self.path.split(" > ")[-1]

    @property
    def department(self) -> str:
        """The first level of the category path."""
        return self.path.split(" > ")[0]


@functools.lru_cache(maxsize=1)
def products() -> tuple[Product, ...]:
    """All product types, in a fixed order."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = []
    for name in FILES:
        tables = yaml.load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506  (a safe loader)
        shared = tables.pop("shared", {})
        found += [_product(path, *rows, shared=shared) for path, rows in tables.items()]
    return tuple(found)


def _product(path: str, shop: dict[str, Any], *rows: Any, shared: dict[str, Any]) -> Product:
    draw = compile_table(path, rows, shared, shop.pop("axis", 0.5))
    shop["patterns"] = PATTERNS.get(str(shop.get("patterns")), shop.get("patterns", Product.patterns))
    told: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in shop.items()}
    return Product(path, draw=draw, **told)
