"""A model of salient objects as ONNX (U2-Net and others): the box of what stands out in a picture, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from tgq.errors import ModelError
from tgq.grounding.box import Found

SIDE = 320  # pixels of the model's input, where the model itself does not say
SALIENT = 0.5  # pixels above it belong to an object
MEAN, STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
INSTALL = "run `pip install 'tgq[saliency]'`"


class Saliency:
    """The largest salient object (Qin et al. 2020, arXiv 2005.09007). It reads no phrase: among several products it takes the largest.

    The score is the mean saliency within the object. Cost of U2-Netp: a quarter of a second of a core for each picture.

    Args:
        file: an ONNX model that maps `[B, 3, S, S]`, normalised as for ImageNet, to saliency `[B, 1, S, S]` from 0 to 1, its first output.
        threads: of onnxruntime; 0: its default.

    Raises:
        ModelError: onnxruntime is not installed, or the file is no such model.
    """

    at_once = 1  # U2-Net's published files have a batch of one

    def __init__(self, file: Path, threads: int = 0):
        need_onnxruntime()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises classes of its own
            raise ModelError(f"the saliency model {file} cannot be loaded ({' '.join(str(error).split())[:160]})", "name an ONNX model") from None
        shape = self.session.get_inputs()[0].shape
        if len(shape) != 4:
            raise ModelError(f"the saliency model {file} has an input of {len(shape)} dimensions", "name a model with an input of [B, 3, S, S]")
        self.name, self.side = self.session.get_inputs()[0].name, shape[2] if isinstance(shape[2], int) else SIDE
        self.output = self.session.get_outputs()[0].name

    def find(self, pictures: Sequence[Image.Image], phrases: Sequence[str]) -> list[Found | None]:
        """See Detector. The phrases are not read."""
        return [largest(self.mask(picture)) for picture in pictures]

    def mask(self, picture: Image.Image) -> np.ndarray:
        """The saliency of a picture from 0 to 1, float32 `[S, S]`; the picture is stretched to the model's square."""
        pixels = np.asarray(picture.resize((self.side, self.side), Image.Resampling.LANCZOS), np.float32)
        pixels = (pixels / max(float(pixels.max()), 1e-6) - MEAN) / STD
        found = self.session.run([self.output], {self.name: pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0]
        return np.asarray(found, np.float32).reshape(-1, *found.shape[-2:])[0]


def largest(mask: np.ndarray) -> Found | None:
    """The box of the largest connected part above SALIENT, with its mean saliency as the score; None if there is none."""
    parts, count = ndimage.label(np.nan_to_num(mask) > SALIENT)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # what belongs to no object
    chosen = int(sizes.argmax())
    rows, columns = ndimage.find_objects(parts, max_label=chosen)[chosen - 1]
    height, width = mask.shape
    box = (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
    return Found(box, float(np.clip(mask[parts == chosen].mean(), 0.0, 1.0)))


def need_onnxruntime() -> None:
    """Check that onnxruntime is installed.

    Raises:
        ModelError: it is not.
    """
    import importlib.util

    if importlib.util.find_spec("onnxruntime") is None:
        raise ModelError("a saliency detector needs the package onnxruntime, which is not installed", INSTALL)
