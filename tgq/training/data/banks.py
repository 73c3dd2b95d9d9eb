"""Draws the backgrounds and banners of composed scenes, and runs the vision tower over them once."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image

from tgq.encoder.model import TGQFormer
from tgq.encoder.packing import half
from tgq.encoder.towers.parts import PartsTower
from tgq.nuisances.draws import seeded
from tgq.nuisances.lettering import INKS, OFFERS, plate
from tgq.nuisances.scenery import surface
from tgq.training.data.scenes import Banks

VERSION = 1  # of the drawings; another one makes kept banks unknown
BACKGROUNDS, BANNERS = 200, 100
LIGHT = 226  # of 255: the darkest page, as in tgq.nuisances.scenery.scene
BATCH = 8


def draw_banks(encoder: TGQFormer, backgrounds: int = BACKGROUNDS, banners: int = BANNERS) -> Banks:
    """The banks for an encoder's vision tower. Cost: the tower, once per background and banner.

    Raises:
        ModelError: the tower's scenes cannot be composed of tokens.
    """
    side, pixels = PartsTower(encoder.vision).side, encoder.vision.input_size
    rows = np.array([banner_rows(number, side) for number in range(banners)], int).reshape(-1, 2)
    behind = _tokens(encoder, [background(number, pixels) for number in range(backgrounds)])
    strips = _tokens(encoder, [banner(number, pixels, side) for number in range(banners)])
    cells, width = side**2, behind.shape[2]
    return Banks(behind[:, :cells].reshape(-1, side, side, width), behind[:, cells:], strips[:, :cells].reshape(-1, side, side, width), rows)


def background(number: int, side: int) -> Image.Image:
    """Background `number`, RGB, `side` pixels per side: every second one is a light page, the others are coloured surfaces."""
    r = seeded("scene background", number)
    return _page(r, side) if number % 2 == 0 else surface(r, side, side)[0]


def banner(number: int, side: int, cells: int) -> Image.Image:
    """Banner `number`, RGB, `side` pixels per side: an offer on a strip over `banner_rows`, every second time on white, else on a surface."""
    r = seeded("scene banner", number)
    image = Image.new("RGB", (side, side), "white") if number % 2 == 0 else surface(r, side, side)[0]
    top, bottom = (round(row * side / cells) for row in banner_rows(number, cells))
    plate(image, r.choice(OFFERS), (0, top, side, bottom), r.choice(INKS))
    return image


def banner_rows(number: int, cells: int) -> tuple[int, int]:
    """First row of cells and the row after the last one that banner `number` covers in a grid of `cells` rows.

    A banner is a tenth or a fifth of the picture high, one row at least, and lies at the top, at the bottom or in the middle, as
    `tgq.nuisances.lettering.banner` prints it.
    """
    r = seeded("scene banner rows", number)
    height = max(1, round(cells * r.choice((0.1, 0.2))))
    top = r.choice((0, cells - height, cells - height, round(cells * r.uniform(0.3, 0.6))))
    return top, min(cells, top + height)


def _page(r: random.Random, side: int) -> Image.Image:
    """A light page, from one tone to another from its top to its bottom."""
    tones = np.linspace(r.randint(LIGHT, 255), r.randint(LIGHT, 255), side)
    return Image.fromarray(np.repeat(np.rint(tones).astype(np.uint8)[:, None, None], side, 1).repeat(3, 2))


def _tokens(encoder: TGQFormer, pictures: list[Image.Image]) -> np.ndarray:
    """Tokens `[n, N, Dv]` float16 of n pictures."""
    found = [np.zeros((0, encoder.vision.tokens_per_image, encoder.vision.width), np.float16)]
    for first in range(0, len(pictures), BATCH):
        pixels = torch.stack([encoder.vision.preprocess(picture) for picture in pictures[first : first + BATCH]])
        found.append(half(encoder.encode_image(pixels)[0]))
    return np.concatenate(found)
