"""Recall of a shard against exact search, and the cheapest search parameter that reaches a target recall."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from tgq.errors import WarehouseError
from tgq.metrics.metrics import ann_recall
from tgq.retrieval.exact import Block, Exclude, as_matrix, score_pairs, search_blocks
from tgq.retrieval.shards import ShardFile, read_shard, search_index


@dataclass(frozen=True)
class Sample:
    """A sample of a shard's own vectors as queries, with their exact neighbours in the shard. A query is not its own neighbour.

    Attributes:
        rows: int64 [S], row numbers of the queries.
        vectors: float32 [n, D], all vectors of the shard, ordered by item id.
        scores: float32 [S, K], inner products of the exact neighbours.
        positions: int64 [S, K], row numbers of the exact neighbours; -1 for none.
    """

    rows: np.ndarray
    vectors: np.ndarray
    scores: np.ndarray
    positions: np.ndarray


def draw_sample(
    vectors: np.ndarray, ids: Sequence[str] | np.ndarray, k: int = 10, size: int = 256, seed: int = 0
) -> Sample:
    """Draw a sample of the shard that `build_shard` makes of the same vectors and ids. Cost: S * n * D operations.

    Args:
        vectors: float32 [n, D].
        ids: n item ids.
        k: K, neighbours per query.
        size: S, at most n.
    """
    order = np.argsort(np.asarray(ids, dtype=object), kind="stable")
    vectors = np.ascontiguousarray(as_matrix(vectors, "sample")[order])
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:size])
    scores, positions = search_blocks(
        vectors[rows], [Block(vectors, np.arange(len(vectors)))], k, Exclude(rows)
    )
    return Sample(rows, vectors, scores, positions)


def sample_recall(index: faiss.Index, sample: Sample, search: Mapping[str, int]) -> float:
    """Recall@K of the index on the sample, in [0, 1]; 1.0 if the queries have no neighbours.

    An item with a score as high as the exact K-th neighbour's counts as found.
    """
    k = sample.positions.shape[1]
    _, found = search_index(index, sample.vectors[sample.rows], k + 1, search)
    own = found == sample.rows[:, None]
    # The query itself is moved to the end, where the slice drops it.
    found = np.take_along_axis(found, np.argsort(own, axis=1, kind="stable"), axis=1)[:, :k]
    found = np.where(found == sample.rows[:, None], -1, found)
    scores = score_pairs(np.ascontiguousarray(sample.vectors[sample.rows]), sample.vectors, found)
    recall = ann_recall(found, sample.positions, scores, sample.scores)
    return float(np.nanmean(recall)) if not np.isnan(recall).all() else 1.0


def tune_search(index: faiss.Index, sample: Sample, target: float = 0.95) -> tuple[dict[str, int], float]:
    """The smallest search parameter whose recall on the sample reaches the target, and that recall.

    The parameter is nprobe for IVF and efSearch for HNSW, doubled until the target is reached. If no value reaches it, the
    largest one is returned. A flat index has no parameter: `{}`. Cost: at most 10 searches of the sample.
    """
    if isinstance(index, faiss.IndexIVF):
        name, narrowest, widest = "nprobe", 1, index.nlist
    elif isinstance(index, faiss.IndexHNSW):
        name, narrowest, widest = "efSearch", 16, 1024
    else:
        return {}, sample_recall(index, sample, {})
    value = narrowest
    while (recall := sample_recall(index, sample, {name: value})) < target and value < widest:
        value = min(2 * value, widest)
    return {name: value}, recall


def verify_shard(
    root: str | Path, file: ShardFile, ids: Sequence[str] | np.ndarray, sample: Sample, target: float = 0.95
) -> ShardFile:
    """Read a written shard back and check sha256, count and ids, then measure its recall.

    Returns:
        `file` with the search parameter and the recall. The recall may be below the target; the quality gate decides about that.

    Raises:
        WarehouseError: the shard differs from what was built.
    """
    shard = read_shard(root, file)
    if list(shard.ids) != sorted(ids):
        raise WarehouseError(
            f"{file.ids_path} does not hold the ids that the shard was built from", "build this category again"
        )
    search, recall = tune_search(shard.index, sample, target)
    return dataclasses.replace(file, search=search, recall_at_k=recall)
