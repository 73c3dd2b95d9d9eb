"""Recall of the staged shards against exact search over the whole pool, on a sample.

The sample is the first items of the pool, which is in hash order. Every shard is searched, as by `tgq search` without a category, and
the best K over all shards are compared with the exact K. An item whose score equals the exact K-th counts as found.

Cost: sample x pool inner products, and one read of every shard; the driver merges sample x (K + 1) numbers from each task.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from tgq.index.pool import Pool, PoolBlock, find_positions, gather_vectors, read_blocks
from tgq.metrics.metrics import ann_recall
from tgq.retrieval.exact import Exclude, merge_top, score_pairs, search_blocks
from tgq.retrieval.shards import ShardFile, open_shards, search_shards
from tgq.run.night import Night

SAMPLE = 1000
PARTS = "is_exact boolean, positions binary, scores binary, true_scores binary"


def shard_recall(night: Night, pool: Pool, shards: Sequence[ShardFile]) -> np.ndarray:
    """float64 [S]: recall of each sampled item's neighbours; S is at most SAMPLE."""
    k, root = night.settings.index.recall_k, night.warehouse.root
    sample = np.arange(min(SAMPLE, pool.rows))
    parallelism = night.spark.sparkContext.defaultParallelism
    jobs = [(True, part) for part in _dealt(pool.blocks, parallelism)] + [(False, part) for part in _dealt(shards, parallelism)]

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                is_exact, part = jobs[number]
                found = _exact(pool, part, sample, k) if is_exact else _approximate(root, pool, part, sample, k)
                data = [[array.tobytes()] for array in found]
                yield pa.RecordBatch.from_arrays([pa.array([is_exact]), *(pa.array(d, pa.binary()) for d in data)],
                                                 ["is_exact", "positions", "scores", "true_scores"])  # fmt: skip

    rows = night.spark.range(0, len(jobs), 1, len(jobs)).mapInArrow(run, PARTS).collect()
    exact: list[tuple[np.ndarray, ...]] = []
    approximate: list[tuple[np.ndarray, ...]] = []
    for row in rows:
        positions = np.frombuffer(row["positions"], np.int64).reshape(len(sample), -1)
        scores, true_scores = (np.frombuffer(row[name], np.float32).reshape(len(sample), -1) for name in ("scores", "true_scores"))
        (exact if row["is_exact"] else approximate).append((scores, positions, true_scores))
    best_scores, best = merge_top([(scores, positions) for scores, positions, _ in exact], k)
    scores, positions, true = (np.concatenate(parts, axis=1) for parts in zip(*approximate, strict=True))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found, true = (np.take_along_axis(array, order, axis=1) for array in (positions, true))
    recall = ann_recall(found, best, true, best_scores)
    return recall[~np.isnan(recall)]


def _dealt(things: Sequence, parts: int) -> list[Sequence]:
    return [things[i::parts] for i in range(min(parts, len(things)))]


def _exact(pool: Pool, blocks: Sequence[PoolBlock], sample: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    queries = gather_vectors(pool, "embedding", sample)
    scores, positions = search_blocks(queries, read_blocks(pool, "embedding", blocks), k, Exclude(sample))
    return positions, scores, scores


def _approximate(root: str, pool: Pool, files: Sequence[ShardFile], sample: np.ndarray, k: int) -> tuple[np.ndarray, ...]:
    """Results of the shards: `scores` are those of the index and decide the order, `true_scores` are exact."""
    queries = gather_vectors(pool, "embedding", sample)
    scores, ids = search_shards(open_shards(root, files), queries, k + 1)
    names, which = np.unique(np.where(ids == None, "", ids).astype(str), return_inverse=True)  # noqa: E711
    positions = find_positions(pool, pa.array(names.tolist(), pa.string()))[which.reshape(ids.shape)]
    positions[positions == sample[:, None]] = -1  # the query itself
    flat, at = np.unique(positions, return_inverse=True)
    vectors = np.concatenate([np.zeros((1, queries.shape[1]), np.float32), gather_vectors(pool, "embedding", flat[flat >= 0])])
    columns = np.where(positions < 0, -1, at.reshape(positions.shape) + (1 if flat[0] >= 0 else 0))
    true = score_pairs(queries, vectors, columns)
    return positions, np.where(positions < 0, -np.inf, scores).astype(np.float32), true
