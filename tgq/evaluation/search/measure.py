"""Metrics of the search queries of a night, for its encoder, the frozen text tower and BM25, and example queries.

The driver gets a row per slice, metric and system, totals, and a few examples; of little data the queries themselves (`reading`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from tgq.evaluation.averages import Averages, named_rows
from tgq.evaluation.search.examples import Example, examples
from tgq.evaluation.search.reading import build_index, has_queries, judged_queries
from tgq.evaluation.search.scoring import COMPARED, SearchScoring, systems_of
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import Pool
from tgq.metrics.names import SEARCH
from tgq.publishing.verdict import Row
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
        queries = judged_queries(night, pool, place)
        totals = queries.totals
        if not totals.queries:
            return Searched(figures=asdict(totals))
        if built:
            built.result()
    scoring = SearchScoring(pool, tuple(systems), options.ks, encoder, index)
    scores = queries.score(scoring, options.query_slices)
    slices, small = scores.large_slices(options)
    found = scores.averages(Averages(tuple(systems), scoring.columns, COMPARED, slices, options.replicates, options.seed, options.level))
    shown_queries = examples(night, scores.extremes(shown.strips, options.seed), pool, encoder, shown.strip_neighbors) if shown.strips else []
    return Searched(
        totals.queries,
        named_rows(found, systems, pool.rows, SEARCH),
        {**asdict(totals), "slices": len(slices), "slices_too_small": small},
        shown_queries,
    )
