"""Parts of scenes: what the vision tower says of a picture at half size and of the picture in a close-up.

Scenes with several products are composed of them without another run of the tower (`tgq.training.data.scenes`).
"""

from __future__ import annotations

import math

import torch
from PIL import Image
from torch import Tensor

from tgq.encoder.towers.vision import VisionTower, resized
from tgq.errors import ModelError

VERSION = 1  # of what the parts are; another one makes all cached parts unknown


class PartsTower:
    """A frozen vision tower, run on pictures as parts of scenes.

    A scene has a product in each of its quarters, so a part is a picture at half the size of the whole. If the grid's side is
    odd, a part has the half of it without the remainder, and the middle row and column of a scene show no product.

    Args:
        vision: a tower whose pooled feature is the mean over a square grid, without close-ups or with one for each quarter.

    Attributes:
        side: n, cells per side of the tower's grid.
        half: h = n // 2, cells per side of a part.

    Raises:
        ModelError: the tower's scenes cannot be composed of tokens.
    """

    def __init__(self, vision: VisionTower):
        if vision.tiles not in (0, 2):
            raise ModelError(f"scenes cannot be composed with closeups={vision.tiles}", "set closeups to 2, one for each quarter, or to 0")
        self.vision, self.side = vision, math.isqrt(vision.tokens_per_image - vision.n_closeups)
        self.half = self.side // 2
        height, width = vision.whole_size
        ramp = torch.linspace(-2, 2, 3 * height * width, device=self._device).view(1, 3, height, width)
        tokens, pooled = vision.whole(ramp)
        is_mean = tokens.shape[2] == pooled.shape[1] and torch.allclose(tokens.mean(1), pooled, atol=1e-4, rtol=1e-4)
        if height != width or tokens.shape[1] != self.side**2 or not self.half or not is_mean:
            raise ModelError(f"scenes cannot be composed for vision tower {vision.folder.name}, whose pooled feature is not the mean of a square grid of cells",
                             "use a CNN such as efficientnet-lite0, or train with scene_share=0")  # fmt: skip
        # the colour of the canvas, after the tower's normalisation
        self.white = vision.preprocess(Image.new("RGB", (8, 8), "white"))[:, :1, :1].to(self._device)

    @property
    def fingerprint(self) -> str:
        """The tower's fingerprint and the version of the parts; a key of the feature cache."""
        return f"{self.vision.fingerprint}-parts-{VERSION}"

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Parts of preprocessed pictures `[U, 3, H, W]`: tokens `[U, h * h, Dv]`, or `[U, h * h + 1, Dv]` if the tower has close-ups.

        The first ones are the cells of the picture at half size, row by row. They are the mean over two copies of it, in the upper
        left and in the lower right quarter of one white canvas. A CNN's cells depend on the image's border and on what is near, so
        the mean over two places beside another product is closer to a cell of any scene than a copy alone on the canvas is, at
        the same cost. The last token is the close-up of a quarter that the picture fills.

        Values are float32, rounded to float16 like all cached features. Cost: one pass over a whole image, and one at the
        checkpoint's own size for the close-up.
        """
        pixels = pixels.to(self._device)
        height, _ = self.vision.whole_size
        quarter = round(height * self.half / self.side)
        canvas = self.white.expand(len(pixels), 3, height, height).clone()
        canvas[:, :, :quarter, :quarter] = canvas[:, :, -quarter:, -quarter:] = resized(pixels, (quarter, quarter))
        grid = self.vision.whole(canvas)[0].unflatten(1, (self.side, self.side))
        tokens = ((grid[:, : self.half, : self.half] + grid[:, -self.half :, -self.half :]) / 2).flatten(1, 2)
        if self.vision.tiles:
            own = pixels.shape[2] // self.vision.tiles, pixels.shape[3] // self.vision.tiles
            tokens = torch.cat([tokens, self.vision.closeup(resized(pixels, own))[:, None]], dim=1)
        return tokens.half().float()

    @property
    def _device(self) -> torch.device:
        return next(self.vision.model.parameters()).device
