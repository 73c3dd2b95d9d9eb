"""List columns of queries as ragged arrays, and queries in portions that share one pass over the pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tgq.index.pool import Pool, gather_vectors
from tgq.metrics.ranks import Positives
from tgq.run.night import Night

QUERIES, PAIRS = 2048, 16_384  # at most in one pass over the pool: they bound a task's memory


@dataclass(frozen=True)
class Ragged:
    """A list column of structs, of which query i owns offsets[i]:offsets[i + 1].

    Attributes:
        offsets: int64 [Q + 1].
        fields: the structs' fields by name, [P] each; `position` is among them.
    """

    offsets: np.ndarray
    fields: Mapping[str, np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        """int64 [P]: the query number of each entry."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]

    def where(self, keep: np.ndarray) -> Ragged:
        """The entries that are True in `keep`, bool [P]."""
        kept = np.bincount(self.rows[keep], minlength=len(self.offsets) - 1)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        return Ragged(offsets, {name: values[keep] for name, values in self.fields.items()})

    def with_vectors(self, pool: Pool, kind: str) -> Positives:
        """The entries with their vectors, for those that all have a position in the pool."""
        positions, which = np.unique(self["position"], return_inverse=True)
        return Positives(self.offsets, self["position"], gather_vectors(pool, kind, positions)[which])


def ragged(column: pa.ChunkedArray) -> Ragged:
    """A column of lists of structs. Fields keep their numpy types."""
    lists = pa.concat_arrays(column.chunks)
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    entries = lists.flatten()
    names = [field.name for field in entries.type]
    fields = {name: values.to_numpy(zero_copy_only=False) for name, values in zip(names, entries.flatten(), strict=True)}
    return Ragged(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), fields)


def passes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The queries in portions that share one pass over the pool. Pairs are the entries of `positives` and `ignored`."""
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


def tasks_of(night: Night, queries: int) -> int:
    """The number of tasks that score so many queries: at least 64 queries each, and at most as many as share a pass over the pool."""
    parallelism = night.spark.sparkContext.defaultParallelism
    return max(min(parallelism, -(-queries // 64)), -(-queries // QUERIES))
