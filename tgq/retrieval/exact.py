"""Exact top-K search by inner product over a candidate pool that arrives in blocks.

Scores. A matrix product has rounding noise in its last bits, which depends on the shapes of the matrices.
It is therefore used only to select candidates. Every score that is kept is computed again for its pair alone (`score_pairs`, one
fixed order of summation) and rounded to 6 decimals. Two scores are tied if the rounded values are equal, and ties go to the lower
position. This order is total and transitive. The result is the same for any division of the pool into blocks, of blocks into
tiles, and of queries into calls.

Exactness. A candidate list holds K + SLACK items. Let `noise` be a bound on |product - score|. The list is complete if the best
dropped value plus noise is below the K-th score found. If this does not hold (many near-ties, or more excluded items than
SLACK), the block is searched again for those queries without a limit on the list.

Positions should follow a pseudo-random order of the items, such as a hash of item_id, so that ties favour no item. With positions
in catalog order, an encoder that maps every item to the same vector would seem to find neighbours in the same group of rows.

Cost: 2 * Q * N * D flops at the speed of `product_tiles`, memory of Q * (K + SLACK) * 12 bytes plus one tile. With blocks of
8,192 rows or more, merging takes less than a tenth of the time. A pool in which most vectors are equal costs about ten times as
much.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import faiss
import numpy as np

from tgq.retrieval.product import product_tiles

SLACK = 16
# The product of a tile is 16 MiB: large enough for BLAS to be fast, small enough to stay in the cache.
QUERY_TILE, POOL_TILE = 4096, 1024
STEP = 1e-6  # scores are rounded to multiples of this
MISSING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)  # the packed key of an empty place in a result
NO_IMAGE = 0  # image code of an item without an image; such items are never duplicates of each other


@dataclass(frozen=True)
class Block:
    """A part of the candidate pool. Raises ValueError if lengths differ or a position is out of range.

    Attributes:
        vectors: float32 [n, D].
        positions: int64 [n], unique over the whole pool, in [0, 2**32 - 1).
        images: uint64 [n], hash of each image's bytes; NO_IMAGE without an image.
        categories: int64 [n], category codes.
    """

    vectors: np.ndarray
    positions: np.ndarray
    images: np.ndarray | None = None
    categories: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.vectors)
        for name in ("positions", "images", "categories"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"block: {len(column)} {name} for {n} vectors")
        if n and not 0 <= int(np.min(self.positions)) <= int(np.max(self.positions)) < 2**32 - 1:
            raise ValueError("block: positions must lie in [0, 2**32 - 1)")


@dataclass(frozen=True)
class Exclude:
    """The items that a query must not find.

    Attributes:
        positions: int64 [Q], the query's own position in the pool; -1: it is not in the pool.
        images: uint64 [Q], the query's image code. Items with the same code are excluded; None: they are not.
    """

    positions: np.ndarray | None = None
    images: np.ndarray | None = None

    def rows(self, rows: slice | np.ndarray) -> "Exclude":
        """The exclusions of some of the queries."""
        return Exclude(
            None if self.positions is None else self.positions[rows],
            None if self.images is None else self.images[rows],
        )

    def mask(self, block: Block, columns: np.ndarray) -> np.ndarray:
        """True if row columns[i, j] of `block` is excluded for query i; bool [Q, m].

        columns: [Q, m], or [1, m] if they are the same for all queries. The result is [1, m], too, without exclusions.
        """
        excluded = np.zeros(columns.shape, bool)
        if self.positions is not None:
            excluded = excluded | (block.positions[columns] == self.positions[:, None])
        if self.images is not None:
            if block.images is None:
                raise ValueError("same-image items cannot be excluded: the block has no image codes")
            codes = block.images[columns]
            excluded = excluded | ((codes == self.images[:, None]) & (codes != NO_IMAGE))
        return excluded


NO_EXCLUSIONS = Exclude()


def search_blocks(
    queries: np.ndarray, blocks: Iterable[Block], k: int, exclude: Exclude = NO_EXCLUSIONS
) -> tuple[np.ndarray, np.ndarray]:
    """The top k items of the pool for every query.

    Args:
        queries: float32 [Q, D].
        blocks: the pool, in any order. It is read once.
        k: at least 1.
        exclude: items that a query must not find.

    Returns:
        scores float32 [Q, k], rounded to 6 decimals and descending, and positions int64 [Q, k]. Ties are ordered by ascending
        position. Unfilled places have score -inf and position -1.

    Raises:
        ValueError: k < 1, widths differ, a vector is not finite, or image codes are needed but absent.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    queries = as_matrix(queries, "queries")
    best = np.full((len(queries), k), MISSING)
    for block in blocks:
        vectors = as_matrix(block.vectors, "block", width=queries.shape[1])
        for start in range(0, len(queries) if len(vectors) else 0, QUERY_TILE):
            rows = slice(start, start + QUERY_TILE)
            _search_tile(queries[rows], vectors, block, exclude.rows(rows), best[rows])
    return unpack(best)


