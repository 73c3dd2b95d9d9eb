"""An item as the encoder's input: one picture and its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True)
class Item:
    """An immutable item. A nuisance returns a new one that shares the unchanged parts.

    Raises:
        ValueError: a picture that is not RGB.
    """

    item_id: str
    image: Image.Image | None  # RGB, upright; None: the item has no picture
    title: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.image is not None and self.image.mode != "RGB":
            raise ValueError(f"item {self.item_id}: a picture in mode {self.image.mode}, but RGB is needed")

    @property
    def has_text(self) -> bool:
        """Whether any metadata is there to read."""
        return bool(self.title or self.brand or self.category or self.attributes)
