"""The effect of nuisances on the published night: retrieval with clean and disturbed items as queries over the full pool.

A sample of the published items, those with relevance pairs first, is embedded clean and under every nuisance. Each view is a query
that ranks the whole pool exactly (`evaluate.queries_in_pool` is ignored), in two ways: does it find the item's positives, and does it
find the item itself. The second needs no pairs. Differences are paired: same items, same bootstrap weights.

No table changes. Cost: items x (nuisances + 1) passes of the encoder, twice as many queries x pool inner products, and one write
of the pool. The driver gets a row of numbers per view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq.catalog.enriched import as_read
from tgq.catalog.reading.location import folder_of
from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.executor.worker import EmbedWorker
from tgq.errors import SourceError, UsageError, WarehouseError
from tgq.evaluation.queries import evaluated_pairs, write_queries
from tgq.evaluation.ragged import QUERIES, passes
from tgq.evaluation.scoring import Scoring
from tgq.index.pool import IMAGE_CODE, MAIN, Pool, excluded_code, gather_vectors, item_frame, list_matrix, write_pool
from tgq.index.search import need_encoder, need_published
from tgq.metrics.bootstrap import interval, partial
from tgq.metrics.metrics import Metric
from tgq.nuisances import Nuisance, chosen
from tgq.registry.tracking import Tracker, open_tracker
from tgq.retrieval.manifest import Manifest
from tgq.robustness.rendering import CLEAN, COLUMNS, write_donors
from tgq.robustness.worker import NOT_APPLICABLE, VIEWS, ViewEncoder
from tgq.run.job_progress import job_progress
from tgq.run.night import RUN_STEP, Night
from tgq.run.opening import latest, new_run_id, with_catalog
from tgq.run.progress import Progress
from tgq.run.records import git_commit
from tgq.settings.sections import EvaluateSettings, Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.warehouse import Warehouse

TASK_ITEMS = 32
CUTOFFS = (1, 10)
PAIRS, ITSELF = "hit_rate", "finds_itself"  # a view's two targets: the item's positives, and the item itself
FIGURES = {"cosine", *(f"{kind}@{k}" for kind in (PAIRS, ITSELF) for k in CUTOFFS)}
EXPERIMENT = "tgq-robustness"
RANKS = "item_id string, view string, kind string, group_key long, cosine double, published double, at_1 double, at_10 double"

Report = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to measure, checked as far as possible without Spark."""

    published: Manifest
    encoder: str  # its folder
    nuisances: tuple[Nuisance, ...]
    items: int  # at most
    seed: int

    @classmethod
    def of(cls, settings: Settings, names: Sequence[str], items: int, seed: int) -> Plan:
        """Raises:
        UsageError: a nuisance that is not known.
        WarehouseError: nothing is published.
        ModelError: the configured encoder is not the published one, or cannot be loaded.
        """
        nuisances, published = chosen(names), need_published(settings)
        return cls(published, need_encoder(settings, published), nuisances, items, seed)

    def lines(self) -> Iterator[str]:
        """Lines that describe the plan."""
        pool = sum(shard.n_items for shard in self.published.shards)
        items = min(self.items, pool)
        yield f"published: run {self.published.run_id}, model {self.published.model_version}, {pool} items"
        yield f"would embed {items} items (seed {self.seed}) clean and disturbed, up to {items * (1 + len(self.nuisances))} views:"
        width = max(len(nuisance.name) for nuisance in self.nuisances)
        for nuisance in self.nuisances:
            yield f"  {nuisance.name:<{width}}  {nuisance.text}"
        yield f"would rank each exactly among the {pool} items, for its relevant items and for itself; no table would change"


def measure(spark: SparkSession, settings: Settings, plan: Plan, progress: Progress) -> Report:
    """Measure the published night under the plan's nuisances. Returns the report, see `report_of`.

    Raises:
        WarehouseError: there are no tables, or they are not the published ones.
        UsageError: no sampled item has a picture, and a nuisance of pictures was asked for.
        SourceError: no sampled item could be embedded.
        TrackingError: MLflow does not answer. It is asked before the work begins.
    """
    night = _night(spark, settings, plan, progress)
    tracker = _tracker(night, plan)
    ended = "FAILED"
    try:
        pool = write_pool(night, published=plan.published.tables)
        sample = write_sample(night, plan, pool)
        views = embed_views(night, plan, sample)
        report = {"run_id": night.run_id, **report_of(night.settings.evaluate, plan, pool, rank(night, pool, sample, views), failures(views))}
        _log(tracker, report)
        ended = "FINISHED"
    finally:
        tracker.finish(ended)
        remove_folder(night.staging())
    for problem in tracker.problems:
        progress.say(f"MLflow: {problem}")
    return report | {"mlflow_run": tracker.run}


