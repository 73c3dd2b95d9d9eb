"""What the frozen towers said of a picture or a text, as bytes: what a cache keeps, so that no tower says it twice.

Numbers are float16, little-endian. Tokens are compressed: those of a network that ends in a rectifier are mostly zeros
(EfficientNet-Lite0 at 320 pixels with four close-ups: 266 kB of which 34 to 43 kB remain). The encoder rounds to float16
what comes fresh from a tower too, so an embedding is the same from the cache and from the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from torch import Tensor

CODEC = pa.Codec("zstd", compression_level=1)


@dataclass(frozen=True)
class StoredImage:
    """A picture after the vision tower."""

    tokens: np.ndarray  # [N, Dv] float16
    pooled: np.ndarray  # [Dg] float16

    @classmethod
    def unpack(cls, tokens: bytes, pooled: bytes, width: int) -> StoredImage:
        """From `pack_tokens` and `pack`; `width` is Dv."""
        return cls(unpack_tokens(tokens, width), np.frombuffer(pooled, "<f2"))


@dataclass(frozen=True)
class StoredText:
    """An item's metadata text and title after the text tower."""

    tokens: np.ndarray  # [k, Dt] float16, those that the mask keeps
    mask: np.ndarray  # [L] bool, k of them true
    pooled: np.ndarray  # [Dp] float16
    title: np.ndarray  # [Dp] float16, the title alone

    @classmethod
    def unpack(cls, tokens: bytes, mask: bytes, pooled: bytes, title: bytes, width: int) -> StoredText:
        """From `pack_tokens`, `pack_mask` and `pack`; `width` is Dt."""
        return cls(unpack_tokens(tokens, width), np.frombuffer(mask, bool), np.frombuffer(pooled, "<f2"), np.frombuffer(title, "<f2"))


def half(values: Tensor) -> np.ndarray:
    """float16 on CPU; what overflows becomes infinite, and is seen as such."""
    with np.errstate(over="ignore"):
        return values.float().cpu().numpy().astype("<f2")


def pack(values: np.ndarray) -> bytes:
    """A vector's bytes."""
    return np.ascontiguousarray(values, "<f2").tobytes()


def pack_mask(mask: np.ndarray) -> bytes:
    """A byte per position."""
    return np.ascontiguousarray(mask, bool).tobytes()


def pack_tokens(tokens: np.ndarray) -> bytes:
    """`[n, D]`, compressed; the first four bytes are n."""
    raw = np.ascontiguousarray(tokens, "<f2")
    return len(raw).to_bytes(4, "little") + CODEC.compress(raw, asbytes=True)


def unpack_tokens(data: bytes, width: int) -> np.ndarray:
    """`[n, width]` float16 of what `pack_tokens` made."""
    rows = int.from_bytes(data[:4], "little")
    if not rows:
        return np.zeros((0, width), "<f2")
    raw = CODEC.decompress(memoryview(data)[4:], decompressed_size=rows * width * 2)
    return np.frombuffer(raw, "<f2").reshape(rows, width)
