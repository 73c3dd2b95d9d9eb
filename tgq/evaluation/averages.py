"""Means of per-query metrics by slice, with bootstrap intervals and paired differences, from sums that tasks compute and that add up.

All systems have the same queries with the same bootstrap weights, so differences between them are paired. A task emits 16 * B * M bytes
per slice (B replicates, M metrics of all systems), whatever the number of its queries; the driver gets a row per slice, metric and system.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame

from tgq.embedding.executor.daemon import preloaded
from tgq.index.pool import MAIN
from tgq.metrics.bootstrap import Sums, difference_interval, interval, poisson_weights, weighted
from tgq.metrics.metrics import Metric
from tgq.run.job_progress import Rows

SUMS = "slice string, replicates int, queries long, sums binary"
RESULT = "system string, slice string, metric string, k int, value double, ci_low double, ci_high double, n_queries long"
MINUS = f"{MAIN} - "


class Part(NamedTuple):
    """Some queries: the slices that each belongs to, its cluster (int64 [Q]) and its metrics (float64 [Q, systems * M])."""

    memberships: pa.ChunkedArray
    clusters: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Averages:
    """What is averaged and how. A query's values are those of the first system, then of the second ..., M metrics each.

    Attributes:
        systems: the first one is compared with each of the others.
        metrics: the M metrics.
        compared: those of them that differences are computed of.
        slices: those that are wanted.
        replicates, seed, level: of the bootstrap.
    """

    systems: tuple[str, ...]
    metrics: tuple[Metric, ...]
    compared: tuple[Metric, ...]
    slices: tuple[str, ...]
    replicates: int
    seed: int
    level: float

    def collect(self, queries: DataFrame, run: Rows, much: bool = False) -> list[dict[str, Any]]:
        """Rows of RESULT; `run` makes rows of SUMS of the queries. With `much` work it has torch (`tgq.retrieval.product`)."""
        context = queries.sparkSession.sparkContext
        with preloaded(context, much):
            sums = queries.mapInArrow(run, SUMS)
        sums = sums.repartition(min(context.defaultParallelism, len(self.slices)), "slice")
        return [row.asDict() for row in sums.mapInArrow(self.reduce, RESULT).collect()]

    def sums(self, parts: Iterable[Part]) -> Iterator[pa.RecordBatch]:
        """One row of SUMS for each slice that occurs."""
        held: dict[str, Sums] = {}
        counts: dict[str, int] = {}
        for part in parts:
            # a query has the same weights in all its slices
            weights = poisson_weights(part.clusters.view(np.uint64), self.replicates, self.seed)
            for name, rows in _members(part.memberships, self.slices).items():
                found = summed(part.values[rows], weights[rows])
                held[name] = held[name] + found if name in held else found
                counts[name] = counts.get(name, 0) + len(rows)
        for name, sums in held.items():
            yield _sums_batch(name, counts[name], sums)

    def reduce(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """All SUMS rows of some slices, to rows of RESULT."""
        held: dict[str, Sums] = {}
        for batch in batches:
            for row in batch.to_pylist():
                part = Sums(*np.frombuffer(row["sums"]).reshape(2, row["replicates"] + 1, -1))
                held[row["slice"]] = held[row["slice"]] + part if row["slice"] in held else part
        for name, sums in held.items():
            yield pa.RecordBatch.from_pylist(self._rows(name, sums), schema=_result_schema())

    def _rows(self, name: str, sums: Sums) -> list[dict[str, Any]]:
        width = len(self.metrics)
        rows = []
        for number, system in enumerate(self.systems):
            own = _columns(sums, number * width, width)
            rows += self._figures(system, name, _mean(own), interval(_replicates(own), self.level), own)
            if number:
                base = _columns(sums, 0, width)
                bounds = difference_interval(_replicates(base), _replicates(own), self.level)
                difference = self._figures(MINUS + system, name, _mean(base) - _mean(own), bounds, own)
                rows += [row for row in difference if Metric(row["metric"], row["k"] or None) in self.compared]
        return rows

    def _figures(self, system: str, name: str, values: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], sums: Sums) -> list[dict[str, Any]]:
        numbers = zip(self.metrics, values, *bounds, sums.weights[0], strict=True)
        return [
            {"system": system, "slice": name, "metric": metric.name, "k": metric.k or 0, "value": value, "ci_low": low, "ci_high": high,
             "n_queries": int(n)}
            for metric, value, low, high, n in numbers if n
        ]  # fmt: skip


def named_rows(found: Iterable[Mapping[str, Any]], systems: Mapping[str, str], pool_size: int, task: str) -> list[dict[str, Any]]:
    """Rows of RESULT as in `retrieval_metrics`, without the run; those of differences have `embedding - <baseline>` as their model.

    systems: the name of each system.
    """
    names = dict(systems) | {MINUS + kind: MINUS + name for kind, name in systems.items()}
    columns = ("slice", "metric", "k", "value", "ci_low", "ci_high", "n_queries")
    return [{"model_version": names[row["system"]], "task": task, "pool_size": pool_size} | {c: row[c] for c in columns} for row in found]


def summed(values: np.ndarray, weights: np.ndarray) -> Sums:
    """Bootstrap sums of some queries, with the plain sums (every weight 1) as a first replicate. `weights`: uint8 [n, replicates]."""
    known = ~np.isnan(values)
    plain = np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64)
    sums = weighted(values, weights)
    return Sums(np.vstack([plain[0], sums.values]), np.vstack([plain[1], sums.weights]))


def _members(memberships: pa.ChunkedArray, slices: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Rows of each slice that occurs, of those that are wanted."""
    lists = pa.concat_arrays(memberships.chunks)
    rows = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy(zero_copy_only=False))
    number = {name: i for i, name in enumerate(slices)}
    codes = np.array([number.get(name, -1) for name in lists.flatten().to_pylist()], np.int64)
    return {slices[code]: rows[codes == code] for code in np.unique(codes[codes >= 0])}


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


def _result_schema() -> pa.Schema:
    number = ("value", "ci_low", "ci_high")
    return pa.schema(
        [("system", pa.string()), ("slice", pa.string()), ("metric", pa.string()), ("k", pa.int32())]
        + [(name, pa.float64()) for name in number]
        + [("n_queries", pa.int64())]
    )
