"""What a picture goes through on its way to a shop: it is cut and compressed."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from tgq.nuisances.item import Item


def jpeg(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """The picture after JPEG at a quality of 4 to 12 of 95, with its blocks and false colours; None without a picture."""
    if item.image is None:
        return None
    stored = io.BytesIO()
    item.image.save(stored, "JPEG", quality=r.randint(4, 12))
    return replace(item, image=Image.open(stored, formats=["JPEG"]).convert("RGB"))


def crop(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """A window of 50 to 70 % of both sides, brought back to the picture's size; None without a picture."""
    if item.image is None:
        return None
    width, height = item.image.size
    share = r.uniform(0.5, 0.7)
    left, top = r.random() * (1 - share) * width, r.random() * (1 - share) * height
    window = (left, top, left + share * width, top + share * height)
    return replace(item, image=item.image.resize((width, height), Image.Resampling.BICUBIC, box=window))
