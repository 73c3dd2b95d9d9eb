"""Exact ranks of known positives in the full pool: no cutoff, no index, no sampling.

The rank of a positive p for a query q is 1 + the number of pool items, other than those hidden from q, that
stand above p. j stands above p when its score is higher, or equal and its position lower, where scores are
those of `exact.score_pairs`: computed per pair and rounded to 6 decimals. So ranks agree with
`exact.search_blocks`, two positives never share a rank, and vectors that differ by float noise only are ties,
settled by position. Positions in a pseudo-random order (a hash of item_id)
make a tie neither good nor bad luck: an encoder that gives every item one vector scores like chance.

Counts of disjoint parts of the pool add up, so the pool can be spread over workers: rank = 1 + the sum of
`above`.

Cost: one matmul of queries x pool, plus some 50 ns for each item that scores as high as the query's lowest
positive: under twice the matmul for a good encoder, ten times it for a random one, thirty for one that
collapsed.
Memory: one tile (QUERY_TILE x POOL_TILE) and its candidates.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tgq.retrieval.exact import NO_IMAGE, NOTHING, Block, Exclude, as_matrix, noise_bound, ordered, pack, product_tiles, score_pairs

QUERY_TILE, POOL_TILE = 2048, 2048


@dataclass(frozen=True)
class Positives:
    """The positives of Q queries, ragged: query i owns rows offsets[i]:offsets[i + 1].

    offsets: int64 [Q + 1]. positions: int64 [P], where each positive stands in the pool. vectors: float32 [P,
    D], the same numbers as in the pool. A query itself is no positive, nor is an item with the query's
    picture where these are excluded: leave such pairs out beforehand (`hidden_pairs` says which).
    """

    offsets: np.ndarray
    positions: np.ndarray
    vectors: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """int64 [P]: the query of each positive."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def slice(self, start: int, stop: int) -> "Positives":
        first, last = self.offsets[start], self.offsets[stop]
        return Positives(
            self.offsets[start : stop + 1] - first, self.positions[first:last], self.vectors[first:last]
        )


@dataclass(frozen=True)
class Above:
    """How many items stand above each positive: int64 [P] in the pool, and int64 [P] among those of the
    query's category (None when no categories were given). Counts over disjoint parts of a pool are added with
    `+`."""

    pool: np.ndarray
    category: np.ndarray | None

    def __add__(self, other: "Above") -> "Above":
        return Above(
            self.pool + other.pool, None if self.category is None else self.category + other.category
        )


