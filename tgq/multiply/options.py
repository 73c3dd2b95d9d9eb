"""How a catalog is multiplied: shares of rows with a nuisance, sizes, seed."""

from __future__ import annotations

from dataclasses import dataclass

from tgq.errors import UsageError

SMALLEST, LARGEST = 32, 2048  # pixels of a picture's side
CROWDED = 0.7  # of the picture's side: larger products in a scene would cover each other
SHARES = ("scenes", "same_category", "wrong_titles", "banners", "backgrounds", "missing")


@dataclass(frozen=True)
class Options:
    """What is made of a catalog. Shares are probabilities: a row's draws depend on its item, its number and the seed alone.

    Attributes:
        rows: number of rows to write.
        scenes: share of the pictures that show 1 to 3 other products beside the item.
        same_category: share of the scenes of which at least one other product is of the item's category.
        wrong_titles: share of the rows whose title is another item's.
        banners: share of the pictures with an offer printed over them.
        backgrounds: share of the pictures with a gradient or a texture behind the products.
        missing: probability that a brand, and each attribute, is left out.
        item_size: smallest and largest longer side of an item that is alone, as a share of the picture's side.
        scene_size: the same of each product in a scene.
        size: side of the square pictures in pixels.
        seed: another seed gives other variants.

    Raises:
        UsageError: a value is out of its range.
    """

    rows: int
    scenes: float = 0.6
    same_category: float = 0.5
    wrong_titles: float = 0.1
    banners: float = 0.35
    backgrounds: float = 0.4
    missing: float = 0.1
    item_size: tuple[float, float] = (0.7, 1.0)
    scene_size: tuple[float, float] = (0.42, 0.6)
    size: int = 224
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise UsageError(f"rows is {self.rows}", "give 1 or more")
        if not SMALLEST <= self.size <= LARGEST:
            raise UsageError(f"size is {self.size}", f"give {SMALLEST} to {LARGEST} pixels")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is {getattr(self, name):g}", "give a share between 0 and 1")
        for name, most in (("item_size", 1.0), ("scene_size", CROWDED)):
            low, high = getattr(self, name)
            if not 0.1 <= low <= high <= most:
                raise UsageError(f"{name} is {low:g} to {high:g}", f"give two shares of the picture's side, the smaller first, from 0.1 to {most:g}")

    def lines(self) -> list[str]:
        """What would be drawn, in lines for people."""
        return [
            f"products in scenes: {self.scenes:.0%} of the pictures, {self.same_category:.0%} of these with a product of the item's category; "
            f"each {self.scene_size[0]:.0%} to {self.scene_size[1]:.0%} of the side, an item alone {self.item_size[0]:.0%} to {self.item_size[1]:.0%}",
            f"banners: {self.banners:.0%}, other backgrounds: {self.backgrounds:.0%}, wrong titles: {self.wrong_titles:.0%}, "
            f"brand and attributes left out: {self.missing:.0%}; seed {self.seed}",
        ]