def _night(spark: SparkSession, settings: Settings, plan: Plan, progress: Progress) -> Night:
    """A run of its own over the published night's catalog. It writes no rows to the tables."""
    warehouse, now = Warehouse(spark, settings.warehouse, create=False), datetime.now(timezone.utc)
    if began := latest(warehouse, {"run_id": plan.published.run_id, "step": RUN_STEP}):
        settings = with_catalog(settings, began["detail"])
    evaluate = settings.evaluate.model_copy(update={"baselines": False, "max_queries": None})
    settings = settings.model_copy(update={"evaluate": evaluate})
    return Night(spark, settings, warehouse, f"robustness-{new_run_id(now)}", now, progress)


def write_sample(night: Night, plan: Plan, pool: Pool) -> DataFrame:
    """Write the sampled items with their positives, and the donors, as Parquet to staging. Returns the sample.

    Items with relevance pairs come first, so that rare pairs in a large catalog are not missed. Within both kinds a hash of id and
    seed decides. Columns: COLUMNS, place (position in the pool), image_code, category_code, group_key, positives and ignored
    (null where the item has no pairs).

    Raises:
        WarehouseError: the published pool is empty.
        UsageError: no item has a picture, but a nuisance needs one.
    """
    version = pool.versions["catalog_items"]
    queries, folder = night.staging("queries"), night.staging("sample")
    write_queries(night, pool, evaluated_pairs(night), queries)
    asked = night.spark.read.parquet(queries).selectExpr("query_item_id AS item_id", "group_key", "positives", "ignored")
    code = excluded_code(night.settings.evaluate) or IMAGE_CODE
    places = item_frame(night, pool).selectExpr("item_id", "position AS place", f"{code} AS image_code", "category_code")
    items = as_read(night.warehouse.read("catalog_items", version)).where("is_active").select(*COLUMNS)
    has_picture = F.col("image_uri").isNotNull() | F.col("image_bytes").isNotNull()

    order = F.col("positives").isNull(), F.xxhash64("item_id", F.lit(f"sample {plan.seed}")), "item_id"
    drawn = places.join(asked, "item_id", "left").orderBy(*order).limit(plan.items).select("item_id")
    sample = items.join(places.join(drawn, "item_id"), "item_id").join(asked, "item_id", "left")
    sample = sample.withColumn("group_key", F.coalesce("group_key", F.xxhash64(F.coalesce("group_id", "item_id"))))
    sample.write.mode("overwrite").parquet(folder)
    write_donors(items.join(places, "item_id", "left_semi"), night.staging("donors"), plan.seed)

    sample = night.spark.read.parquet(folder)
    counts = sample.agg(F.count("*").alias("items"), F.count(F.when(has_picture, 1)).alias("pictures")).collect()[0]
    if not counts["items"]:
        raise WarehouseError(f"generation {plan.published.generation} has no items", "publish a night with items first")
    if not counts["pictures"] and any(nuisance.disturbs == "picture" for nuisance in plan.nuisances):
        raise UsageError(f"none of the {counts['items']} sampled items has a picture", "name nuisances of the metadata: --nuisance wrong_title")
    return sample


