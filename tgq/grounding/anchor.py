"""The encoder's own anchor as a detector: the box that holds more of its attention than any other box of the same size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from tgq.encoder.towers.preprocessing import Preprocessing
from tgq.errors import ModelError
from tgq.grounding.box import Box, Found

if TYPE_CHECKING:
    from tgq.encoder.model import TGQFormer


class AnchorMap:
    """Where the anchor looks (see `tgq.encoder.layers.anchor`): attention over the grid of visual tokens, given the metadata text.

    The box is the one with the largest difference between its share of the attention and its share of the picture, which is also its score:
    0 if the attention is even, nearly 1 if a single cell has all of it. Every box of whole cells is tried.

    Cost: the vision tower over the whole picture, so a picture that is then cropped runs through the tower twice, and the text tower over the
    metadata once more.

    Args:
        encoder: in eval mode; its anchor says where the metadata is in a picture.

    Raises:
        ModelError: the encoder has no anchor.
    """

    at_once = 16

    def __init__(self, encoder: TGQFormer):
        if encoder.anchor is None:
            raise ModelError("this encoder has no anchor that could find a product", "name another enrich.grounding.detector, or an encoder with an anchor")
        self.encoder = encoder

    @torch.no_grad()
    def find(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Found | None]:
        """See Detector. The phrases are metadata texts; without one there is nothing to look for."""
        vision = self.encoder.vision
        tokens, pooled = self.encoder.encode_image(torch.stack([vision.preprocess(picture) for picture in pictures]))
        features = self.encoder.features((tokens, pooled), torch.arange(len(pictures)), list(phrases), [""] * len(phrases))
        maps = self.attention(self.encoder.attention_logits(features).float().cpu())
        squares = [densest(grid) for grid in maps.numpy()]
        return [
            Found(in_picture(found.box, vision.preprocess, *picture.size), found.score) if found and phrase else None
            for found, picture, phrase in zip(squares, pictures, phrases, strict=True)
        ]

    def attention(self, logits: torch.Tensor) -> torch.Tensor:
        """Attention `[B, side, side]` over the grid, from logits `[B, N]`. Tokens before the grid and close-ups behind it are left out."""
        cells = logits.shape[1] - self.encoder.vision.n_closeups
        side = math.isqrt(cells)
        return logits[:, cells - side * side : cells].softmax(-1).unflatten(1, (side, side))


def densest(grid: np.ndarray) -> Found | None:
    """The box of whole cells with the largest difference between its mass and its area, of a grid `[side, side]` whose sum is 1.

    Of equal boxes it is the largest. None if the mass is even. Cost: the square of the number of cells.
    """
    side = len(grid)
    excess = np.zeros((side + 1, side + 1))
    excess[1:, 1:] = (grid.astype(np.float64) - 1 / grid.size).cumsum(0).cumsum(1)
    low, high = np.triu_indices(side + 1, 1)  # every run of rows, and every run of columns
    bands = excess[high] - excess[low]
    sums = bands[:, high] - bands[:, low]  # [runs of rows, runs of columns]
    areas = np.multiply.outer(high - low, high - low)
    best = sums.max()
    if not best > 1e-6:
        return None
    rows, columns = np.unravel_index(np.where(sums > best - 1e-9, areas, 0).argmax(), sums.shape)
    box = (low[columns] / side, low[rows] / side, high[columns] / side, high[rows] / side)
    return Found(tuple(float(v) for v in box), float(best))  # type: ignore[arg-type]  # four numbers


def in_picture(box: Box, preprocessing: Preprocessing, width: int, height: int) -> Box:
    """A box of the tower's input as a box of the picture; where the input is white beyond the picture's edge, it reaches beyond the picture."""
    x0, y0, x1, y1 = shown(preprocessing, width, height)
    return x0 + box[0] * (x1 - x0), y0 + box[1] * (y1 - y0), x0 + box[2] * (x1 - x0), y0 + box[3] * (y1 - y0)


def shown(preprocessing: Preprocessing, width: int, height: int) -> Box:
    """What the tower's input shows of a picture of this size, as a box of the picture: beyond it where it is padded, within it where it is cut."""
    p = preprocessing
    if p.fit == "pad":
        scale = min(p.width / width, p.height / height)
    elif p.shortest_edge is None:
        return 0.0, 0.0, 1.0, 1.0  # stretched
    else:
        scale = p.shortest_edge / min(width, height)
    wide, high = p.width / (scale * width), p.height / (scale * height)
    return (1 - wide) / 2, (1 - high) / 2, (1 + wide) / 2, (1 + high) / 2
