"""A product cut out of the plain background of its picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

NEAR_WHITE = 236  # of 255, in every channel: JPEG leaves a white page a little darker around edges
LEAST_PLAIN, MOST_PLAIN = 0.1, 0.99  # shares of the picture: less is no background, more leaves no product


@dataclass(frozen=True)
class Cutout:
    """A picture, and which part of it is the product.

    Attributes:
        image: RGB.
        mask: L of the same size, 255 on the product, with a soft edge; None: the background is not plain, and all of it is pasted.
    """

    image: Image.Image
    mask: Image.Image | None

    def fitted(self, width: float, height: float) -> Cutout:
        """As large as it can be in a frame of so many pixels, with the same proportions. A sliver keeps a pixel."""
        scale = min(width / self.image.width, height / self.image.height)
        size = max(1, round(scale * self.image.width)), max(1, round(scale * self.image.height))
        return Cutout(self.image.resize(size), self.mask and self.mask.resize(size))

    def paste(self, sheet: Image.Image, left: int, top: int) -> None:
        """Paste the product onto a sheet, in place."""
        sheet.paste(self.image, (left, top), self.mask)


def cut_out(image: Image.Image, trimmed: bool = False) -> Cutout:
    """The product on its plain background; the whole picture where its background is not plain.

    Args:
        trimmed: without the background around the product, so that the picture's edges are those of the product.
    """
    plain = plain_background(image)
    if plain is None:
        return Cutout(image, None)
    mask = ImageOps.invert(soft(plain))
    if not trimmed:
        return Cutout(image, mask)
    (top, bottom), (left, right) = (np.flatnonzero(~plain.all(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    box = left, top, right + 1, bottom + 1
    return Cutout(image.crop(box), mask.crop(box))


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


def soft(part: np.ndarray) -> Image.Image:
    """L, 255 on `part` (bool [H, W]), with a soft edge."""
    return Image.fromarray(part.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(1))
