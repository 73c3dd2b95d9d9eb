"""Perceptual hashes: 64 bits that stay almost the same if a picture is encoded again, resized or slightly cropped; and a colour beside them.

The hash is that of Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2: the picture in grey at 32 x 32,
its discrete cosine transform, of that the coefficients of the frequencies 1 to 8 in both directions, and a bit for each that says whether it is
above their median. Brightness and colour do not show in it, so photographs of one shirt in two colours may have the same hash. The second figure tells
these apart: the mean colour of what differs from the picture's corners, which mostly are background.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE, FREQUENCIES = 32, 8
PLAIN = 0  # hash of a picture without structure, e.g. of one colour, which is like no other
BACKGROUND = 12.0  # levels of 255 up to which a pixel is taken for background
LEAST_PIXELS = 20  # of 32 x 32; with fewer in front of the background the mean is that of all
LEAST_CONTRAST = 2.0  # standard deviation of the grey levels of 0 to 255, below which a picture has no structure


def _cosines() -> np.ndarray:
    """Rows 1 to FREQUENCIES of the orthonormal DCT-II, float64 [FREQUENCIES, SIDE]."""
    frequency, place = np.arange(1, FREQUENCIES + 1)[:, None], np.arange(SIDE)[None]
    return np.sqrt(2 / SIDE) * np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))


_COSINES = _cosines()


def fingerprint(image: Image.Image) -> tuple[int, int]:
    """(perceptual hash, colour) of a picture: signed whole numbers, of 64 bits and of 24 (0xRRGGBB), as BIGINT and INT hold them.

    Args:
        image: in any mode that Pillow converts to RGB, and of any size.

    Cost: about 0.3 ms for 320 x 320 pixels, and in proportion to the pixels.
    """
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=8.0)
    return perceptual_hash(small), front_colour(small)


def front_colour(small: Image.Image) -> int:
    """The mean colour of the pixels that differ from the mean of the four corners, 0xRRGGBB.

    small: RGB, SIDE x SIDE.
    """
    pixels = np.asarray(small, np.float64)
    front = np.abs(pixels - pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(axis=0)).max(axis=2) > BACKGROUND
    red, green, blue = np.rint((pixels[front] if front.sum() >= LEAST_PIXELS else pixels.reshape(-1, 3)).mean(axis=0)).astype(int).tolist()
    return int(red << 16 | green << 8 | blue)


def perceptual_hash(small: Image.Image) -> int:
    """The hash of a picture of SIDE x SIDE pixels: a signed whole number of 64 bits; PLAIN without structure."""
    levels = np.asarray(small.convert("L"), np.float64)
    if levels.std() < LEAST_CONTRAST:
        return PLAIN
    found = (_COSINES @ levels @ _COSINES.T).ravel()
    return int(np.packbits(found > np.median(found)).view(">i8")[0])


def colour_difference(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """The largest difference of red, green and blue, 0 to 255: int64, of the shape that numpy's broadcasting gives for two colours 0xRRGGBB."""
    shifts = np.array([16, 8, 0])
    return np.abs((np.asarray(a)[..., None] >> shifts & 255) - (np.asarray(b)[..., None] >> shifts & 255)).max(axis=-1)


def distance(a: np.ndarray | int, b: np.ndarray | int) -> np.ndarray:
    """Bits in which hashes differ, 0 to 64: int64, of the shape that numpy's broadcasting gives for two of int64."""
    return np.bitwise_count(np.bitwise_xor(np.asarray(a, np.int64), np.asarray(b, np.int64)).view(np.uint64)).astype(np.int64)
