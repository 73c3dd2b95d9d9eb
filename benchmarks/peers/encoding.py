"""What every system of this comparison is given: the pictures, the texts, and the encoder as a function of a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

BATCH = 32  # rows per call of the encoder
COLUMNS = ("path", "metadata_text", "encoder_title")


@cache
def encoder(folder: str, threads: int):
    """The encoder on the CPU, loaded once per process."""
    import torch

    torch.set_num_threads(threads)
    from tgq.encoder.model import TGQFormer

    return TGQFormer.from_pretrained(folder)


def encode(model, pictures: Sequence[bytes], metadata: Sequence[str], titles: Sequence[str]) -> np.ndarray:
    """Vectors float32 `[n, De]` of a batch of encoded pictures and texts."""
    import torch

    from tgq.images.decode import decode_image

    size = model.vision.input_size
    pixels = torch.stack([model.vision.preprocess(decode_image(data, target=size)) for data in pictures])
    return model.encode(pixels, torch.arange(len(pictures)), list(metadata), list(titles)).embedding.numpy()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))
