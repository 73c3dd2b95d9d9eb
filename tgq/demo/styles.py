"""Styles: what a shop designs once and sells in several colours or sizes."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import cast

from tgq.demo.drawing.canvas import MARKS, Brand, Look
from tgq.demo.drawing.draws import Shape, unit_of
from tgq.demo.drawing.surface import COLOURS, RGB, shade
from tgq.demo.types import Product, products
from tgq.nuisances.draws import seeded
from tgq.nuisances.lettering import luminance

NAMES = ("Velmora", "Kestrin", "Noruba", "Tallio", "Brixham Lane", "Osterly", "Fjellrav", "Quindle", "Mirabeau Nord", "Zephra", "Haldane",
         "Pomelo Works", "Uralis", "Cantabria", "Drift & Vale", "Junofield", "Lumeno", "Wexcombe", "Sabelle", "Torvik", "Yarrowby", "Eskimara", "Gantry",
         "Inverleaf")  # fmt: skip
BRANDS_PER_TYPE = 5
PALETTES = {  # materials that come in their own colours most of the time
    "oak": ("beige", "mustard", "brown", "white", "black", "olive"),
    "walnut": ("brown", "burgundy", "black", "beige", "grey"),
    "bamboo": ("beige", "mustard", "brown", "olive", "white"),
    "wood": ("beige", "brown", "red", "blue", "green", "white", "mustard", "black"),
    "steel": ("silver", "grey", "black", "white", "navy", "red", "mint", "burgundy"),
    "glass": ("sky blue", "silver", "mint", "pink", "turquoise", "lilac", "yellow"),
    "leather": ("brown", "black", "beige", "burgundy", "navy", "olive", "red", "white", "mustard"),
    "denim": ("navy", "blue", "sky blue", "black", "grey", "white"),
    "terracotta": ("orange", "brown", "burgundy", "beige", "white", "grey", "olive"),
}


@dataclass(frozen=True)
class Variant:
    """One thing on sale: a style in a colour, and in a size where the style's variants differ by size."""

    name: str
    colour: str
    size: str | None
    main: RGB
    second: RGB


@dataclass(frozen=True)
class Style:
    """One design of a product type."""

    seed: int
    index: int
    product: Product
    brand: Brand
    pattern: str
    material: str
    price: float
    variants: tuple[Variant, ...]

    @property
    def group_id(self) -> str:
        return f"{self.seed}-g{self.index:06d}"

    def shape(self) -> Shape:
        """The style's shape parameters, the same for all of its variants."""
        return Shape(unit_of(self.seed, "shape", self.index))

    def look(self, variant: Variant) -> Look:
        """How a variant is finished."""
        return Look(variant.main, variant.second, self.pattern, self.material, self.brand)


@functools.lru_cache(maxsize=1)
def brands() -> tuple[Brand, ...]:
    """All makers; they do not depend on the seed, as a real market's do not."""
    inks = [c for c in COLOURS.values() if luminance(c) < 0.75]
    return tuple(Brand(name, MARKS[k % len(MARKS)], inks[(k * 5) % len(inks)]) for k, name in enumerate(NAMES))


@functools.lru_cache(maxsize=65536)
def style(seed: int, index: int) -> Style:
    """Style `index` of `seed`, with its two to six variants; other seeds share no style with it."""
    r = seeded(seed, "style", index)
    kind = r.choices(products(), [p.weight for p in products()])[0]
    brand = r.choice(seeded("brands of", kind.name).sample(brands(), BRANDS_PER_TYPE))
    material, pattern = r.choice(kind.materials), r.choice(kind.patterns)
    low, high = kind.price
    price = round(low + (high - low) * r.random() ** 2) - 0.01
    palette = list(PALETTES.get(material, tuple(COLOURS)))
    scheme = r.choice(("white", "black", "deep", "pale", "fixed", "free", "free"))
    fixed = r.choice(list(COLOURS))
    n = r.choices((2, 3, 4, 5, 6), (22, 30, 26, 14, 8))[0]
    sized = bool(kind.sizes) and r.random() < 0.12
    sizes = r.sample(kind.sizes, min(n, len(kind.sizes))) if sized else [None] * n
    names = [r.choice(palette)] * len(sizes) if sized else r.sample(palette, min(n, len(palette)))
    variants = []
    for colour, size in zip(names, sizes, strict=False):
        main = COLOURS[colour] if sized else cast(RGB, tuple(min(255, max(0, v + r.randint(-9, 9))) for v in COLOURS[colour]))
        other = {"white": COLOURS["white"], "black": COLOURS["black"], "deep": shade(main, -0.5), "pale": shade(main, 0.55), "fixed": COLOURS[fixed],
                 "free": COLOURS[fixed if sized else r.choice(list(COLOURS))]}[scheme]  # fmt: skip
        if sum(abs(a - b) for a, b in zip(main, other, strict=True)) < 110:  # a pattern must be seen
            other = shade(main, -0.55) if luminance(main) > 0.5 else shade(main, 0.6)
        name = colour.replace(" ", "-") + (f"-{size}".replace(" ", "") if size else "")
        variants.append(Variant(name, colour, size, main, other))
    return Style(seed, index, kind, brand, pattern, material, price, tuple(variants))