def hidden_pairs(
    query_positions: np.ndarray, positions: np.ndarray, query_images: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """bool [P]: pairs that are no relevance, because both sides are one item or one picture (code 0: no
    picture)."""
    return (query_positions == positions) | ((query_images == images) & (images != NO_IMAGE))


def count_above(
    queries: np.ndarray,
    positives: Positives,
    blocks: Iterable[Block],
    exclude: Exclude = NOTHING,
    categories: np.ndarray | None = None,
) -> Above:
    """Counts, for every positive, the items of `blocks` that stand above it.

    Args:
        queries: float32 [Q, D]. blocks: the pool or a part of it, read once. exclude: what a query must not
            find.
        categories: int64 [Q], the queries' codes; the blocks then need theirs.

    Raises:
        ValueError: shapes disagree, a vector is not finite, a needed column is absent, or a query is its own
            positive.
    """
    queries = as_matrix(queries, "queries")
    vectors = as_matrix(positives.vectors, "positives", width=queries.shape[1])
    if len(positives.offsets) != len(queries) + 1 or positives.offsets[-1] != len(positives.positions) != len(
        vectors
    ):
        raise ValueError(
            f"positives: {len(positives.offsets)} offsets up to {positives.offsets[-1]} "
            f"for {len(queries)} queries, "
            f"{len(positives.positions)} positions and {len(vectors)} vectors"
        )
    positives = Positives(positives.offsets, positives.positions, vectors)
    rows = positives.rows
    if exclude.positions is not None and (exclude.positions[rows] == positives.positions).any():
        raise ValueError("positives: a query is its own positive; leave such pairs out")
    scores = score_pairs(queries[rows], vectors, np.arange(len(rows))[:, None])[
        :, 0
    ]  # [P, D] of queries: the caller's block
    total = np.zeros(len(rows), np.int64)
    in_category = None if categories is None else np.zeros(len(rows), np.int64)
    for block in blocks:
        pool = as_matrix(block.vectors, "block", width=queries.shape[1])
        if categories is not None and block.categories is None:
            raise ValueError("in-category ranks need the block's category codes")
        for start in range(0, len(queries) if len(pool) else 0, QUERY_TILE):
            stop = min(start + QUERY_TILE, len(queries))
            pairs = slice(positives.offsets[start], positives.offsets[stop])
            if pairs.start == pairs.stop:
                continue
            tile = _Tile(
                queries[start:stop],
                positives.slice(start, stop),
                scores[pairs],
                exclude.rows(slice(start, stop)),
                None if categories is None else categories[start:stop],
            )  # fmt: skip
            tile.count(block, pool, total[pairs], None if in_category is None else in_category[pairs])
    return Above(total, in_category)


@dataclass(frozen=True)
class _Tile:
    queries: np.ndarray
    positives: Positives
    scores: np.ndarray
    exclude: Exclude
    categories: np.ndarray | None

    def count(
        self, block: Block, pool: np.ndarray, total: np.ndarray, in_category: np.ndarray | None
    ) -> None:
        """Adds the items of `block` that stand above each positive to `total` and `in_category` (int64 [p],
        in place)."""
        rows, noise = self.positives.rows, noise_bound(self.queries, pool)
        high, low = (
            self.scores + noise[rows],
            self.scores - noise[rows],
        )  # beyond these matmul's answer is certain
        lowest = np.full(len(self.queries), np.inf, np.float32)
        np.minimum.at(lowest, rows, low)
        for first, products in product_tiles(self.queries, pool, POOL_TILE):
            candidate = products >= lowest[:, None]
            row = np.repeat(np.arange(len(products)), np.count_nonzero(candidate, axis=1))
            flat = np.flatnonzero(candidate)
            column = first + flat - row * products.shape[1]
            shown = ~self.exclude.rows(row).mask(block, column[:, None])[:, 0]
            row, column, value = row[shown], column[shown], products.ravel()[flat[shown]]

            keys = np.sort(_row_keys(row, value))
            total += _count_over(keys, rows, high)
            if in_category is not None:
                assert self.categories is not None and block.categories is not None
                same = self.categories[row] == block.categories[column]
                in_category += _count_over(np.sort(_row_keys(row[same], value[same])), rows, high)

            # Between low and high the pair's own score decides.
            near = np.searchsorted(keys, _row_keys(rows, high), "right") > np.searchsorted(
                keys, _row_keys(rows, low)
            )
            starts = np.searchsorted(row, np.arange(len(products) + 1))
            for pair in map(int, np.flatnonzero(near)):
                span = slice(starts[rows[pair]], starts[rows[pair] + 1])
                within = span.start + np.flatnonzero((value[span] >= low[pair]) & (value[span] <= high[pair]))
                above = within[self._above(pair, int(rows[pair]), block, pool, column[within])]
                total[pair] += len(above)
                if in_category is not None:
                    in_category[pair] += np.count_nonzero(same[above])

    def _above(self, pair: int, row: int, block: Block, pool: np.ndarray, columns: np.ndarray) -> np.ndarray:
        own, positions = self.positives.positions[pair], block.positions[columns]
        scores = score_pairs(self.queries[row : row + 1], pool, columns[None])[0]
        threshold = pack(self.scores[pair : pair + 1], own[None])[0]
        return (pack(scores, positions) < threshold) & (positions != own)


def _row_keys(row: np.ndarray, value: np.ndarray) -> np.ndarray:
    return row.astype(np.uint64) << np.uint64(32) | ordered(value)


def _count_over(keys: np.ndarray, rows: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int64 [p]: how many of the sorted (row, value) keys belong to row rows[i] and have a value over
    high[i]."""
    ends = np.searchsorted(keys, (rows + 1).astype(np.uint64) << np.uint64(32))
    return ends - np.searchsorted(keys, _row_keys(rows, high), "right")


def listed_above(queries: np.ndarray, positives: Positives, listed: Positives) -> np.ndarray:
    """int64 [P]: how many of a query's `listed` items stand above each of its positives.

    For items that are neither hits nor misses: taken off the counts of `count_above`, they are as if not in
    the pool. `listed` is ragged like `positives`; it must hold no item that is hidden from its query, and no
    item twice.
    """
    keys = [
        pack(
            score_pairs(queries[part.rows], part.vectors, np.arange(len(part.positions))[:, None])[:, 0],
            part.positions,
        )
        for part in (positives, listed)
    ]
    rows, is_listed = np.concatenate([positives.rows, listed.rows]), np.repeat([0, 1], [len(k) for k in keys])
    order = np.lexsort((np.concatenate(keys), rows))
    above = np.empty(len(rows), np.int64)
    above[order] = np.cumsum(is_listed[order])
    pairs = slice(0, len(positives.positions))
    return above[pairs] - listed.offsets[positives.rows]
