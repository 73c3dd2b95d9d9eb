"""Inner products of many vectors with many others.

numpy multiplies with OpenBLAS. oneDNN is twice as fast on processors with AVX-512 (118 and 235 GFLOP/s on a core), and torch has it: it runs a
1 x 1 convolution there, and a matrix product is one whose pixels are the queries. torch takes seconds to import, so it is used only in processes
that have it already; jobs with much work run in workers that do (`tgq.embedding.executor.daemon.preloaded`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

LEAST_QUERIES = 256  # with fewer queries oneDNN's arrangement of the vectors takes as long as it saves
LEAST_VALUES = 2**15  # torch keeps smaller inputs from oneDNN
MUCH = 5e12  # floating point operations: half a minute on a core; for so many a worker may import torch


def operations(queries: int, vectors: int, width: int) -> float:
    """The floating point operations of the inner products of so many vectors."""
    return 2.0 * queries * vectors * width


def product_tiles(queries: np.ndarray, vectors: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first column, queries @ vectors[columns].T) for `width` columns at a time, each float32 `[Q, width]`. A tile may be changed, and is
    overwritten by the next one."""
    torch, functional = (sys.modules.get(name) for name in ("torch", "torch.nn.functional"))
    if torch is None or functional is None or not hasattr(functional, "conv2d") or len(queries) < LEAST_QUERIES or queries.size < LEAST_VALUES:
        yield from _by_numpy(queries, vectors, width)
        return
    pixels = torch.from_numpy(_writeable(queries)).view(1, len(queries), 1, -1).permute(0, 3, 1, 2)  # channels last: nothing is copied
    for first in range(0, len(vectors), width):
        columns = torch.from_numpy(_writeable(vectors[first : first + width]))
        # torch prefers its own 1 x 1 convolution with one thread, but not a dilated one; the dilation of a kernel of one pixel has no effect
        tile = functional.conv2d(pixels, columns[:, :, None, None], dilation=2)
        yield first, tile.permute(0, 2, 3, 1).reshape(len(queries), -1).numpy()


def _by_numpy(queries: np.ndarray, vectors: np.ndarray, width: int) -> Iterator[tuple[int, np.ndarray]]:
    buffer = np.empty(len(queries) * width, np.float32)
    for first in range(0, len(vectors), width):
        columns = vectors[first : first + width]
        tile = buffer[: len(queries) * len(columns)].reshape(len(queries), len(columns))
        yield first, np.matmul(queries, columns.T, out=tile)


def _writeable(matrix: np.ndarray) -> np.ndarray:
    """The matrix, or a copy if it must not be written to: torch warns of such memory, although nothing writes here."""
    return matrix if matrix.flags.writeable else matrix.copy()
