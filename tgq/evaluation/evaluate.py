"""Full-pool retrieval metrics of a night for the encoder and the baselines, and the gate's verdict.

For every query of `relevance_pairs` the positives are ranked exactly among the whole pool, and so are the judged items of every search
query (`search`). Slices, intervals and differences are
computed on the executors from sums; the driver gets a row per slice, metric and system. Cost grows with queries x pool.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.evaluation import carrying
from tgq.evaluation.averages import MINUS, Averages, named_rows
from tgq.evaluation.carrying import Measured
from tgq.evaluation.queries import Totals, evaluated_pairs, large_slices, with_slices, write_queries
from tgq.evaluation.ragged import tasks_of
from tgq.evaluation.recall import shard_recall
from tgq.evaluation.scoring import DIFFERENCES, Scoring, metric_columns
from tgq.evaluation.search.measure import measure_search
from tgq.index.carrying import find_pool
from tgq.index.pool import FEATURES, MAIN, RIVAL, Pool, excluded_code, write_pool
from tgq.index.staging import staged_shards
from tgq.metrics.bootstrap import interval, partial
from tgq.metrics.metrics import ALL
from tgq.metrics.names import ITEMS, SEARCH, metric_key, task_of
from tgq.publishing.verdict import Row, verdict
from tgq.retrieval.product import MUCH, operations
from tgq.retrieval.shards import ShardFile
from tgq.run.job_progress import job_progress
from tgq.run.night import Night, StepResult

CONCAT = "concat"


def evaluate(night: Night) -> StepResult:
    """Compute the metrics of the night, write them to `retrieval_metrics`, and stage the gate's verdict.

    Without relevance pairs and search queries only coverage and the recall of the shards are computed. If the last published run measured the same pool,
    pairs, queries and shards with the same settings, its figures are this run's too (`carried`). A refusal takes effect in the publish step.
    """
    clock, options = time.perf_counter(), night.settings.evaluate
    pool, shards = find_pool(night), staged_shards(night) or []
    key = carrying.key_of(night, pool, shards)
    found = carrying.measured_before(night, key)
    carried = found is not None
    found = found or measure(night, write_pool(night), shards)
    carrying.keep(night, key, found)
    write_metrics(night, [row for row in found.rows if not row["model_version"].startswith(MINUS)])
    figures: dict[str, Any] = {"pool_size": pool.rows, "queries_in_pool": options.queries_in_pool, "split": options.split, "carried": carried}
    figures |= found.figures
    figures["differences"] = differences(found.rows, ITEMS)
    if found.searches:
        figures["search"] = figures["search"] | {"differences": differences(found.rows, SEARCH)}
    overall = [row for row in found.rows if row["slice"] == ALL and not row["model_version"].startswith(MINUS)]
    figures["metrics"] = {f"{row['model_version']}/{metric_key(row)}": row["value"] for row in overall}
    figures["gate"] = verdict(night, pool, found.rows, bool(found.queries), bool(found.searches))
    figures["evaluate_seconds"] = round(time.perf_counter() - clock, 2)
    return StepResult(
        rows_in=found.queries + found.searches, rows_out=sum(not row["model_version"].startswith(MINUS) for row in found.rows), versions_read=pool.versions,
        figures=figures, versions_written=night.warehouse.versions("retrieval_metrics"),
    )  # fmt: skip


def measure(night: Night, pool: Pool, shards: list[ShardFile]) -> Measured:
    """Metrics of all systems and slices for items and search queries, coverage, and the recall of the shards."""
    totals = write_queries(night, pool, evaluated_pairs(night), night.staging("evaluate", "queries"))
    rows = [coverage_row(pool)]
    figures: dict[str, Any] = {"pairs": asdict(totals)}
    if totals.queries:
        scored, more = score(night, pool, totals)
        rows += scored
        figures |= more
    else:
        figures["relevance"] = "no relevance pairs"
    searched = measure_search(night, pool)
    if searched.figures:
        figures["search"] = searched.figures
    if shards and pool.rows > 1:
        rows.append(recall_row(night, pool, shards))
    return Measured(totals.queries, searched.queries, [*rows, *searched.rows], figures, searched.examples)


def differences(rows: list[Row], task: str) -> list[dict[str, Any]]:
    """The encoder minus each baseline, over all queries of a task."""
    found = [row for row in rows if row["model_version"].startswith(MINUS) and row["slice"] == ALL and task_of(row) == task]
    columns = ("metric", "k", "value", "ci_low", "ci_high")
    return [{"baseline": row["model_version"].removeprefix(MINUS)} | {name: row[name] for name in columns} for row in found]


def systems_of(pool: Pool, baselines: bool) -> dict[str, str]:
    """Kind of vectors -> its system name in `retrieval_metrics`."""
    systems = {MAIN: pool.model_version}
    if pool.rival:
        systems[RIVAL] = pool.rival
    if baselines:
        systems |= {kind: f"frozen_{kind}" for kind in FEATURES if kind in pool.widths}
        if all(kind in pool.widths for kind in FEATURES):
            systems[CONCAT] = f"frozen_{CONCAT}"
    return systems


def score(night: Night, pool: Pool, totals: Totals) -> tuple[list[Row], dict[str, Any]]:
    """Rows of all systems and slices, and figures about them."""
    options, catalog = night.settings.evaluate, night.settings.catalog
    path = night.staging("evaluate", "queries")
    queries = with_slices(night.spark.read.parquet(path), (*options.slices, *catalog.slice_columns), totals)
    slices, small = large_slices(queries, options)
    systems = systems_of(pool, options.baselines)
    hidden, n_hidden = (None, 0) if options.queries_in_pool else _hide_queries(night, queries)
    scoring = Scoring(pool, tuple(systems), options.ks, excluded_code(options), hidden)
    averages = Averages(tuple(systems), metric_columns(options.ks), DIFFERENCES, slices, options.replicates, options.seed, options.level)
    columns = ("position", "category_code", "image_code", "group_key", "positives", "ignored", "memberships")
    with job_progress(night, "evaluate", totals.queries) as done:

        def run(batches):
            def counted():
                for batch in batches:
                    yield batch
                    done.add(batch.num_rows)

            return averages.sums(scoring.parts(counted()))

        tasks = tasks_of(night, totals.queries)
        widths = pool.widths | {CONCAT: sum(pool.widths.get(kind, 0) for kind in FEATURES)}
        much = sum(operations(totals.queries, pool.rows, widths.get(kind, 0)) for kind in systems) >= MUCH
        found = averages.collect(queries.select(*columns).repartition(tasks, "position"), run, much)
    rows = named_rows(found, systems, pool.rows - n_hidden, ITEMS)
    return rows, {"slices": len(slices), "slices_too_small": small, "queries_hidden_from_pool": n_hidden}


def coverage_row(pool: Pool) -> Row:
    """Share of the active items that are in the pool."""
    return _row(pool, "coverage", 0, pool.coverage, None)


def recall_row(night: Night, pool: Pool, shards: list[ShardFile]) -> Row:
    """Recall of the staged shards against exact search, over a sample of the pool."""
    options = night.settings.evaluate
    recall = shard_recall(night, pool, shards)
    sums = partial(recall[:, None], np.arange(len(recall), dtype=np.uint64), options.replicates, options.seed)
    low, high = (float(bound[0]) for bound in interval(sums, options.level))
    row = _row(pool, "ann_recall", night.settings.index.recall_k, float(np.mean(recall)), len(recall))
    return row | {"ci_low": low, "ci_high": high}


def write_metrics(night: Night, rows: list[Row]) -> None:
    """Replace this run's rows of `retrieval_metrics`, in one commit."""
    stamp = {"run_id": night.run_id, "measured_at": night.started_at}
    night.warehouse.replace("retrieval_metrics", [row | stamp for row in rows], {"run_id": night.run_id})


def _row(pool: Pool, metric: str, k: int, value: float, n: int | None) -> Row:
    return {"model_version": pool.model_version, "task": ITEMS, "slice": ALL, "metric": metric, "k": k, "value": value, "ci_low": None, "ci_high": None,
            "n_queries": n, "pool_size": pool.rows}  # fmt: skip


def _hide_queries(night: Night, queries: DataFrame) -> tuple[str, int]:
    """Write the positions of the queries that are no query's positive. Without `queries_in_pool` they are removed from the pool."""
    path = night.staging("evaluate", "hidden")
    positives = queries.select(F.explode("positives.position").alias("position"))
    queries.select("position").distinct().join(positives, "position", "left_anti").write.mode("overwrite").parquet(path)
    return path, night.spark.read.parquet(path).count()