def merge_top(parts: Iterable[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The top k of the union of disjoint pools, from the (scores, positions) that `search_blocks` returned for each of them."""
    keys = [np.where(positions < 0, MISSING, pack(scores, positions)) for scores, positions in parts]
    merged = np.sort(np.concatenate(keys, axis=1), axis=1)[:, :k]
    short = k - merged.shape[1]
    return unpack(np.pad(merged, ((0, 0), (0, short)), constant_values=MISSING) if short > 0 else merged)


def score_pairs(queries: np.ndarray, vectors: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Scores of query i and vectors[columns[i, j]]: float32 [Q, m]; -inf for a column of -1.

    The score of a pair depends on its two vectors only. Between processor families (AVX2 and AVX-512) the float32 sums may differ
    by 1e-7 before rounding.

    Args:
        queries: float32 [Q, D].
        vectors: float32 [n, D].
        columns: int64 [Q, m], row numbers of `vectors`.
    """
    scores = np.empty(columns.shape, np.float32)
    if columns.size:
        queries, vectors = (np.ascontiguousarray(matrix, np.float32) for matrix in (queries, vectors))
        columns = np.ascontiguousarray(columns, np.int64)
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(scores), faiss.swig_ptr(queries), faiss.swig_ptr(vectors), faiss.swig_ptr(columns),
            queries.shape[1], *columns.shape,
        )  # fmt: skip
    return (np.rint(scores.astype(np.float64) / STEP) * STEP + 0.0).astype(np.float32)  # + 0.0 turns -0.0 into 0.0


def pack(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """uint64 keys whose ascending order is (score descending, position ascending), so that one sort merges results."""
    return (~ordered(scores)).astype(np.uint64) << np.uint64(32) | positions.astype(np.uint64)


def unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores float32, positions int64) of the keys of `pack`; a MISSING key gives (-inf, -1)."""
    upper = ~(keys >> np.uint64(32)).astype(np.uint32)
    scores = np.where(upper >> 31, upper & np.uint32(0x7FFF_FFFF), ~upper).view(np.float32)
    missing = keys == MISSING
    positions = (keys & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    return np.where(missing, np.float32(-np.inf), scores), np.where(missing, -1, positions)


def ordered(values: np.ndarray) -> np.ndarray:
    """uint32 codes with the order of the float32 values. By IEEE 754, all bits of a negative value are flipped, and the sign bit
    of any other value."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x8000_0000))


def as_matrix(vectors: np.ndarray, name: str, width: int | None = None) -> np.ndarray:
    """The vectors as a C-contiguous float32 matrix [n, D]. Raises ValueError for another shape or width, or if a value is not
    finite."""
    matrix = np.ascontiguousarray(vectors, np.float32)
    if matrix.ndim != 2 or (width is not None and matrix.shape[1] != width):
        raise ValueError(f"{name}: expected [n, {width or 'D'}], found {list(matrix.shape)}")
    if not np.isfinite(matrix.sum()) and not np.isfinite(matrix).all():
        raise ValueError(f"{name}: a vector is not finite")
    return matrix


def noise_bound(queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float32 [Q]: upper bound of the difference between a matmul entry and the score of the same pair.

    In any order of summation the error is at most D * u * |q| * |v| with u = 2**-24 (Higham, Accuracy and Stability of Numerical
    Algorithms, 3.1). Both sides have this error, and rounding adds half a step.
    """
    widest = np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0.0))
    lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries))
    return (1.01 * 2 * queries.shape[1] * 2**-24 * lengths * widest + STEP).astype(np.float32)


def _search_tile(queries: np.ndarray, vectors: np.ndarray, block: Block, exclude: Exclude, best: np.ndarray) -> None:
    """Merge the results of one block into `best`: keys [q, k], ascending, changed in place."""
    k, noise = best.shape[1], noise_bound(queries, vectors)
    # Each heap starts at the value that an item must exceed to enter the result, so later blocks rarely change it.
    floor = unpack(best[:, -1])[0] - noise
    width = min(k + SLACK, len(vectors))
    values = np.repeat(floor[:, None], width, axis=1)
    columns = np.full((len(queries), width), -1, np.int64)
    heap = faiss.float_minheap_array_t()
    heap.nh, heap.k, heap.val, heap.ids = len(queries), width, faiss.swig_ptr(values), faiss.swig_ptr(columns)
    for first, tile in product_tiles(queries, vectors, POOL_TILE):
        heap.addn(tile.shape[1], faiss.swig_ptr(tile), first, 0, len(queries))
    touched = np.flatnonzero((columns >= 0).any(axis=1))
    if not len(touched):
        return
    _merge(queries[touched], vectors, block, exclude.rows(touched), columns[touched], best, touched)
    dropped = np.where(columns[:, 0] >= 0, values[:, 0], -np.inf)  # the heap's minimum; all dropped values are at most this
    if width < len(vectors):
        for row in map(int, np.flatnonzero(dropped + noise >= unpack(best[:, -1])[0])):
            if dropped[row] > -np.inf:
                _search_row(
                    queries[row : row + 1],
                    vectors,
                    block,
                    exclude.rows(slice(row, row + 1)),
                    best,
                    row,
                    noise[row],
                )


def _search_row(
    query: np.ndarray, vectors: np.ndarray, block: Block, exclude: Exclude, best: np.ndarray, row: int, noise: float
) -> None:
    """Like `_search_tile` for one query, without a limit on the number of candidates."""
    for first, tile in product_tiles(query, vectors, QUERY_TILE):
        floor = unpack(best[row : row + 1, -1])[0][0] - noise
        columns = first + np.flatnonzero(tile[0] >= floor)
        if len(columns):
            _merge(query, vectors, block, exclude, columns[None], best, np.array([row]))


def _merge(
    queries: np.ndarray, vectors: np.ndarray, block: Block, exclude: Exclude,
    columns: np.ndarray, best: np.ndarray, rows: np.ndarray,
) -> None:
    """Merge candidates into best[rows]: columns int64 [q, m], row numbers of `block`; -1: none."""
    keys = pack(score_pairs(queries, vectors, columns), block.positions[columns])
    keys[(columns < 0) | exclude.mask(block, columns)] = MISSING
    # A second search of a block finds items that are in the result already. Equal keys are the same item, so one is removed.
    merged = np.sort(np.concatenate([best[rows], keys], axis=1), axis=1)
    merged[:, 1:][merged[:, 1:] == merged[:, :-1]] = MISSING
    merged.sort(axis=1)
    best[rows] = merged[:, : best.shape[1]]
