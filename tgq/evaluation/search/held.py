"""Judged search queries that the driver holds: their slices, draws and averages are made here, and only scoring is a Spark job.

Cost: the driver's memory for the queries and their judged items, whose number `reading` limits, and one Spark job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tgq.embedding.executor.daemon import preloaded
from tgq.evaluation.averages import Averages
from tgq.evaluation.ragged import tasks_of
from tgq.evaluation.search.hashing import xxhash64
from tgq.evaluation.search.judged import Judged, shares_of, with_memberships
from tgq.evaluation.search.scoring import SCORED, SearchScoring, parts_of
from tgq.metrics.metrics import ALL
from tgq.run.job_progress import counted, job_progress
from tgq.run.night import Night
from tgq.settings.sections import EvaluateSettings
from tgq.storage import artifacts


@dataclass(frozen=True)
class Held:
    """Queries, as LISTED; files go to `folder`. `Stored` has the same methods."""

    night: Night
    queries: pa.Table
    folder: str

    def limited(self) -> Held:
        """At most `evaluate.max_queries` of them, drawn by a hash of their ids."""
        most, seed = self.night.settings.evaluate.max_queries, self.night.settings.evaluate.seed
        if most is None or len(self.queries) <= most:
            return self
        ids = self.queries["query_id"].to_pylist()
        draw = sorted(range(len(ids)), key=lambda at: (xxhash64(ids[at], seed), ids[at].encode()))
        return Held(self.night, self.queries.take(pa.array(draw[:most])), self.folder)

    def where(self, keep: Callable[[str], bool]) -> Held:
        """Those whose text is kept."""
        return Held(self.night, self.queries.filter(pa.array([keep(text) for text in self.queries["text"].to_pylist()], pa.bool_())), self.folder)

    @cached_property
    def totals(self) -> Judged:
        missing = pc.sum(pc.less(pc.struct_field(pc.list_flatten(self.queries["positives"]), "position"), 0)).as_py() or 0
        positives, negatives = (pc.sum(pc.list_value_length(self.queries[name])).as_py() or 0 for name in ("positives", "ignored"))
        return Judged(len(self.queries), positives, missing, negatives)

    def score(self, scoring: SearchScoring, slices: Sequence[str]) -> HeldScores:
        """Score them in tasks, with the slices of these names."""
        searches: Counter[float] = Counter()
        for popularity in pc.drop_null(self.queries["popularity"]).to_pylist():
            searches[popularity] += popularity
        asked = with_memberships(self.queries, slices, shares_of(searches))
        file, tasks, n = f"{self.folder}/queries.arrow", max(1, tasks_of(self.night, len(asked))), len(asked)
        artifacts.write_table(file, asked)

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for number in (number for batch in batches for number in batch["id"].to_pylist()):
                start, end = number * n // tasks, (number + 1) * n // tasks
                yield from scoring.run(iter(artifacts.read_table(file).slice(start, end - start).to_batches()))

        with job_progress(self.night, "search queries", n) as done, preloaded(self.night.spark.sparkContext):
            scored = self.night.spark.range(0, tasks, 1, tasks).mapInArrow(counted(run, done), SCORED).toArrow()
        return HeldScores(scored, asked)


@dataclass(frozen=True)
class HeldScores:
    """Scores of queries. `StoredScores` has the same methods.

    Attributes:
        scored: as SCORED.
        queries: as LISTED.
    """

    scored: pa.Table
    queries: pa.Table

    def large_slices(self, options: EvaluateSettings) -> tuple[tuple[str, ...], int]:
        """As `tgq.evaluation.queries.large_slices`."""
        sizes = Counter(pc.list_flatten(self.scored["memberships"]).to_pylist())
        kept = sorted(name for name, size in sizes.items() if size >= options.min_slice_queries or name == ALL)
        return tuple(kept), len(sizes) - len(kept)

    def averages(self, averages: Averages) -> list[dict[str, Any]]:
        """Rows of RESULT; see `tgq.evaluation.averages`."""
        sums = averages.sums(parts_of(iter(self.scored.combine_chunks().to_batches())))
        return [row for batch in averages.reduce(sums) for row in batch.to_pylist()]

    def extremes(self, n: int, seed: int) -> pa.Table:
        """As `StoredScores.extremes`."""
        ids, ndcg = self.scored["query_id"].to_pylist(), self.scored["ndcg"].to_numpy()
        draw = np.array([xxhash64(one, seed) for one in ids], np.int64)
        ends = {"best": (np.lexsort((draw, -ndcg)), ndcg > 0), "worst": (np.lexsort((draw, ndcg)), ndcg < 1)}
        rows = {choice: order[allowed[order]][:n] for choice, (order, allowed) in ends.items()}
        chosen = np.concatenate(list(rows.values())).astype(np.int64)
        at = pc.index_in(self.scored["query_id"], value_set=self.queries["query_id"].combine_chunks()).take(pa.array(chosen))
        found = self.queries.select(["query_id", "text", "best_item", "positives", "ignored"]).take(at)
        choices = pa.array([choice for choice, own in rows.items() for _ in own], pa.string())
        return found.append_column("choice", choices).append_column("ndcg", pa.array(ndcg[chosen]))
