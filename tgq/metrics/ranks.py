"""Exact ranks of known positives in the full candidate pool, without cutoff, index or sampling.

The rank of a positive p for a query q is 1 plus the number of pool items that rank above p, without the items that are excluded
for q. An item ranks above p if its score is higher, or if the score is equal and its position is lower. Scores are those of
`exact.score_pairs`: computed per pair and rounded to 6 decimals. Ranks therefore agree with `exact.search_blocks`, and two
positives never share a rank. Vectors that differ only by rounding noise are ties, which positions decide. Positions should
follow a pseudo-random order, such as a hash of item_id. An encoder that maps every item to the same vector then has the metrics
of a random order.

The counts over disjoint parts of the pool add up, so the pool can be spread over workers: rank = 1 + the sum of `above`.

Cost: one matrix product of queries and pool, plus about 50 ns for each item that scores at least as high as the query's lowest
positive, or 5 ns for each item and positive if that is less. In total this is less than twice the matrix product for a good
encoder or a random one and a few positives, and thirty times for a collapsed one. Memory: one tile (QUERY_TILE x POOL_TILE) and
its candidates.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tgq.retrieval.exact import NO_EXCLUSIONS, NO_IMAGE, Block, Exclude, as_matrix, noise_bound, ordered, pack, score_pairs
from tgq.retrieval.product import product_tiles

QUERY_TILE, POOL_TILE = 2048, 2048
NEAR = 8192  # exact scores that are computed at once; bounds the memory
DIRECT = 10  # a candidate that is sorted costs as much as this many comparisons of an item with a positive


@dataclass(frozen=True)
class Positives:
    """The P positives of Q queries as a ragged array: those of query i are rows offsets[i]:offsets[i + 1].

    The query itself must not be among them, nor an item with the query's image if such items are excluded. `excluded_pairs`
    tells which pairs to leave out.

    Attributes:
        offsets: int64 [Q + 1].
        positions: int64 [P], the position of each positive in the pool.
        vectors: float32 [P, D], equal to the vectors in the pool.
    """

    offsets: np.ndarray
    positions: np.ndarray
    vectors: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """int64 [P]: the query number of each positive."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def slice(self, start: int, stop: int) -> "Positives":
        """The positives of the queries start:stop."""
        first, last = self.offsets[start], self.offsets[stop]
        return Positives(
            self.offsets[start : stop + 1] - first, self.positions[first:last], self.vectors[first:last]
        )


@dataclass(frozen=True)
class Above:
    """The number of items that rank above each positive. `+` adds the counts over disjoint parts of a pool.

    Attributes:
        pool: int64 [P], in the whole pool.
        category: int64 [P], in the query's category; None if no categories were given.
    """

    pool: np.ndarray
    category: np.ndarray | None

    def __add__(self, other: "Above") -> "Above":
        return Above(
            self.pool + other.pool, None if self.category is None else self.category + other.category
        )


