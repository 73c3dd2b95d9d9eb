"""Promotion: a candidate encoder is compared with the champion on the validation queries, over the full pool of active items.

First each encoder embeds the items that have no vector of its model yet. Then both rank the same positives exactly. The candidate
becomes the champion unless it is shown to be worse, overall or in a slice (`tgq.metrics.comparison`). Where there are search queries
with judgments, both rank the held-out ones too (`tgq.evaluation.rivals`); encoders that differ in their query towers alone are compared
by these only. Test pairs and test queries are not used: they measure nights, and an encoder chosen by them would make every later night
look better than it is. Nothing that is published changes. The next night embeds with the new champion and finds the candidate's vectors
in the table; a new query tower of the published model is used at once.

The champion pointer moves last. If the command is killed before that, running it again continues from the committed vectors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.embedding.embed import embed, need_model
from tgq.embedding.plan import pending
from tgq.errors import EvidenceError, GateError, TrackingError, UsageError
from tgq.evaluation.averages import MINUS
from tgq.evaluation.evaluate import score
from tgq.evaluation.queries import validation_pairs, write_queries
from tgq.evaluation.rivals import compare_searches, count_searches, need_unseen
from tgq.index.pool import Pool, pool_members, write_pool
from tgq.metrics.comparison import Difference, judge
from tgq.metrics.metrics import ALL
from tgq.metrics.names import metric_key
from tgq.publishing.verdict import Row
from tgq.registry.champion import CHAMPION, Promotion, encoder_name, local_folder, model_of, read_history, store_encoder, write_history
from tgq.registry.loading import need_query_tower, query_version_of, versions_of
from tgq.registry.selection import named_folder, with_encoder
from tgq.registry.tracking import Tracker, open_tracker
from tgq.retrieval.manifest import load_current
from tgq.run.night import Night, StepResult
from tgq.run.opening import new_run_id
from tgq.run.records import git_commit, record, run_step
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.paths import absolute

STEP = "promote"
METRICS = ("mrr", "hit_rate@10")  # of items that find items
SEARCHES = ("query_ndcg@10", "query_mrr")  # of search queries
EXPERIMENT = "tgq-promotion"


@dataclass(frozen=True)
class Contenders:
    """The two encoders of a comparison: their model versions and folders, and the versions of their query towers, empty without one."""

    candidate: str
    candidate_folder: str
    champion: str
    champion_folder: str
    candidate_queries: str = ""
    champion_queries: str = ""

    @property
    def names(self) -> tuple[str, str]:
        """The names of candidate and champion; see `encoder_name`."""
        return encoder_name(self.candidate, self.candidate_queries), encoder_name(self.champion, self.champion_queries)

    @property
    def same(self) -> bool:
        """Whether candidate and champion are one encoder with one query tower."""
        return self.names[0] == self.names[1]

    @property
    def same_items(self) -> bool:
        """Whether both give the same item embeddings, so that only their query towers differ."""
        return self.candidate == self.champion


def need_champion(settings: Settings) -> None:
    """Check that nights embed with the champion.

    Raises:
        UsageError: `encoder.path` names another encoder.
    """
    if settings.encoder.path != CHAMPION:
        found = f"encoder.path is {settings.encoder.path}, so nights embed with that encoder, whoever is champion"
        raise UsageError(found, f"leave the setting out, or give --set encoder.path={CHAMPION}")


def contenders_of(root: str, candidate: str) -> Contenders:
    """The candidate (a folder, or `default`) and the present champion of a warehouse.

    Raises:
        ModelError: one of them is missing, incomplete, or was altered after it was promoted, or has a query tower of another encoder.
    """
    folders = named_folder(candidate), named_folder(read_history(root).reference(root))
    for folder in folders:
        need_query_tower(folder)
    (first, _), (second, _) = map(versions_of, folders)
    return Contenders(first, folders[0], second, folders[1], *(query_version_of(folder) or "" for folder in folders))


def dry_run(night: Night, contenders: Contenders) -> Iterator[str]:
    """Lines that say what a promotion would compare. Nothing is written. Raises UsageError as `promote`."""
    need_unseen(night, contenders.candidate_folder)
    limit = night.settings.evaluate.min_slice_queries
    yield f"candidate: model {contenders.names[0]} in {contenders.candidate_folder}"
    yield f"champion: model {contenders.names[1]} in {contenders.champion_folder}"
    searches, metrics = count_searches(night), (*METRICS, *SEARCHES)
    if contenders.same_items:
        yield from (f"search queries: {searches} held-out ones", "the items are not compared, because both have the same item embeddings")
        yield f"compared: {', '.join(SEARCHES)}, overall and in each slice of at least {limit} queries"
        if searches < limit:
            yield str(too_few_searches(night, searches))
        return
    totals = validation_queries(night).agg(F.count("*").alias("queries"), F.countDistinct("group_id").alias("groups")).collect()[0]
    active = night.warehouse.read("catalog_items").where("is_active").count()
    yield f"queries: {totals['queries']} of {totals['groups']} validation groups, over a pool of {active} active items"
    for name, folder in (("candidate", contenders.candidate_folder), ("champion", contenders.champion_folder)):
        yield f"to embed for the {name}: {pending(night, *versions_of(folder)).count()} items"
    if searches:
        yield f"search queries: {searches} held-out ones" + ("" if searches >= limit else f", which are too few; {limit} are needed")
    yield f"compared: {', '.join(metrics if searches >= limit else METRICS)}, overall and in each slice of at least {limit} queries"
    if totals["queries"] < limit:
        yield str(too_few_queries(night, totals["queries"]))


def promote(night: Night, contenders: Contenders, force: bool = False) -> dict[str, Any]:
    """Compare both encoders, log the result to MLflow, and make the candidate the champion if it is not worse.

    Args:
        night: the last run; pictures are read from its catalog.
        force: promote whatever the comparison says.

    Returns:
        The figures that `--summary` writes.

    Raises:
        UsageError: the candidate's query tower was trained on queries that it would be compared on; see `need_unseen`.
        EvidenceError: too few validation queries for a comparison.
        TrackingError: MLflow does not answer; the champion stays.
    """
    need_unseen(night, contenders.candidate_folder)
    night = open_comparison(night, contenders)
    tracker = open_tracker(night.settings.tracking.model_copy(update={"experiment": EXPERIMENT}), night.warehouse.root)
    tags = {"git_commit": git_commit(), **dict(zip(("candidate", "champion"), contenders.names, strict=True))}
    tracker.start(night.run_id, tags, night.started_at)
    try:
        found = run_step(night, STEP, lambda night: judge_candidate(night, contenders, force)).figures
        tracker.log_metrics(mlflow_metrics(found))
        tracker.log_tags({name: found[name] for name in ("passed", "forced", "promoted")})
        tracker.log_json(found, "promotion.json")
    except Exception as error:
        tracker.log_tags({"error": str(error)[:500]})
        tracker.finish("FAILED")
        raise
    if found["promoted"]:
        apply_promotion(night, contenders, found, tracker)
    else:
        tracker.finish()
    for problem in tracker.problems:
        night.progress.say(f"MLflow: {problem}")
    remove_folder(night.staging())
    return {"run_id": night.run_id, **found, "mlflow_run": tracker.run}


def open_comparison(night: Night, contenders: Contenders) -> Night:
    """Begin a run of its own for this comparison, or continue the interrupted one of the same two encoders."""
    evaluated = night.settings.evaluate.model_copy(update={"ks": (10,), "baselines": False})
    settings = with_encoder(night.settings, contenders.candidate_folder).model_copy(update={"evaluate": evaluated})
    detail = {key: value for key, value in asdict(contenders).items() if not key.endswith("_folder")}
    now = datetime.now(timezone.utc)
    rows = night.warehouse.rows("pipeline_runs", {"step": STEP, "status": "running"}, "run_id", "started_at", "detail")
    same = [row for row in rows if detail.items() <= json.loads(row["detail"]).items()]
    if found := max(same, key=lambda row: row["started_at"], default=None):
        night.progress.say(f"continuing run {found['run_id']}, which was interrupted")
        return replace(night, settings=settings, run_id=found["run_id"], started_at=found["started_at"])
    night = replace(night, settings=settings, run_id=new_run_id(now), started_at=now)
    record(night, STEP, "running", now, None, StepResult(figures=detail))
    return night


def judge_candidate(night: Night, contenders: Contenders, force: bool) -> StepResult:
    """Compare and judge. The champion does not change here."""
    options = night.settings.promote
    figures: dict[str, Any] = asdict(contenders) | {"names": contenders.names}
    try:
        differences, measured = compare_metrics(night, contenders)
        reasons = judge(differences, options.margin).reasons
    except EvidenceError as error:
        if not force:
            raise
        differences, measured, reasons = [], {}, (str(error),)
    passed = not reasons
    figures |= measured | {
        "differences": [
            asdict(d) | {"difference": d.value, "worse": d.worse(options.margin)} for d in differences
        ],
        "passed": passed, "reasons": list(reasons), "forced": force and not passed, "promoted": passed or force,
    }  # fmt: skip
    return StepResult(rows_in=figures.get("queries", figures.get("searches")), figures=figures, status="done" if figures["promoted"] else "refused")


def compare_metrics(night: Night, contenders: Contenders) -> tuple[list[Difference], dict[str, Any]]:
    """Embed with both encoders and compare their metrics: of items, and of search queries where enough are held out.

    Returns:
        The differences by metric and slice, overall first, and figures about the comparison.

    Raises:
        EvidenceError: too few validation queries. This is checked before anything is embedded, as far as possible.
        ModelError: as `need_model`.
    """
    searches, limit = count_searches(night), night.settings.evaluate.min_slice_queries
    if not contenders.same_items:
        require_queries(night, validation_queries(night).count())
    elif searches < limit:
        raise too_few_searches(night, searches)
    for folder in (contenders.champion_folder, contenders.candidate_folder)[contenders.same_items :]:
        one = replace(night, settings=with_encoder(night.settings, folder))
        need_model(one)
        embed(one)
    pool = write_pool(night, rival=contenders.champion)
    differences, figures = ([], {"pool_size": pool.rows}) if contenders.same_items else compare_items(night, pool, contenders)
    if searches >= limit:
        rows, more = compare_searches(night, pool, contenders.champion_folder, contenders.names)
        differences, figures = [*differences, *metric_differences(rows, *contenders.names, SEARCHES)], figures | more
    elif searches:
        night.progress.say(f"the {searches} held-out search queries are too few for a comparison; {limit} are needed (evaluate.min_slice_queries)")
    return differences, figures


def compare_items(night: Night, pool: Pool, contenders: Contenders) -> tuple[list[Difference], dict[str, Any]]:
    """Compare both encoders' coverage and how well items find items. Raises EvidenceError for too few validation queries in the pool."""
    totals = write_queries(night, pool, validation_pairs(night), night.staging("evaluate", "queries"))
    require_queries(night, totals.queries)
    rows, figures = score(night, pool, totals)
    differences = [coverage_difference(night, pool), *metric_differences(rows, contenders.candidate, contenders.champion, METRICS)]
    return differences, {"queries": totals.queries, "pool_size": pool.rows, **figures}


