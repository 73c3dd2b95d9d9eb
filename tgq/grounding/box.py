"""Boxes: where a product is in its picture, and the part of the picture that is embedded because of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as shares of the picture's width and height
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
SMALLEST = 0.02  # share of the picture's width and height; a smaller box is no product that could be recognised

# why a picture is kept whole
NO_PHRASE, NO_BOX, LOW_SCORE, BAD_BOX, FAILED = "no_phrase", "no_box", "low_score", "bad_box", "detector_failed"


@dataclass(frozen=True)
class Found:
    """The most confident box of a picture, with the detector's confidence from 0 to 1."""

    box: Box
    score: float


@dataclass(frozen=True)
class Grounding:
    """What was decided about one picture.

    Attributes:
        crop: the part that is embedded; WHOLE if the picture is kept whole.
        found: what the detector found, however confident; None if it found nothing.
        reason: why the picture is kept whole; None if it is cropped.
        detail: one line about the reason, if there is more to say.
    """

    crop: Box
    found: Found | None = None
    reason: str | None = None
    detail: str | None = None

    @property
    def kept_whole(self) -> bool:
        """Whether the whole picture is embedded."""
        return self.reason is not None


def kept_whole(reason: str, found: Found | None = None, detail: str | None = None) -> Grounding:
    """A picture that is kept whole."""
    return Grounding(WHOLE, found, reason, detail)


def ground(box: Box | None, score: float, threshold: float, margin: float) -> Grounding:
    """The part of a picture that is embedded: the box, enlarged by the margin on each side, within the picture.

    The picture is kept whole without a box, with a score below the threshold, and with a box that is no part of the picture: one that is not
    finite, lies outside, or is smaller than SMALLEST.

    Args:
        box: the most confident box; None if nothing was found. The parts of it beyond the picture are cut off.
        score: the confidence in it.
        threshold: the lowest score of a box that is used.
        margin: share of the box's width and height by which it is enlarged on each side, at least 0.
    """
    if box is None:
        return kept_whole(NO_BOX)
    if not all(map(math.isfinite, (*box, score))):
        return kept_whole(BAD_BOX, detail="a box or a score that is no finite number")
    found = Found(box, score)
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in box)
    if x1 - x0 < SMALLEST or y1 - y0 < SMALLEST:
        return kept_whole(BAD_BOX, found, f"the box {tuple(round(v, 3) for v in box)} is outside the picture or too small")
    if score < threshold:
        return kept_whole(LOW_SCORE, found)
    wide, high = margin * (x1 - x0), margin * (y1 - y0)
    return Grounding((max(x0 - wide, 0.0), max(y0 - high, 0.0), min(x1 + wide, 1.0), min(y1 + high, 1.0)), found)


def cropped(picture: Image.Image, crop: Box) -> Image.Image:
    """The part of a picture, outward to whole pixels; the picture itself if that is all of it."""
    left, top, right, bottom = pixels(crop, *picture.size)
    return picture if (left, top, right, bottom) == (0, 0, *picture.size) else picture.crop((left, top, right, bottom))


def pixels(crop: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """A part in whole pixels, at least one of them: left, top, right, bottom."""
    left, top = min(math.floor(crop[0] * width), width - 1), min(math.floor(crop[1] * height), height - 1)
    return left, top, max(math.ceil(crop[2] * width), left + 1), max(math.ceil(crop[3] * height), top + 1)


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, from 0 to 1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union > 0 else 0.0
