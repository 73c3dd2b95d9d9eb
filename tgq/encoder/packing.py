"""The byte format of cached tower features: the frozen towers' output for an image or a text.

All numbers are float16, little-endian. Tokens are compressed with zstd, because the tokens of a network that ends in a
rectifier are mostly zeros (EfficientNet-Lite0 at 320 pixels with four close-ups: 266 kB become 34 to 43 kB). The encoder
rounds fresh tower output to float16 as well, so an embedding from cached features equals one from the source image and text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from torch import Tensor

CODEC = pa.Codec("zstd", compression_level=1)


@dataclass(frozen=True)
class CachedImage:
    """Cached vision tower features of one image."""

    tokens: np.ndarray  # [N, Dv] float16
    pooled: np.ndarray  # [Dg] float16

    @classmethod
    def unpack(cls, tokens: bytes, pooled: bytes, width: int) -> CachedImage:
        """Decode the bytes of `pack_tokens` and `pack`; `width` is Dv."""
        return cls(unpack_tokens(tokens, width), np.frombuffer(pooled, "<f2"))


@dataclass(frozen=True)
class CachedText:
    """Cached text tower features of one item's metadata text and title."""

    tokens: np.ndarray  # [k, Dt] float16, the unmasked tokens only
    mask: np.ndarray  # [L] bool, k of them true
    pooled: np.ndarray  # [Dp] float16, of the metadata text
    title: np.ndarray  # [Dp] float16, of the title alone

    @classmethod
    def unpack(cls, tokens: bytes, mask: bytes, pooled: bytes, title: bytes, width: int) -> CachedText:
        """Decode the bytes of `pack_tokens`, `pack_mask`, `pack` and `pack`; `width` is Dt."""
        return cls(unpack_tokens(tokens, width), np.frombuffer(mask, bool), np.frombuffer(pooled, "<f2"), np.frombuffer(title, "<f2"))


def half(values: Tensor) -> np.ndarray:
    """The tensor as float16 on CPU. A value that overflows becomes infinite, so that a check for finite values finds it."""
    with np.errstate(over="ignore"):
        return values.float().cpu().numpy().astype("<f2")


def pack(values: np.ndarray) -> bytes:
    """A vector `[D]` as uncompressed float16 bytes."""
    return np.ascontiguousarray(values, "<f2").tobytes()


def pack_mask(mask: np.ndarray) -> bytes:
    """A mask `[L]` as one byte per position."""
    return np.ascontiguousarray(mask, bool).tobytes()


def pack_tokens(tokens: np.ndarray) -> bytes:
    """Tokens `[n, D]` as compressed float16 bytes, after n in four bytes."""
    raw = np.ascontiguousarray(tokens, "<f2")
    return len(raw).to_bytes(4, "little") + CODEC.compress(raw, asbytes=True)


def unpack_tokens(data: bytes, width: int) -> np.ndarray:
    """Tokens `[n, width]` float16 from the bytes of `pack_tokens`."""
    rows = int.from_bytes(data[:4], "little")
    if not rows:
        return np.zeros((0, width), "<f2")
    raw = CODEC.decompress(memoryview(data)[4:], decompressed_size=rows * width * 2)
    return np.frombuffer(raw, "<f2").reshape(rows, width)
