"""Judged search queries in Parquet, for more of them than the driver should hold. It gets totals, and rows of slices, metrics and systems.

Cost: a Spark job for each of: the lists, their totals, the popularities, the scores, the sizes of slices, the averages, and the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.embedding.executor.daemon import preloaded
from tgq.evaluation.averages import Averages
from tgq.evaluation.queries import large_slices
from tgq.evaluation.ragged import tasks_of
from tgq.evaluation.search.judged import Judged, shares_of, with_memberships
from tgq.evaluation.search.scoring import SCORED, SearchScoring, parts_of
from tgq.run.job_progress import counted, job_progress
from tgq.run.night import Night
from tgq.settings.sections import EvaluateSettings


@dataclass(frozen=True)
class Stored:
    """Queries, as LISTED; files go to `folder`. `Held` has the same methods."""

    night: Night
    queries: DataFrame
    folder: str

    @classmethod
    def limited(cls, night: Night, queries: DataFrame, folder: str) -> Stored:
        """Write at most `evaluate.max_queries` of the queries, drawn by a hash of their ids."""
        options, path = night.settings.evaluate, f"{folder}/queries"
        if options.max_queries:
            queries = queries.orderBy(F.xxhash64("query_id", F.lit(options.seed)), "query_id").limit(options.max_queries)
        queries.write.mode("overwrite").parquet(path)
        return cls(night, night.spark.read.parquet(path), folder)

    def where(self, keep: Callable[[str], bool]) -> Stored:
        """Those whose text is kept."""
        return Stored(self.night, self.queries.where(F.udf(keep, "boolean", useArrow=False)("text")), self.folder)

    @cached_property
    def totals(self) -> Judged:
        missing = F.size(F.filter("positives", lambda p: p["position"] < 0))
        sums = {"positives": F.size("positives"), "positives_without_embedding": missing, "negatives": F.size("ignored")}
        row = self.queries.agg(F.count("*").alias("queries"), *(F.sum(column).alias(name) for name, column in sums.items())).collect()[0]
        return Judged(**{name: value or 0 for name, value in row.asDict().items()})

    def score(self, scoring: SearchScoring, slices: Sequence[str]) -> StoredScores:
        """Score them in tasks, with the slices of these names. The driver gets a row for each popularity that occurs, if that makes slices."""
        searches: dict[float, float] = {}
        if "popularity" in slices:
            known = self.queries.where("popularity IS NOT NULL").groupBy("popularity").agg(F.sum("popularity").alias("searches"))
            searches = {row["popularity"]: row["searches"] for row in known.collect()}
        shares, path, names = shares_of(searches), f"{self.folder}/scored", tuple(slices)

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            asked = (with_memberships(pa.Table.from_batches([batch]), names, shares) for batch in batches if batch.num_rows)
            return scoring.run(part for table in asked for part in table.to_batches())

        n = self.totals.queries
        with job_progress(self.night, "search queries", n) as done, preloaded(self.night.spark.sparkContext):
            spread = self.queries.repartition(max(1, tasks_of(self.night, n)), "query_id")
            spread.mapInArrow(counted(run, done), SCORED).write.mode("overwrite").parquet(path)
        return StoredScores(self.night.spark.read.parquet(path), self.queries)


@dataclass(frozen=True)
class StoredScores:
    """Scores of queries, as SCORED, and the queries. `HeldScores` has the same methods."""

    scored: DataFrame
    queries: DataFrame

    def large_slices(self, options: EvaluateSettings) -> tuple[tuple[str, ...], int]:
        """As `tgq.evaluation.queries.large_slices`."""
        return large_slices(self.scored, options)

    def averages(self, averages: Averages) -> list[dict[str, Any]]:
        """Rows of RESULT; see `tgq.evaluation.averages`."""
        return averages.collect(self.scored.select("memberships", "group_key", "metrics"), lambda batches: averages.sums(parts_of(batches)))

    def extremes(self, n: int, seed: int) -> pa.Table:
        """At most n best and n worst queries by NDCG@10: choice (best or worst), query_id, text, ndcg, best_item, positives, ignored. Equal ones are
        drawn by a hash of their ids."""
        draw = F.xxhash64("query_id", F.lit(seed))
        best = self.scored.where("ndcg > 0").orderBy(F.desc("ndcg"), draw).limit(n).select("query_id", "ndcg", F.lit("best").alias("choice"))
        worst = self.scored.where("ndcg < 1").orderBy("ndcg", draw).limit(n).select("query_id", "ndcg", F.lit("worst").alias("choice"))
        found = self.queries.select("query_id", "text", "best_item", "positives", "ignored")
        return found.join(F.broadcast(best.union(worst)), "query_id").toArrow()