def excluded_pairs(
    query_positions: np.ndarray, positions: np.ndarray, query_images: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """bool [P]: pairs that cannot count as positives, because both sides are the same item or have the same image."""
    return (query_positions == positions) | ((query_images == images) & (images != NO_IMAGE))


def count_above(
    queries: np.ndarray,
    positives: Positives,
    blocks: Iterable[Block],
    exclude: Exclude = NO_EXCLUSIONS,
    categories: np.ndarray | None = None,
) -> Above:
    """Count, for every positive, the items of `blocks` that rank above it.

    Args:
        queries: float32 [Q, D].
        positives: of the same queries.
        blocks: the pool or a part of it. It is read once.
        exclude: items that a query must not find.
        categories: int64 [Q], category codes of the queries. The blocks then need category codes, too.

    Raises:
        ValueError: shapes differ, a vector is not finite, a needed column is absent, or a query is its own positive.
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
    scores = score_pairs(queries[rows], vectors, np.arange(len(rows))[:, None])[:, 0]
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
    """Some of the queries with their p positives; `scores` are those of the positives, float32 [p]."""

    queries: np.ndarray
    positives: Positives
    scores: np.ndarray
    exclude: Exclude
    categories: np.ndarray | None

    def count(
        self, block: Block, pool: np.ndarray, total: np.ndarray, in_category: np.ndarray | None
    ) -> None:
        """Add the number of `block`'s items above each positive to `total` and `in_category`, int64 [p], in place."""
        rows, noise = self.positives.rows, noise_bound(self.queries, pool)
        # A matmul value outside of [low, high] decides the comparison, a value inside does not.
        high, low = self.scores + noise[rows], self.scores - noise[rows]
        lowest = np.full(len(self.queries), np.inf, np.float32)
        np.minimum.at(lowest, rows, low)
        for first, products in product_tiles(self.queries, pool, POOL_TILE):
            candidate = products >= lowest[:, None]
            if DIRECT * np.count_nonzero(candidate) > len(rows) * products.shape[1]:
                self._compare(block, pool, first, products, high, low, total, in_category)
            else:
                self._sort(block, pool, first, products, candidate, high, low, total, in_category)

    def _sort(
        self, block: Block, pool: np.ndarray, first: int, products: np.ndarray, candidate: np.ndarray, high: np.ndarray, low: np.ndarray,
        total: np.ndarray, in_category: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Count in the columns from `first` on by sorting the candidates, bool [q, w]: cheap if they are few."""
        rows = self.positives.rows
        row = np.repeat(np.arange(len(products)), np.count_nonzero(candidate, axis=1))
        flat = np.flatnonzero(candidate)
        column = first + flat - row * products.shape[1]
        allowed = ~self.exclude.rows(row).mask(block, column[:, None])[:, 0]
        row, column, value = row[allowed], column[allowed], products.ravel()[flat[allowed]]

        keys = np.sort(_row_keys(row, value))
        total += _count_over(keys, rows, high)
        if in_category is not None:
            assert self.categories is not None and block.categories is not None
            same = self.categories[row] == block.categories[column]
            in_category += _count_over(np.sort(_row_keys(row[same], value[same])), rows, high)

        # Between low and high, the exact score of the pair decides.
        near = np.searchsorted(keys, _row_keys(rows, high), "right") > np.searchsorted(keys, _row_keys(rows, low))
        starts = np.searchsorted(row, np.arange(len(products) + 1))
        pairs, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for pair in map(int, np.flatnonzero(near)):
            span = slice(starts[rows[pair]], starts[rows[pair] + 1])
            columns.append(column[span][(value[span] >= low[pair]) & (value[span] <= high[pair])])
            pairs.append(np.full(len(columns[-1]), pair))
        self._count_near(np.concatenate(pairs), np.concatenate(columns), block, pool, total, in_category)

    def _compare(
        self, block: Block, pool: np.ndarray, first: int, products: np.ndarray, high: np.ndarray, low: np.ndarray, total: np.ndarray,
        in_category: np.ndarray | None,
    ) -> None:  # fmt: skip
        """Count in the columns from `first` on by comparing each item with each positive: cheap if the positives are few. `products` [q, w]
        is changed."""
        columns, rows = slice(first, first + products.shape[1]), self.positives.rows
        np.copyto(products, -np.inf, where=self.exclude.mask(block, np.arange(columns.start, columns.stop)[None]))
        categories = None if block.categories is None else block.categories[columns]
        for start in range(0, len(rows), QUERY_TILE):
            part = slice(start, min(start + QUERY_TILE, len(rows)))
            values = products[rows[part]]
            above = values > high[part, None]
            total[part] += np.count_nonzero(above, axis=1)
            near = (values >= low[part, None]) & ~above
            if in_category is not None:
                assert self.categories is not None and categories is not None
                in_category[part] += np.count_nonzero(above & (categories == self.categories[rows[part], None]), axis=1)
            pairs, at = np.nonzero(near)
            self._count_near(start + pairs, first + at, block, pool, total, in_category)

    def _count_near(
        self, pairs: np.ndarray, columns: np.ndarray, block: Block, pool: np.ndarray, total: np.ndarray, in_category: np.ndarray | None
    ) -> None:
        """Count the items `columns[i]` of `block`, which are about as high as the positive `pairs[i]`, if they rank above it by their exact
        score. Both are int64 [m], with the columns of a pair next to each other."""
        which, first, counts = np.unique(pairs, return_index=True, return_counts=True)
        order, done = np.argsort(-counts, kind="stable"), 0
        while done < len(order):
            most = int(counts[order[done]])
            group = order[done : done + max(1, NEAR // most)]
            done += len(group)
            pair, listed = which[group], np.arange(most) < counts[group, None]
            column = np.where(listed, columns[np.minimum(first[group, None] + np.arange(most), len(columns) - 1)], -1)
            row, own, positions = self.positives.rows[pair], self.positives.positions[pair, None], block.positions[column]
            scores = score_pairs(self.queries[row], pool, column)
            above = listed & (pack(scores, positions) < pack(self.scores[pair, None], own)) & (positions != own)
            total[pair] += np.count_nonzero(above, axis=1)
            if in_category is not None:
                assert self.categories is not None and block.categories is not None
                in_category[pair] += np.count_nonzero(above & (block.categories[column] == self.categories[row, None]), axis=1)


def _row_keys(row: np.ndarray, value: np.ndarray) -> np.ndarray:
    return row.astype(np.uint64) << np.uint64(32) | ordered(value)


def _count_over(keys: np.ndarray, rows: np.ndarray, high: np.ndarray) -> np.ndarray:
    """int64 [p]: the number of sorted (row, value) keys with row rows[i] and a value above high[i]."""
    ends = np.searchsorted(keys, (rows + 1).astype(np.uint64) << np.uint64(32))
    return ends - np.searchsorted(keys, _row_keys(rows, high), "right")


def listed_above(queries: np.ndarray, positives: Positives, listed: Positives) -> np.ndarray:
    """int64 [P]: the number of a query's `listed` items that rank above each of its positives.

    Subtracted from the counts of `count_above`, this removes unjudged items from the ranking, which are neither hits nor misses.
    `listed` is ragged like `positives`. It must not contain an item that is excluded for its query, nor an item twice.
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
