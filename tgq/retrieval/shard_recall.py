"""A shard's recall against exact search, and the cheapest search parameter that reaches a target."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from tgq.errors import WarehouseError
from tgq.retrieval.exact import Block, Exclude, as_matrix, score_pairs, search_blocks
from tgq.retrieval.metrics import ann_recall
from tgq.retrieval.shards import ShardFile, read_shard, search_index


@dataclass(frozen=True)
class Sample:
    """Some of a shard's own vectors with their exact neighbours in it (themselves left out).

    rows: int64 [S] of the shard; vectors: float32 [n, D], all of it, in the order of its ids; scores,
        positions: [S, K].
    """

    rows: np.ndarray
    vectors: np.ndarray
    scores: np.ndarray
    positions: np.ndarray


def draw_sample(
    vectors: np.ndarray, ids: Sequence[str] | np.ndarray, k: int = 10, size: int = 256, seed: int = 0
) -> Sample:
    """A seeded sample for judging the shard that `build_shard` makes of these vectors and ids; costs S * n *
    D."""
    order = np.argsort(np.asarray(ids, dtype=object), kind="stable")
    vectors = np.ascontiguousarray(as_matrix(vectors, "sample")[order])
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:size])
    scores, positions = search_blocks(
        vectors[rows], [Block(vectors, np.arange(len(vectors)))], k, Exclude(rows)
    )
    return Sample(rows, vectors, scores, positions)


def sample_recall(index: faiss.Index, sample: Sample, search: Mapping[str, int]) -> float:
    """Recall@K of the index on the sample, in [0, 1]; items as good as the exact K-th count. 1.0 where
    nothing is to be found."""
    k = sample.positions.shape[1]
    _, found = search_index(index, sample.vectors[sample.rows], k + 1, search)
    own = found == sample.rows[:, None]
    found = np.take_along_axis(found, np.argsort(own, axis=1, kind="stable"), axis=1)[
        :, :k
    ]  # itself goes last, and out
    found = np.where(found == sample.rows[:, None], -1, found)
    scores = score_pairs(np.ascontiguousarray(sample.vectors[sample.rows]), sample.vectors, found)
    recall = ann_recall(found, sample.positions, scores, sample.scores)
    return float(np.nanmean(recall)) if not np.isnan(recall).all() else 1.0


def tune_search(index: faiss.Index, sample: Sample, target: float = 0.95) -> tuple[dict[str, int], float]:
    """The cheapest search parameter (a power of two) whose recall on the sample meets the target, and that
    recall; the widest one with its recall when none does. Costs at most 10 searches of the sample."""
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
    """Reads a written shard back and judges it: sha256, count, its ids, recall. Returns its record with the
    search parameters and the recall that was measured (which may be under the target: that is for the gate to
    judge).

    Raises:
        WarehouseError: it is not what was built.
    """
    shard = read_shard(root, file)
    if list(shard.ids) != sorted(ids):
        raise WarehouseError(
            f"{file.ids_path} does not hold the ids that were given", "build this category again"
        )
    search, recall = tune_search(shard.index, sample, target)
    return dataclasses.replace(file, search=search, recall_at_k=recall)
