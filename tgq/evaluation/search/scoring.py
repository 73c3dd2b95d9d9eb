"""One task of the evaluation of search queries: exact ranks of their judged items under each system, and metrics of each query.

A system is a kind of vectors of the pool, which the queries are encoded for, or `bm25`. All systems rank the same queries over the whole
pool. Items without a judgment count as not relevant there; `judged_ndcg` is over the query's judged items only.

Cost per kind of vectors: queries x pool inner products, and the pool is streamed once for every pass (`passes`). BM25: the postings of each
query's words, and 2 comparisons for each judged item and item of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tgq.evaluation.averages import Part
from tgq.evaluation.ragged import Ragged, passes, ragged
from tgq.evaluation.scoring import NEVER
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import MAIN, Pool, read_blocks
from tgq.metrics.metrics import Metric, ndcg, query_metrics
from tgq.metrics.names import BM25
from tgq.metrics.ranks import count_above, listed_above
from tgq.retrieval.bm25 import TextIndex, places, places_among

NDCG_CUTOFFS, JUDGED_CUTOFF = (1, 5, 10), 10
HEADLINE, JUDGED_NDCG = Metric("ndcg", 10), Metric("judged_ndcg", JUDGED_CUTOFF)
COMPARED = (HEADLINE, JUDGED_NDCG, Metric("recall", 10), Metric("mrr", None))
SCORED = "query_id string, group_key long, memberships array<string>, ndcg double, metrics binary"


@dataclass(frozen=True)
class SearchScoring:
    """The parameters of a task.

    Attributes:
        systems: kinds of vectors, MAIN first, and `bm25`.
        cutoffs: the K of hit_rate and recall.
        index: folder of the index of BM25; None: `bm25` is no system.
    """

    pool: Pool
    systems: tuple[str, ...]
    cutoffs: tuple[int, ...]
    encoder: QueryEncoder
    index: str | None = None

    @property
    def columns(self) -> tuple[Metric, ...]:
        """The metrics of each system."""
        none = np.zeros(0, np.int64)
        return (*query_metrics(np.zeros(1, np.int64), none, None, None, self.cutoffs, NDCG_CUTOFFS).columns, JUDGED_NDCG)

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Rows of `write_judged` with memberships, to rows of SCORED: `metrics` are the float64 of `values`, `ndcg` is the headline of MAIN."""
        headline = self.columns.index(HEADLINE)
        for queries in passes(batches):
            values = self.values(queries)
            found = {"ndcg": pa.array(values[:, headline]), "metrics": pa.array([row.tobytes() for row in values], pa.binary())}
            kept = queries.select(["query_id", "group_key", "memberships"])
            for name, column in found.items():
                kept = kept.append_column(name, column)
            yield from kept.to_batches()

    def values(self, queries: pa.Table) -> np.ndarray:
        """float64 [Q, systems * M], a system after the other."""
        texts = queries["text"].to_pylist()
        positives, ignored = ragged(queries["positives"]), ragged(queries["ignored"])
        in_pool = positives["position"] >= 0
        found = positives.where(in_pool)
        out: list[np.ndarray] = []
        vectors = self.encoder.all_vectors([system for system in self.systems if system != BM25], texts)
        for system in self.systems:
            in_all, among_judged = self._bm25(texts, found, ignored) if system == BM25 else self._exact(system, vectors[system], found, ignored)
            ranks, judged = (NEVER + np.arange(len(in_pool)) for _ in range(2))
            ranks[in_pool], judged[in_pool] = in_all, among_judged
            gains = positives["gain"]
            metrics = query_metrics(positives.offsets, ranks, gains, None, self.cutoffs, NDCG_CUTOFFS, positives["relevant"].astype(bool))
            out += [metrics.values, ndcg(positives.offsets, judged, gains, JUDGED_CUTOFF)[:, None]]
        return np.concatenate(out, axis=1)

    def _exact(self, kind: str, vectors: np.ndarray, found: Ragged, ignored: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Ranks of the items `found` in the pool, and among the judged items: int64 [P] each."""
        asked, others = found.with_vectors(self.pool, kind), ignored.with_vectors(self.pool, kind)
        above = count_above(vectors, asked, read_blocks(self.pool, kind)).pool
        return above + 1, listed_above(vectors, asked, asked) + listed_above(vectors, asked, others) + 1

    def _bm25(self, texts: list[str], found: Ragged, ignored: Ragged) -> tuple[np.ndarray, np.ndarray]:
        assert self.index is not None
        index = TextIndex.load(self.index)
        parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for number, text in enumerate(texts):
            own, others = (r["position"][r.offsets[number] : r.offsets[number + 1]] for r in (found, ignored))
            if len(own):
                scores = index.scores(text)
                parts.append((places(scores, own), places_among(scores, own, np.concatenate([own, others]))))
        in_all, among_judged = (np.concatenate(side) for side in zip(*parts, strict=True))
        return in_all, among_judged


def parts_of(batches: Iterator[pa.RecordBatch]) -> Iterator[Part]:
    """Rows of SCORED, to be averaged."""
    for batch in batches:
        if batch.num_rows:
            table = pa.Table.from_batches([batch])
            values = np.frombuffer(b"".join(table["metrics"].to_pylist())).reshape(batch.num_rows, -1)
            yield Part(table["memberships"], table["group_key"].to_numpy(), values)


def systems_of(pool: Pool, baselines: bool, bm25: bool) -> dict[str, str]:
    """System of SearchScoring -> its name in `retrieval_metrics`."""
    systems = {MAIN: pool.model_version}
    if baselines and "text" in pool.widths:
        systems["text"] = "frozen_text"
    return systems | ({BM25: BM25} if bm25 else {})
