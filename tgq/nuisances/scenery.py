"""What is around a product: another background, other products beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tgq.nuisances.item import Item

NEAR_WHITE = 236  # of 255, in every channel: JPEG leaves a white page a little darker around edges
LEAST_PLAIN, MOST_PLAIN = 0.1, 0.99  # shares of the picture: less is no background, more leaves no product


def background(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """A gradient or a texture in place of the plain background; None without a picture, or where its background is not plain."""
    if item.image is None or (plain := plain_background(item.image)) is None:
        return None
    return replace(item, image=Image.composite(_surface(r, *item.image.size), item.image, _mask(plain)))


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
        scale = min(side[0] / picture.width, side[1] / picture.height)
        small = picture.resize((max(1, round(scale * picture.width)), max(1, round(scale * picture.height))))  # a sliver keeps a pixel
        plain = plain_background(small)
        left = round(x * width / columns + r.random() * max(0.0, width / columns - small.width))
        top = round(y * height / rows + r.random() * max(0.0, height / rows - small.height))
        sheet.paste(small, (left, top), None if plain is None else ImageOps.invert(_mask(plain)))
    return replace(item, image=sheet)


def plain_background(image: Image.Image) -> np.ndarray | None:
    """The near-white part that is connected to the picture's border, as shop photos have it.

    Returns bool [H, W], or None where it is less than LEAST_PLAIN or more than MOST_PLAIN of the picture. White parts inside the
    product are not of it. Cost: a few passes over the picture, one for each turn of a winding outline.
    """
    white: np.ndarray = np.all(np.asarray(image) >= NEAR_WHITE, axis=2)
    reached: np.ndarray = np.zeros_like(white)
    reached[[0, -1]] = white[[0, -1]]
    reached[:, [0, -1]] = white[:, [0, -1]]
    found, now = -1, int(reached.sum())
    while now != found:
        reached = _along_rows(_along_rows(reached, white).T, white.T).T
        found, now = now, int(reached.sum())
    return reached if LEAST_PLAIN <= now / white.size <= MOST_PLAIN else None


def _along_rows(reached: np.ndarray, white: np.ndarray) -> np.ndarray:
    """`reached` spread to the ends of the runs of `white` that it touches, row by row."""
    walled = np.pad(white, ((0, 0), (0, 1))).ravel()  # a wall at the end of each row
    runs = np.cumsum(~walled).reshape(len(white), -1)[:, :-1]  # the pixels between two walls share a number
    touched = np.zeros(runs.max() + 1, bool)
    touched[runs[reached]] = True
    return white & touched[runs]


def _mask(part: np.ndarray) -> Image.Image:
    """L, 255 on `part` (bool [H, W]), with a soft edge."""
    return Image.fromarray(part.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))


def _surface(r: random.Random, width: int, height: int) -> Image.Image:
    """Two colours in a gradient, in stripes or in clouds, none of them near white."""
    first, second = (np.array([r.randrange(40, 211) for _ in "rgb"], np.float32) for _ in "ab")
    kind, turn = r.choice(("gradient", "stripes", "clouds")), r.uniform(0, 2 * math.pi)
    if kind == "clouds":
        noise = np.random.default_rng(r.getrandbits(64)).integers(0, 256, (7, 7), np.uint8)
        share = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
    else:
        y, x = np.linspace(-0.7, 0.7, height)[:, None], np.linspace(-0.7, 0.7, width)[None]
        along = (x * math.cos(turn) + y * math.sin(turn)).astype(np.float32)
        share = (1 + np.sin(along * (math.pi / 2 if kind == "gradient" else 2 * math.pi * r.uniform(3, 9)))) / 2
    return Image.fromarray(np.rint(first + (second - first) * share[:, :, None]).astype(np.uint8))
