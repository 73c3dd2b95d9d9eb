"""What is around a product: another background, other products beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from tgq.nuisances.cutout import Cutout, cut_out, plain_background, soft
from tgq.nuisances.item import Item


def background(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """A gradient or a texture in place of the plain background; None without a picture, or where its background is not plain."""
    if item.image is None or (plain := plain_background(item.image)) is None:
        return None
    return replace(item, image=Image.composite(surface(r, *item.image.size)[0], item.image, soft(plain)))


def scene(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """The item beside 1 to 3 of the others, alike in size and place, so that only the metadata says which one is meant.

    None without a picture, or where none of the others has one.
    """
    pictures = [other.image for other in others if other.image is not None]
    if item.image is None or not pictures:
        return None
    cast = [item.image, *r.sample(pictures, min(len(pictures), r.choice((1, 1, 2, 3))))]
    width, height = item.image.size
    columns, rows = (2, 2) if len(cast) > 2 else (2, 1) if width >= height else (1, 2)
    spots = [(x, y) for x in range(columns) for y in range(rows)]
    r.shuffle(spots)
    sheet = Image.new("RGB", (width, height), (r.randint(226, 255),) * 3)
    for picture, (x, y) in zip(cast, spots, strict=False):
        share = r.uniform(0.85, 1.0)
        side = max(1, round(share * width / columns)), max(1, round(share * height / rows))
        small = cut_out(Cutout(picture, None).fitted(*side).image)
        left = round(x * width / columns + r.random() * max(0.0, width / columns - small.image.width))
        top = round(y * height / rows + r.random() * max(0.0, height / rows - small.image.height))
        small.paste(sheet, left, top)
    return replace(item, image=sheet)


def surface(r: random.Random, width: int, height: int) -> tuple[Image.Image, str]:
    """Two colours in a gradient, in stripes or in clouds, none of them near white; and which of the three."""
    first, second = (np.array([r.randrange(40, 211) for _ in "rgb"], np.float32) for _ in "ab")
    kind, turn = r.choice(("gradient", "stripes", "clouds")), r.uniform(0, 2 * math.pi)
    if kind == "clouds":
        noise = np.random.default_rng(r.getrandbits(64)).integers(0, 256, (7, 7), np.uint8)
        share = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    else:
        y, x = np.linspace(-0.7, 0.7, height)[:, None], np.linspace(-0.7, 0.7, width)[None]
        along = (x * math.cos(turn) + y * math.sin(turn)).astype(np.float32)
        share = (1 + np.sin(along * (math.pi / 2 if kind == "gradient" else 2 * math.pi * r.uniform(3, 9)))) / 2
    return Image.fromarray(np.rint(first + (second - first) * share[:, :, None]).astype(np.uint8)), kind