def embed_views(night: Night, plan: Plan, sample: DataFrame) -> DataFrame:
    """Build and embed the views. Stages VIEWS as Parquet and returns it."""
    embed = EmbedWorker.of(night.settings, plan.encoder, folder_of(night.spark, night.settings.catalog))
    names = tuple(nuisance.name for nuisance in plan.nuisances)
    view_encoder = ViewEncoder(embed, night.settings.metadata, names, plan.seed, night.staging("donors"))
    total = sample.count()
    tasks = sample.select(*COLUMNS).repartition(-(-total // TASK_ITEMS), "item_id")
    with job_progress(night, f"embed under {len(names)} nuisances", total) as done:

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in view_encoder.run(batches):
                done.add(pc.sum(pc.equal(batch["view"], CLEAN)).as_py())
                yield batch

        with preloaded(night.spark.sparkContext):
            embedded = tasks.mapInArrow(run, VIEWS)
        embedded.write.mode("overwrite").parquet(night.staging("views"))
    return night.spark.read.parquet(night.staging("views"))


def rank(night: Night, pool: Pool, sample: DataFrame, views: DataFrame) -> pa.Table:
    """RANKS of every view that has a vector and whose clean view has one, beside `clean_at_1` and `clean_at_10` of the same kind."""
    place = F.struct(F.col("place").alias("position"), "category_code", F.lit(1.0).cast("float").alias("weight"))
    pairs = sample.where("positives IS NOT NULL").select(
        "item_id", "group_key", "place", "category_code", F.lit(PAIRS).alias("kind"), F.col("place").alias("position"), "image_code",
        "positives", "ignored",
    )  # fmt: skip
    # a query without pool position and picture is not excluded from its own results, so an item can find itself
    itself = sample.select(
        "item_id", "group_key", "place", "category_code", F.lit(ITSELF).alias("kind"), F.lit(-1).cast("long").alias("position"),
        F.lit(0).cast("long").alias("image_code"), F.array(place).alias("positives"),
        F.filter(F.array(place), lambda _: F.lit(False)).alias("ignored"),
    )  # fmt: skip
    embedded = views.where("embedding IS NOT NULL").select("item_id", "view", "embedding")
    clean = embedded.where(F.col("view") == CLEAN).select("item_id", F.col("embedding").alias("clean"))
    all_queries = pairs.unionByName(itself).join(embedded.join(clean, "item_id"), "item_id")
    scoring = Scoring(pool, (MAIN,), CUTOFFS, excluded_code(night.settings.evaluate))

    def ranks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for queries in passes(batches):
            vectors, clean = list_matrix(queries["embedding"]), list_matrix(queries["clean"])
            values, columns = scoring.values(queries, vectors)
            own = gather_vectors(pool, MAIN, queries["place"].to_numpy())
            hits = [pa.array(values[:, columns.index(Metric("hit_rate", k))]) for k in CUTOFFS]
            cosines = [pa.array(np.einsum("qd,qd->q", vectors, other).astype(np.float64)) for other in (clean, own)]
            result = pa.table([*(queries[name] for name in ("item_id", "view", "kind", "group_key")), *cosines, *hits], names=names)
            yield from result.to_batches()

    names = [field.split()[0] for field in RANKS.split(", ")]
    total = all_queries.count()
    tasks = max(min(night.spark.sparkContext.defaultParallelism, -(-total // 64)), -(-total // QUERIES), 1)
    with job_progress(night, "rank", total) as done:

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in ranks(batches):
                done.add(batch.num_rows)
                yield batch

        folder = night.staging("ranks")
        all_queries.repartition(tasks, "item_id", "view", "kind").mapInArrow(run, RANKS).write.mode("overwrite").parquet(folder)
    found = night.spark.read.parquet(folder)
    before = found.where(F.col("view") == CLEAN).selectExpr("item_id", "kind", "at_1 AS clean_at_1", "at_10 AS clean_at_10")
    return found.join(before, ["item_id", "kind"]).orderBy("view", "kind", "item_id").toArrow()


def failures(views: DataFrame) -> pa.Table:
    """(item_id, view, reason, detail) of every view without a vector, sorted by item id."""
    return views.where("embedding IS NULL").select("item_id", "view", "reason", "detail").orderBy("item_id", "view").toArrow()


def report_of(options: EvaluateSettings, plan: Plan, pool: Pool, ranks: pa.Table, without: pa.Table) -> Report:
    """The result as JSON-able values.

    clean: the clean views' own rates, and their mean cosine to the published vectors (1 where settings and pictures are still
    those of the night). nuisances, by name: items that have a vector under it, queries with pairs among them, items to which it
    does not apply, cosine to the clean view, and for `hit_rate` and `finds_itself` at each cutoff the rate of the same queries clean and
    noisy and their difference with its interval. unreadable: every item that has no clean vector, with the reason; failed: every
    other view that has none.

    Raises:
        SourceError: no item has a clean vector.
    """
    missing = [row for row in without.to_pylist() if row["reason"] != NOT_APPLICABLE]
    unreadable = [{k: row[k] for k in ("item_id", "reason", "detail")} for row in missing if row["view"] == CLEAN]
    lost = {row["item_id"] for row in unreadable}
    own = ranks.filter(pc.equal(ranks["view"], CLEAN))
    alone = own.filter(pc.equal(own["kind"], ITSELF))
    if not alone.num_rows:
        reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(row["reason"] for row in unreadable).most_common())
        found = f"none of the {len(unreadable)} sampled items can be embedded ({reasons})"
        raise SourceError(found, "check that the pictures are where they were, images.allowed_roots and allowed_hosts")
    skipped = Counter(row["view"] for row in without.to_pylist() if row["reason"] == NOT_APPLICABLE)
    clean = {f"{kind}@{k}": _mean(own.filter(pc.equal(own["kind"], kind))[f"at_{k}"]) for kind in (PAIRS, ITSELF) for k in CUTOFFS}
    nuisances = {}
    for nuisance in plan.nuisances:
        result = figures(ranks.filter(pc.equal(ranks["view"], nuisance.name)), options)
        nuisances[nuisance.name] = {"text": nuisance.text, "disturbs": nuisance.disturbs, "not_applicable": skipped[nuisance.name], **result}
    return {
        "published_run": plan.published.run_id, "model_version": plan.published.model_version, "pool_size": pool.rows, "seed": plan.seed,
        "split": options.split, "level": options.level, "items": alone.num_rows + len(unreadable), "embedded": alone.num_rows,
        "queries": own.num_rows - alone.num_rows, "clean": clean | {"cosine_to_published": _mean(alone["published"])},
        "nuisances": nuisances, "unreadable": unreadable,
        "failed": [row for row in missing if row["view"] != CLEAN and row["item_id"] not in lost],
    }  # fmt: skip


def figures(ranks: pa.Table, options: EvaluateSettings) -> Report:
    """Of one nuisance's RANKS: counts, cosine, and for each kind and cutoff {clean, noisy, drop, ci_low, ci_high}.

    The interval is of the drop's mean, bootstrapped by group over the paired differences. A kind without queries is left out.
    """
    kinds = {kind: ranks.filter(pc.equal(ranks["kind"], kind)) for kind in (PAIRS, ITSELF)}
    result: Report = {"items": kinds[ITSELF].num_rows, "queries": kinds[PAIRS].num_rows}
    for kind, rows in kinds.items():
        if not rows.num_rows:
            continue
        rates = {k: tuple(rows[name].to_numpy() for name in (f"clean_at_{k}", f"at_{k}")) for k in CUTOFFS}
        values = np.stack([clean - noisy for clean, noisy in rates.values()] + [rows["cosine"].to_numpy()], axis=1)
        keys = rows["group_key"].to_numpy().view(np.uint64)
        low, high = interval(partial(values, keys, options.replicates, options.seed), options.level)
        mean = values.mean(axis=0)
        if kind == ITSELF:  # this kind has every item, so its cosine is the mean over all
            result["cosine"] = {"mean": float(mean[-1]), "ci_low": float(low[-1]), "ci_high": float(high[-1])}
        for n, (k, (clean, noisy)) in enumerate(rates.items()):
            result[f"{kind}@{k}"] = {
                "clean": float(clean.mean()), "noisy": float(noisy.mean()), "drop": float(mean[n]),
                "ci_low": float(low[n]), "ci_high": float(high[n]),
            }  # fmt: skip
    return result


def metrics_of(report: Report) -> dict[str, float]:
    """The report's numbers by MLflow's names: `robustness/<nuisance>/hit_rate_at_10_drop`."""
    out = {f"clean/{figure}": value for figure, value in report["clean"].items() if value is not None}
    for name, result in report["nuisances"].items():
        out[f"{name}/items"] = result["items"]
        for figure in FIGURES & result.keys():
            out |= {f"{name}/{figure}_{part}": number for part, number in result[figure].items()}
    return {f"robustness/{name.replace('@', '_at_')}": number for name, number in out.items()}


def _mean(column: pa.ChunkedArray) -> float | None:
    return pc.mean(column).as_py()


def _tracker(night: Night, plan: Plan) -> Tracker:
    tracker = open_tracker(night.settings.tracking.model_copy(update={"experiment": EXPERIMENT}), night.warehouse.root)
    tags = {"git_commit": git_commit(), "published_run": plan.published.run_id, "model_version": plan.published.model_version}
    tracker.start(night.run_id, tags, night.started_at)
    return tracker


def _log(tracker: Tracker, report: Report) -> None:
    tracker.log_params({name: report[name] for name in ("items", "seed", "split", "pool_size")})
    tracker.log_metrics(metrics_of(report))
    tracker.log_json(report, "robustness.json")
