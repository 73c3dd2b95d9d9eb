"""What every detector does: for each picture and phrase, the most confident box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from tgq.grounding.box import Found


class Detector(Protocol):
    """Finds the product in a picture.

    Attributes:
        at_once: pictures of one call that need little memory; more are allowed.
    """

    at_once: int

    def find(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Found | None]:
        """The most confident box of each of B RGB pictures, for B phrases; None where nothing was found.

        A box may reach beyond the picture, and its score may be low: `ground` decides what is used.
        """
        ...
