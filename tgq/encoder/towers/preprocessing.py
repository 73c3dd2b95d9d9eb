"""Image preprocessing for the vision tower, with Pillow and numpy only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tgq.encoder.config import read_object
from tgq.errors import ModelError

LARGEST_SIDE = 4096  # pixels; towers see 224 to 1,024


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation of an image. All values come from `preprocessor_config.json`, except `fit`, an encoder setting."""

    height: int
    width: int
    resample: int  # number of Pillow's resampling filter
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str  # pad: the whole image on a white square, as in product photos; crop: the checkpoint's own resize and crop
    shortest_edge: int | None  # crop: shortest side before the central crop; None: resize to height x width without a crop

    @classmethod
    def read(cls, folder: Path, fit: str) -> Preprocessing:
        """Read the preprocessing of a checkpoint folder.

        Raises:
            ModelError: the folder has no `preprocessor_config.json`, or the file has no image size.
        """
        path = folder / "preprocessor_config.json"
        if not path.is_file():
            raise ModelError(f"vision tower {folder} has no preprocessor_config.json", "save its image processor there")
        try:
            return cls._of(read_object(path), path, fit)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            found = f"{path} does not describe a preprocessing ({type(error).__name__}: {str(error)[:120]})"
            raise ModelError(found, "save its image processor again") from None

    @classmethod
    def _of(cls, raw: dict[str, Any], path: Path, fit: str) -> Preprocessing:
        size = raw.get("size") or {}
        size = {"height": size, "width": size} if isinstance(size, int) else size
        crop = raw.get("crop_size") if raw.get("do_center_crop") else None
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        edge = size.get("shortest_edge")
        final = crop or ({"height": edge, "width": edge} if edge else size)
        if "height" not in final or "width" not in final:
            raise ModelError(f"{path} has no image size (size: {size})", "give size.height and size.width")
        if not all(isinstance(side, int) and 0 < side <= LARGEST_SIDE for side in (final["height"], final["width"], edge or 1)):
            raise ModelError(f"{path} has the image size {str(final)[:80]}", f"give sizes of 1 to {LARGEST_SIDE} pixels")
        scale, normal = raw.get("do_rescale", True), raw.get("do_normalize", True)
        return cls(
            height=final["height"], width=final["width"], resample=int(raw.get("resample", 3)),
            rescale=float(raw.get("rescale_factor", 1 / 255)) if scale else 1.0,
            mean=tuple(raw["image_mean"]) if normal else (0.0,) * 3,
            std=tuple(raw["image_std"]) if normal else (1.0,) * 3,
            fit=fit, shortest_edge=edge if crop else None,
        )

    def at(self, size: int) -> Preprocessing:
        """The same preprocessing for `size` pixels per side; the margins of a central crop are scaled in proportion."""
        edge = self.shortest_edge and round(self.shortest_edge * size / min(self.height, self.width))
        return replace(self, height=size, width=size, shortest_edge=edge)

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB image as a normalised tensor, float32 `[3, height, width]`."""
        fitted = _pad(image, self) if self.fit == "pad" else _crop(image, self)
        array = np.asarray(fitted, dtype=np.float32) * np.float32(self.rescale)
        array = (array - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _pad(image: Image.Image, to: Preprocessing) -> Image.Image:
    scale = min(to.width / image.width, to.height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    canvas = Image.new("RGB", (to.width, to.height), (255, 255, 255))
    canvas.paste(image.resize(size, to.resample), ((to.width - size[0]) // 2, (to.height - size[1]) // 2))
    return canvas


def _crop(image: Image.Image, to: Preprocessing) -> Image.Image:
    if to.shortest_edge is None:
        return image.resize((to.width, to.height), to.resample)
    scale = to.shortest_edge / min(image.size)
    size = max(to.width, round(image.width * scale)), max(to.height, round(image.height * scale))
    left, top = (size[0] - to.width) // 2, (size[1] - to.height) // 2
    return image.resize(size, to.resample).crop((left, top, left + to.width, top + to.height))
