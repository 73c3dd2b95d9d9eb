"""Grounds the pictures of a batch: runs the detector within the device's memory, and keeps a picture whole on which it fails."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image

from tgq.grounding.box import FAILED, Found, Grounding, ground, kept_whole
from tgq.grounding.detector import Detector
from tgq.images.decode import ImageLimits, decode_image, one_line
from tgq.inference.machine import is_out_of_memory

SCALE = 2  # pictures are decoded at this many times the tower's input, so that a crop of half the side has all its pixels


class Grounder:
    """A detector with the limits of what is used of it.

    Args:
        detector: finds the most confident box of each picture.
        threshold: the lowest score of a box that is used.
        margin: share of a box by which it is enlarged on each side.

    Attributes:
        at_once: pictures in a pass of the detector. An out-of-memory error halves it for the rest of the grounder's life.
    """

    def __init__(self, detector: Detector, threshold: float, margin: float):
        self.detector, self.threshold, self.margin, self.at_once = detector, threshold, margin, max(1, detector.at_once)

    def decide(self, found: Found | None) -> Grounding:
        """What is embedded of a picture in which the detector found this."""
        return ground(found.box if found else None, found.score if found else 0.0, self.threshold, self.margin)

    def __call__(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Grounding]:
        """What is embedded of each picture. An error of the detector is the reason for keeping a picture whole, and never raised."""
        done: list[Grounding] = []
        while len(done) < len(pictures):
            part = slice(len(done), len(done) + self.at_once)
            found = self._find(pictures[part], phrases[part])
            if isinstance(found, Exception):
                size = len(pictures[part])
                if is_out_of_memory(found) and size > 1:
                    self.at_once = size // 2
                    continue
                done += self._one_by_one(pictures[part], phrases[part]) if size > 1 else [failed(found)]
            else:
                done += map(self.decide, found)
        return done

    def _one_by_one(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Grounding]:
        """So that one picture does not spoil the others of its pass."""
        found = [self._find([picture], [phrase]) for picture, phrase in zip(pictures, phrases, strict=True)]
        return [failed(one) if isinstance(one, Exception) else self.decide(one[0]) for one in found]

    def _find(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Found | None] | Exception:
        """The error is returned, because its traceback, which keeps the tensors of the pass alive, ends with the handler."""
        try:
            return self.detector.find(pictures, phrases)
        except Exception as error:
            if is_out_of_memory(error) and torch.cuda.is_available():
                torch.cuda.empty_cache()
            return error.with_traceback(None)


def decode_for_crop(data: bytes, limits: ImageLimits, size: int) -> Image.Image:
    """A picture decoded for a detector and for a crop of it: at most SCALE times as large as the tower's input, which takes as many bytes.

    Args:
        size: `input_size` of the vision tower.

    Raises:
        ImageError: as `decode_image`.
    """
    image = decode_image(data, limits, target=SCALE * size)
    image.thumbnail((SCALE * size, SCALE * size))
    return image


def failed(error: Exception) -> Grounding:
    """A picture that is kept whole because the detector failed on it."""
    return kept_whole(FAILED, detail=f"{type(error).__name__}: {one_line(error)}")
