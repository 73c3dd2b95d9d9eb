"""One task of the evaluation: ranks of its queries' positives under each system, metrics, and bootstrap sums per slice.

A system is a kind of vectors: the encoder's `embedding`, or a frozen baseline. All systems rank the same queries over the same pool
with the same bootstrap weights, so differences between them are paired.

Cost per system: queries x pool inner products. The pool is streamed once for every QUERIES queries or PAIRS positives. A task emits
16 * B * M bytes per slice (B replicates, M metrics of all systems), independent of the number of its queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgq.index.pool import MAIN, Pool, gather_vectors, read_blocks
from tgq.metrics.bootstrap import Sums, difference_interval, interval, poisson_weights, weighted
from tgq.metrics.metrics import Metric, query_metrics
from tgq.metrics.ranks import Positives, count_above, listed_above
from tgq.retrieval.exact import Block, Exclude

QUERIES, PAIRS = 2048, 16_384  # at most in one pass over the pool: they bound a task's memory
NEVER = 2**40  # rank of positives that cannot be found: beyond every cutoff, and 1 / rank is about 0
SUMS = "slice string, replicates int, queries long, sums binary"
RESULT = "system string, slice string, metric string, k int, value double, ci_low double, ci_high double, n_queries long"
DIFFERENCES = (Metric("hit_rate", 1), Metric("hit_rate", 10), Metric("mrr", None))
MINUS = f"{MAIN} - "


@dataclass(frozen=True)
class Scoring:
    """The parameters of a task. `hidden_path`: folder of the positions that are removed from the pool; None: none."""

    pool: Pool
    systems: tuple[str, ...]  # kinds of vectors, MAIN first
    cutoffs: tuple[int, ...]
    slices: tuple[str, ...]
    exclude_same_image: bool
    replicates: int
    seed: int
    level: float
    hidden_path: str | None = None

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of `write_queries` with memberships, to one row of SUMS per slice that occurs."""
        held: dict[str, Sums] = {}
        counts: dict[str, int] = {}
        for queries in passes(batches):
            values, _ = self.values(queries)
            # a query has the same weights in all its slices
            weights = poisson_weights(queries["group_key"].to_numpy().view(np.uint64), self.replicates, self.seed)
            for name, rows in _members(queries["memberships"], self.slices).items():
                part = summed(values[rows], weights[rows])
                held[name] = held[name] + part if name in held else part
                counts[name] = counts.get(name, 0) + len(rows)
        for name, sums in held.items():
            yield _sums_batch(name, counts[name], sums)

    def reduce(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """All SUMS rows of some slices, to rows of RESULT."""
        held: dict[str, tuple[int, Sums]] = {}
        for batch in batches:
            for row in batch.to_pylist():
                both = np.frombuffer(row["sums"]).reshape(2, row["replicates"] + 1, -1)
                queries, sums = held.get(row["slice"], (0, None))
                part = Sums(*both)
                held[row["slice"]] = (queries + row["queries"], part if sums is None else sums + part)
        for name, (_, sums) in held.items():
            yield pa.RecordBatch.from_pylist(self._rows(name, sums), schema=_result_schema())

    def values(self, queries: pa.Table, asking: np.ndarray | None = None) -> tuple[np.ndarray, tuple[Metric, ...]]:
        """float64 [Q, systems * M], a system after the other, and the M metrics.

        asking: float32 [Q, D], the queries' vectors where these are others than the pool holds of them; of one system only.
        """
        at, category = queries["position"].to_numpy(), queries["category_code"].to_numpy()
        positives, ignored = _ragged(queries["positives"]), _ragged(queries["ignored"])
        if self.hidden_path is not None:
            ignored = ignored.where(~np.isin(ignored.position, read_positions(self.hidden_path)))
        images = None
        if self.exclude_same_image:
            images = queries["image_code"].to_numpy().view(np.uint64)
        found = positives.where(positives.position >= 0)
        same = found.category == category[found.rows]
        ignored_same = ignored.where(ignored.category == category[ignored.rows])
        in_pool = positives.position >= 0
        out: list[np.ndarray] = []
        columns: tuple[Metric, ...] = ()
        for system in self.systems:
            vectors = gather_vectors(self.pool, system, at) if asking is None else asking
            listed, asked = ignored.with_vectors(self.pool, system), found.with_vectors(self.pool, system)
            above = count_above(vectors, asked, self._blocks(system), Exclude(at, images), category)
            ranks, near = (NEVER + np.arange(len(in_pool)) for _ in range(2))
            ranks[in_pool] = above.pool - listed_above(vectors, asked, listed) + 1
            inside = above.category - listed_above(vectors, asked, ignored_same.with_vectors(self.pool, system)) + 1
            near[in_pool] = np.where(same, inside, near[in_pool])
            metrics = query_metrics(positives.offsets, ranks, positives.weight, near, cutoffs=self.cutoffs)
            out.append(metrics.values)
            columns = metrics.columns
        return np.concatenate(out, axis=1), columns

    def _blocks(self, system: str) -> Iterator[Block]:
        blocks = read_blocks(self.pool, system)
        if self.hidden_path is None:
            return blocks
        hidden = read_positions(self.hidden_path)
        return (_without(block, hidden) for block in blocks)

    def _rows(self, name: str, sums: Sums) -> list[dict]:
        columns = metric_columns(self.cutoffs)
        rows = []
        for number, system in enumerate(self.systems):
            own = _columns(sums, number * len(columns), len(columns))
            rows += _figures(system, name, columns, _mean(own), interval(_replicates(own), self.level), own)
            if number:
                base = _columns(sums, 0, len(columns))
                bounds = difference_interval(_replicates(base), _replicates(own), self.level)
                difference = _figures(MINUS + system, name, columns, _mean(base) - _mean(own), bounds, own)
                rows += [row for row in difference if Metric(row["metric"], row["k"] or None) in DIFFERENCES]
        return rows


def metric_columns(cutoffs: tuple[int, ...]) -> tuple[Metric, ...]:
    """The columns that `query_metrics` gives for these cutoffs."""
    none = np.zeros(0, np.int64)
    return query_metrics(np.zeros(1, np.int64), none, None, none, cutoffs=cutoffs).columns


def summed(values: np.ndarray, weights: np.ndarray) -> Sums:
    """Bootstrap sums of some queries, with the plain sums (every weight 1) as a first replicate. `weights`: uint8 [n, replicates]."""
    known = ~np.isnan(values)
    plain = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64)
    sums = weighted(values, weights)
    return Sums(np.vstack([plain[0], sums.values]), np.vstack([plain[1], sums.weights]))


