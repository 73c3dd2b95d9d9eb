"""Which hashes are near each other, without comparing all with all: numpy only.

The 64 bits are cut into d + 1 bands. Two hashes that differ in at most d bits agree in at least one band (the pigeonhole principle; multi-index
hashing of Norouzi, Punjani, Fleet, Fast Search in Hamming Space with Multi-Index Hashing, CVPR 2012). So only hashes with an equal band are
compared: those of one *bucket*. A bucket with very many hashes is cut again, in the same way, by the bits that its band does not cover.

Hashes are int64, as a column of type BIGINT holds them, and bands are masks of bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from tgq.images.phash import colour_difference

BITS = 64
MOST = 32  # largest distance; beyond it a band has one bit, and unrelated pictures are near each other
BUCKET = 256  # hashes of a bucket, on average, that are worth their own comparison
ROWS, COLUMNS = 256, 4096  # of the comparisons that are held in memory at once: 8 MB


def bands(most: int, within: int = -1, width: int = BITS) -> np.ndarray:
    """int64 [most + 1]: masks that cut the bits of the mask `within` into parts of about equal size; by default all 64.

    Args:
        most: the largest distance, 0 to MOST.
        width: bits of a part at most. Hashes that agree in a band agree in fewer bits of it too.

    Raises:
        ValueError: the distance is outside these limits.
    """
    if not 0 <= most <= MOST:
        raise ValueError(f"the largest distance must be 0 to {MOST}, not {most}")
    bits = [bit for bit in range(BITS) if within >> bit & 1]
    parts = [sum(1 << bit for bit in bits[i :: most + 1][:width]) for i in range(most + 1)]
    return np.array(parts, np.uint64).view(np.int64)


def useful_width(n: int) -> int:
    """Bits of a band for n hashes, so that a bucket has about BUCKET of them: smaller ones cost more to handle than to compare."""
    return max(1, (n // BUCKET).bit_length())


def near_pairs(hashes: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs i < j of hashes that differ in at most `most` bits, in parts: two arrays int64 of equal length.

    Args:
        hashes: int64 [n].

    Cost: n * n / 2 comparisons at about 1e9 a second; memory of 8 MB and the pairs of one part.
    """
    codes = hashes.view(np.uint64)  # of a negative number numpy counts the bits of the absolute value
    for top in range(0, len(hashes), ROWS):
        rows = codes[top : top + ROWS, None]
        for left in range(top, len(hashes), COLUMNS):
            columns = codes[None, left : left + COLUMNS]
            near = np.flatnonzero(np.bitwise_count(rows ^ columns) <= most)
            i, j = near // columns.size + top, near % columns.size + left
            above = i < j
            yield i[above], j[above]


def belongs(a: np.ndarray, b: np.ndarray, masks: np.ndarray, place: int) -> np.ndarray:
    """bool: whether masks[place] is the first band in which the pairs agree. So a pair is found in one of its buckets only.

    Args:
        a, b: int64 [n], the hashes of the pairs, which agree in that band.
        masks: of `bands`.
    """
    earlier = (((a ^ b)[:, None] & masks[None, :place]) == 0).any(axis=1)
    return np.asarray(~earlier)


def links(
    hashes: np.ndarray, colours: np.ndarray, limits: tuple[int, int], first: tuple[np.ndarray, int], second: tuple[np.ndarray, int] | None = None
) -> np.ndarray:
    """Pairs of near pictures of one bucket, as many as it takes to connect those that are connected: places int64 [m, 2], m < n.

    However many pictures are alike, the links are fewer than the pictures. Together the links of all buckets connect what all near pairs connect.

    Args:
        hashes: int64 [n].
        colours: int [n], as `front_colour` gives them.
        limits: the largest distance of hashes, and the largest difference of colours.
        first: the masks of `bands` and the place of the bucket's among them.
        second: likewise of the cut within that band's bucket; None: it was not cut again.

    Cost: as `near_pairs`.
    """
    tree = np.arange(len(hashes))  # a component's number for each hash
    kept: list[np.ndarray] = []
    for i, j in near_pairs(hashes, limits[0]):
        alike = colour_difference(colours[i], colours[j]) <= limits[1]
        i, j = i[alike], j[alike]
        for level in filter(None, (first, second)):
            mine = belongs(hashes[i], hashes[j], *level)
            i, j = i[mine], j[mine]
        if (apart := tree[i] != tree[j]).any():
            i, j = i[apart], j[apart]
            chosen = _forest(tree[i], tree[j], len(tree))
            kept.append(np.stack([i[chosen], j[chosen]], axis=1))
            tree = _joined(tree, tree[i[chosen]], tree[j[chosen]])
    return np.concatenate(kept) if kept else np.zeros((0, 2), np.int64)


def _forest(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Places of edges a - b between n nodes that connect the same nodes without a cycle."""
    low, high = np.minimum(a, b), np.maximum(a, b)
    _, places = np.unique(low * n + high, return_index=True)  # parallel edges would be added up
    forest = minimum_spanning_tree(coo_array((places + 1.0, (low[places], high[places])), shape=(n, n)).tocsr())
    return np.rint(forest.data).astype(np.int64) - 1


def _joined(tree: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The components after edges a - b between components."""
    n = len(tree)
    _, number = connected_components(coo_array((np.ones(len(a)), (a, b)), shape=(n, n)).tocsr(), directed=False)
    return np.asarray(number[tree], np.int64)