def validation_queries(night: Night) -> DataFrame:
    """Active items that have an active positive among the validation pairs: query_item_id, group_id."""
    active = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    pairs = validation_pairs(night).where("weight > 0").join(active.withColumnsRenamed({"item_id": "positive_item_id"}), "positive_item_id")
    return pairs.join(active.withColumnsRenamed({"item_id": "query_item_id"}), "query_item_id").select("query_item_id", "group_id").distinct()


def require_queries(night: Night, queries: int) -> None:
    """Raise EvidenceError for fewer queries than `evaluate.min_slice_queries`."""
    if queries < night.settings.evaluate.min_slice_queries:
        raise too_few_queries(night, queries)


def too_few_queries(night: Night, queries: int) -> EvidenceError:
    """The error for too few validation queries."""
    limit, share = night.settings.evaluate.min_slice_queries, night.settings.promote.share
    has = f"{queries} validation queries" if queries else "no validation queries"
    return EvidenceError(
        f"{night.warehouse.root} has {has}, and {limit} are needed (evaluate.min_slice_queries)",
        f"raise promote.share ({share:g}), give the catalog groups or links (pairs.source), or promote without a comparison by --force",
    )


def too_few_searches(night: Night, searches: int) -> EvidenceError:
    """The error for too few held-out search queries, where nothing else tells two query towers apart."""
    limit, share = night.settings.evaluate.min_slice_queries, night.settings.promote.share
    has = f"{searches} held-out search queries" if searches else "no held-out search queries"
    return EvidenceError(
        f"{night.warehouse.root} has {has} with judgments, and {limit} are needed to compare query towers (evaluate.min_slice_queries)",
        f"raise promote.share ({share:g}), give more judged queries (queries.path), or promote without a comparison by --force",
    )