def read_positions(path: str) -> np.ndarray:
    """int64, sorted: the column `position` of a folder of Parquet files."""
    system, inner = fsspec.core.url_to_fs(path)
    return np.sort(pq.read_table(inner, filesystem=system, columns=["position"])["position"].to_numpy())


@dataclass(frozen=True)
class _Ragged:
    """A list column of (position, category_code, weight): query i owns offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray
    position: np.ndarray
    category: np.ndarray
    weight: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def where(self, keep: np.ndarray) -> _Ragged:
        kept = np.bincount(self.rows[keep], minlength=len(self.offsets) - 1)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        return replace(self, offsets=offsets, position=self.position[keep], category=self.category[keep], weight=self.weight[keep])

    def with_vectors(self, pool: Pool, kind: str) -> Positives:
        positions, which = np.unique(self.position, return_inverse=True)
        return Positives(self.offsets, self.position, gather_vectors(pool, kind, positions)[which])


def _ragged(column: pa.ChunkedArray) -> _Ragged:
    lists = pa.concat_arrays(column.chunks)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    fields = lists.flatten().flatten()  # of the structs, in the order of the schema
    position, category, weight = (field.to_numpy(zero_copy_only=False) for field in fields)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return _Ragged(offsets, position.astype(np.int64), category.astype(np.int64), weight.astype(np.float64))


def passes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The queries in portions that share one pass over the pool."""
    held: list[pa.RecordBatch] = []
    rows = pairs = 0
    for batch, size in _portions(batches):
        if held and (rows + batch.num_rows > QUERIES or pairs + size > PAIRS):
            yield pa.Table.from_batches(held)
            held, rows, pairs = [], 0, 0
        held.append(batch)
        rows, pairs = rows + batch.num_rows, pairs + size
    if held:
        yield pa.Table.from_batches(held)


def _portions(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, int]]:
    """(queries, their pairs), cut so that none has more than PAIRS pairs; one query alone may, up to the largest group."""
    for batch in batches:
        pairs = sum(batch.column(name).value_lengths().to_numpy(zero_copy_only=False) for name in ("positives", "ignored"))
        part = np.cumsum(pairs) // PAIRS if len(pairs) else pairs
        for number in np.unique(part):
            first, last = np.searchsorted(part, [number, number + 1])
            yield batch.slice(first, last - first), int(pairs[first:last].sum())


def _members(memberships: pa.ChunkedArray, slices: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows of each slice that occurs, of those that are wanted."""
    lists = pa.concat_arrays(memberships.chunks)
    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy(zero_copy_only=False))
    number = {name: i for i, name in enumerate(slices)}
    codes = np.array([number.get(name, -1) for name in lists.flatten().to_pylist()], np.int64)
    return {slices[code]: rows[codes == code] for code in np.unique(codes[codes >= 0])}


def _without(block: Block, hidden: np.ndarray) -> Block:
    keep = ~np.isin(block.positions, hidden, assume_unique=True)
    images, categories = (None if codes is None else codes[keep] for codes in (block.images, block.categories))
    return Block(block.vectors[keep], block.positions[keep], images, categories)


def _sums_batch(name: str, queries: int, sums: Sums) -> pa.RecordBatch:
    data = np.stack([sums.values, sums.weights]).tobytes()
    arrays = [pa.array([name]), pa.array([len(sums.values) - 1], pa.int32()), pa.array([queries], pa.int64()), pa.array([data], pa.binary())]
    return pa.RecordBatch.from_arrays(arrays, ["slice", "replicates", "queries", "sums"])


def _columns(sums: Sums, start: int, width: int) -> Sums:
    return Sums(sums.values[:, start : start + width], sums.weights[:, start : start + width])


def _replicates(sums: Sums) -> Sums:
    return Sums(sums.values[1:], sums.weights[1:])


def _mean(sums: Sums) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums.values[0] / sums.weights[0]


def _figures(system: str, name: str, columns, values: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], sums: Sums) -> list[dict]:
    numbers = zip(columns, values, *bounds, sums.weights[0], strict=True)
    return [
        {"system": system, "slice": name, "metric": metric.name, "k": metric.k or 0, "value": value, "ci_low": low, "ci_high": high,
         "n_queries": int(n)}
        for metric, value, low, high, n in numbers if n
    ]  # fmt: skip


def _result_schema() -> pa.Schema:
    number = ("value", "ci_low", "ci_high")
    return pa.schema(
        [("system", pa.string()), ("slice", pa.string()), ("metric", pa.string()), ("k", pa.int32())]
        + [(name, pa.float64()) for name in number]
        + [("n_queries", pa.int64())]
    )
