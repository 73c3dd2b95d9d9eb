"""A style's parameters: every value comes from a key and a name through SHA-256, so no draw depends on the order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any


def unit_of(*key: object) -> Callable[[str], float]:
    """A function name -> [0, 1) fixed by `key`; what `Shape` draws from."""
    prefix = repr(key).encode()

    def unit(name: str) -> float:
        digest = hashlib.sha256(prefix + b"/" + name.encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2.0**48

    return unit


class Shape:
    """The parameters of one style, drawn by name where a product type's drawing asks for them.

    A name always gives the same value within a style, so a drawing may ask in any order and a new parameter
    leaves the old ones as they were.

    Args:
        unit: name -> [0, 1]; 0 and 1 are the ends of every parameter's range.

    Attributes:
        traits: what a shop would tell in its attributes ("neck": "v-neck"), filled while drawing.
    """

    def __init__(self, unit: Callable[[str], float]):
        self._unit = unit
        self.traits: dict[str, str] = {}

    def num(self, name: str, low: float, high: float) -> float:
        """A number in [low, high]."""
        return low + (high - low) * self._unit(name)

    def count(self, name: str, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + min(int(self._unit(name) * (high - low + 1)), high - low)

    def pick(self, name: str, options: Sequence[Any]) -> Any:
        """One of the options."""
        return options[self.count(name, 0, len(options) - 1)]

    def chance(self, name: str, share: float) -> bool:
        """True for this share of the styles."""
        return self._unit(name) < share

    def trait(self, name: str, options: Sequence[str]) -> str:
        """One of the options, and told in the item's attributes."""
        self.traits[name] = self.pick(name, options)
        return self.traits[name]