def coverage_difference(night: Night, pool: Pool) -> Difference:
    """Share of the active items that each model has a vector of. A candidate must not gain by leaving items out."""
    assert pool.rival is not None  # a promotion's pool holds both models' vectors
    candidate, champion = (pool_members(night, pool.versions, version).count() / pool.active for version in (pool.model_version, pool.rival))
    exact = candidate - champion
    return Difference(ALL, "coverage", candidate, champion, exact, exact, pool.active)


def metric_differences(rows: list[Row], candidate: str, champion: str, metrics: Sequence[str]) -> list[Difference]:
    """Differences between two systems in these metrics, from the rows of `named_rows`: overall first, then by slice."""
    found = {(row["model_version"], row["slice"], metric_key(row)): row for row in rows}
    slices = sorted({row["slice"] for row in rows}, key=lambda name: (name != ALL, name))
    out = []
    for name in slices:
        for metric in metrics:
            if between := found.get((MINUS + champion, name, metric)):
                one, other = (found[system, name, metric]["value"] for system in (candidate, champion))
                out.append(Difference(name, metric, one, other, between["ci_low"], between["ci_high"], between["n_queries"]))
    return out


def mlflow_metrics(found: dict[str, Any]) -> dict[str, float]:
    """The overall figures of a comparison as MLflow metrics."""
    out = {name: float(found.get(name, math.nan)) for name in ("queries", "searches")}
    for row in found["differences"]:
        if row["slice"] == ALL:
            name = row["metric"].replace("@", "_at_")
            out |= {name: row["candidate"], f"champion/{name}": row["champion"]}
            out |= {f"difference/{name}{end}": row[key] for end, key in (("", "difference"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high"))}
    return out


def apply_promotion(night: Night, contenders: Contenders, found: dict[str, Any], tracker: Tracker) -> None:
    """Make the candidate the champion: copy its files, move MLflow's alias, and last the champion pointer.

    Raises:
        TrackingError: MLflow did not register the encoder, so alias and champion would differ. The champion stays.
    """
    root = night.warehouse.root
    hashes = store_encoder(root, local_folder(contenders.candidate_folder), contenders.names[0])
    register(tracker, contenders.candidate_folder, contenders.candidate, contenders.candidate_queries)
    overall = [row for row in found["differences"] if row["slice"] == ALL]
    promotion = Promotion(
        model_version=contenders.candidate, promoted_at=utc_now(), previous=contenders.names[1], forced=found["forced"], files=hashes,
        figures={"queries": found.get("queries"), "searches": found.get("searches"), "differences": overall}, query_version=contenders.candidate_queries,
    )  # fmt: skip
    write_history(root, read_history(root).promoted(promotion))


def rollback_model(settings: Settings, to: str | None = None) -> str:
    """Make the previous champion, or `to`, the champion again. Returns its name; see `encoder_name`.

    Raises:
        WarehouseError: nothing was promoted, or `to` was not champion before.
        ModelError: its files are gone or were altered.
        TrackingError: MLflow does not answer; the champion stays.
    """
    root, now = absolute(settings.warehouse.path), datetime.now(timezone.utc)
    history = read_history(root).rolled_back(to, utc_now())
    folder = named_folder(history.reference(root))
    (version, _), queries = versions_of(folder), query_version_of(folder) or ""
    name = encoder_name(version, queries)
    tracker = open_tracker(settings.tracking.model_copy(update={"experiment": EXPERIMENT}), root)
    tracker.start(new_run_id(now), {"rolled_back_to": name}, now)
    register(tracker, folder, version, queries)
    write_history(root, history)
    return name


def effect_of(root: str, before: str, now: str) -> str:
    """What it means that the champion `now` takes the place of `before`; both are names of `encoder_name`."""
    if model_of(before) != model_of(now):
        return "the next nightly run embeds with it"
    published = load_current(root)
    at_once = published is not None and published.model_version == model_of(now)
    return "searches use it at once" if at_once else "searches use it as soon as a night has published its item embeddings"


def register(tracker: Tracker, folder: str, model_version: str, query_version: str) -> None:
    """Register the encoder and its query tower, move MLflow's aliases to them, and end the run.

    Raises:
        TrackingError: an alias could not be moved.
    """
    place = local_folder(folder)
    moved = tracker.publish_query_tower(place, query_version) is not None and tracker.publish_encoder(place, model_version, query_version=query_version)
    problem = None if moved or not tracker.run else tracker.problems[-1]
    tracker.finish("FAILED" if problem else "FINISHED")
    if problem:
        raise TrackingError(f"the champion stays, because of {problem}", "repair MLflow, or set tracking.enabled=false")


def refusal(found: dict[str, Any]) -> GateError | None:
    """The error of a refused promotion (exit code 3), or None for a promoted one."""
    if found["promoted"]:
        return None
    return GateError(f"{found['names'][0]} is not promoted: " + "; ".join(found["reasons"]), "the champion stays; --force promotes all the same")


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
