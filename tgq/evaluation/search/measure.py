"""Metrics of the search queries of a night, for its encoder, the frozen text tower and BM25, and example queries.

The driver gets a row per slice, metric and system, totals, and a few examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from pyspark.sql import functions as F

from tgq.embedding.executor.daemon import preloaded
from tgq.evaluation.averages import Averages, named_rows
from tgq.evaluation.queries import large_slices
from tgq.evaluation.ragged import tasks_of
from tgq.evaluation.search.examples import Example, examples
from tgq.evaluation.search.judged import has_queries, with_memberships, write_judged
from tgq.evaluation.search.scoring import COMPARED, SCORED, SearchScoring, parts_of, systems_of
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import Pool, item_frame
from tgq.metrics.names import SEARCH
from tgq.publishing.verdict import Row
from tgq.retrieval.bm25 import TextIndex
from tgq.run.job_progress import counted, job_progress
from tgq.run.night import Night


@dataclass(frozen=True)
class Searched:
    """The result for search queries; empty for a night without any."""

    queries: int = 0
    rows: list[Row] = field(default_factory=list)  # as `named_rows` gives them
    figures: dict[str, Any] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)


def measure_search(night: Night, pool: Pool) -> Searched:
    """Measure the search queries of `evaluate.split` that have a judged, active item with a gain.

    Raises:
        ModelError: the query tower is broken, or for another model's item embeddings.
    """
    if not pool.rows or not has_queries(night):
        return Searched()
    options, shown = night.settings.evaluate, night.settings.report
    encoder, place = QueryEncoder.of(night), night.staging("evaluate", "search")
    systems = systems_of(pool, options.baselines, options.bm25)
    index = f"{place}/bm25" if options.bm25 else None
    with ThreadPoolExecutor(1, "bm25") as beside:
        built = beside.submit(build_index, night, pool, index) if index else None
        totals = write_judged(night, pool, f"{place}/queries")
        if not totals.queries:
            return Searched(figures=asdict(totals))
        judged = night.spark.read.parquet(f"{place}/queries")
        queries = with_memberships(judged, options.query_slices)
        slices, small = large_slices(queries, options)
        if built:
            built.result()
    scoring = SearchScoring(pool, tuple(systems), options.ks, encoder, index)
    columns = ("query_id", "text", "group_key", "positives", "ignored", "memberships")
    with job_progress(night, "search queries", totals.queries) as done, preloaded(night.spark.sparkContext):
        spread = queries.select(*columns).repartition(tasks_of(night, totals.queries), "query_id")
        spread.mapInArrow(counted(scoring.run, done), SCORED).write.mode("overwrite").parquet(f"{place}/scored")
    scored = night.spark.read.parquet(f"{place}/scored")
    averages = Averages(tuple(systems), scoring.columns, COMPARED, slices, options.replicates, options.seed, options.level)
    found = averages.collect(scored.select("memberships", "group_key", "metrics"), lambda batches: averages.sums(parts_of(batches)))
    with preloaded(night.spark.sparkContext):
        shown_queries = examples(scored, judged, pool, encoder, shown.strips, shown.strip_neighbors, options.seed)
    return Searched(
        totals.queries,
        named_rows(found, systems, pool.rows, SEARCH),
        {**asdict(totals), "slices": len(slices), "slices_too_small": small},
        shown_queries,
    )


def build_index(night: Night, pool: Pool, folder: str) -> int:
    """Write the index of BM25 over the texts that the encoder reads of the pool's items, in one task. Returns the number of texts."""
    items = night.warehouse.read("catalog_items", pool.versions["catalog_items"]).where("is_active").select("item_id", "metadata_text")
    text = F.coalesce("metadata_text", F.lit("")).alias("text")
    texts = item_frame(night, pool).select("item_id", "position").join(items, "item_id").select("position", text)

    def build(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        index = TextIndex.build(text for batch in batches for text in batch["text"].to_pylist())
        index.save(folder)
        yield pa.RecordBatch.from_pydict({"n": [len(index)]})

    ordered = texts.repartition(1).sortWithinPartitions("position")
    return sum(row["n"] for row in ordered.mapInArrow(build, "n long").collect())
