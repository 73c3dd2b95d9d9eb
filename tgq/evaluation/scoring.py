"""One task of the evaluation of items: exact ranks of its queries' positives under each system, and metrics of each query.

A system is a kind of vectors: the encoder's `embedding`, or a frozen baseline. All systems rank the same queries over the same pool.

Cost per system: queries x pool inner products. The pool is streamed once for every QUERIES queries or PAIRS positives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgq.evaluation.averages import Part
from tgq.evaluation.ragged import passes, ragged
from tgq.index.pool import IMAGE_CODE, Pool, gather_vectors, read_blocks
from tgq.metrics.metrics import Metric, query_metrics
from tgq.metrics.ranks import count_above, listed_above
from tgq.retrieval.exact import Block, Exclude
from tgq.storage.stores import file_system

NEVER = 2**40  # rank of positives that cannot be found: beyond every cutoff, and 1 / rank is about 0
DIFFERENCES = (Metric("hit_rate", 1), Metric("hit_rate", 10), Metric("mrr", None))


@dataclass(frozen=True)
class Scoring:
    """The parameters of a task. `code`: codes of pictures (`excluded_code`) whose equality keeps an item from a query, which has its own in the column
    `image_code`; None: no item is kept from it. `hidden_path`: folder of the positions that are removed from the pool; None: none."""

    pool: Pool
    systems: tuple[str, ...]  # kinds of vectors, MAIN first
    cutoffs: tuple[int, ...]
    code: str | None
    hidden_path: str | None = None

    def parts(self, batches: Iterator[pa.RecordBatch]) -> Iterator[Part]:
        """The metrics of the rows of `write_queries` with memberships."""
        for queries in passes(batches):
            yield Part(queries["memberships"], queries["group_key"].to_numpy(), self.values(queries)[0])

    def values(self, queries: pa.Table, asking: np.ndarray | None = None) -> tuple[np.ndarray, tuple[Metric, ...]]:
        """float64 [Q, systems * M], a system after the other, and the M metrics.

        asking: float32 [Q, D], the queries' vectors where these are others than the pool holds of them; of one system only.
        """
        at, category = queries["position"].to_numpy(), queries["category_code"].to_numpy()
        positives, ignored = ragged(queries["positives"]), ragged(queries["ignored"])
        if self.hidden_path is not None:
            ignored = ignored.where(~np.isin(ignored["position"], read_positions(self.hidden_path)))
        images = None
        if self.code:
            images = queries["image_code"].to_numpy().view(np.uint64)
        in_pool = positives["position"] >= 0
        found = positives.where(in_pool)
        same = found["category_code"] == category[found.rows]
        ignored_same = ignored.where(ignored["category_code"] == category[ignored.rows])
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
            metrics = query_metrics(positives.offsets, ranks, positives["weight"], near, cutoffs=self.cutoffs)
            out.append(metrics.values)
            columns = metrics.columns
        return np.concatenate(out, axis=1), columns

    def _blocks(self, system: str) -> Iterator[Block]:
        blocks = read_blocks(self.pool, system, code=self.code or IMAGE_CODE)
        if self.hidden_path is None:
            return blocks
        hidden = read_positions(self.hidden_path)
        return (_without(block, hidden) for block in blocks)


def metric_columns(cutoffs: tuple[int, ...]) -> tuple[Metric, ...]:
    """The columns that `query_metrics` gives for these cutoffs."""
    none = np.zeros(0, np.int64)
    return query_metrics(np.zeros(1, np.int64), none, None, none, cutoffs=cutoffs).columns


def read_positions(path: str) -> np.ndarray:
    """int64, sorted: the column `position` of a folder of Parquet files."""
    system, inner = file_system(path)
    return np.sort(pq.read_table(inner, filesystem=system, columns=["position"])["position"].to_numpy())


def _without(block: Block, hidden: np.ndarray) -> Block:
    keep = ~np.isin(block.positions, hidden, assume_unique=True)
    images, categories = (None if codes is None else codes[keep] for codes in (block.images, block.categories))
    return Block(block.vectors[keep], block.positions[keep], images, categories)
