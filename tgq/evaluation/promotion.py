"""Promotion: a candidate encoder against the champion, on the validation queries, over the full pool of active items.

Both embed what they have no vectors of yet, both rank the same positives exactly, and the candidate becomes the champion unless it
is shown to be worse, overall or in a slice (`tgq.retrieval.comparison`). Test pairs are not looked at: nights are measured by them, and an encoder
that was chosen by them would flatter every later night. Nothing published moves; the next night embeds with the champion, and
finds the candidate's vectors there.

The pointer is the last to move. Killed before, the same command goes on with the vectors that were committed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.embedding.embed import embed, need_model
from tgq.embedding.plan import pending
from tgq.errors import EvidenceError, GateError, TrackingError, UsageError
from tgq.evaluation.evaluate import score
from tgq.evaluation.queries import validation_pairs, write_queries
from tgq.evaluation.scoring import MINUS
from tgq.publishing.pool import Pool, pool_members, write_pool
from tgq.publishing.verdict import Row, metric_key
from tgq.registry.champion import CHAMPION, Promotion, local_folder, read_history, store_encoder, write_history
from tgq.registry.loading import versions_of
from tgq.registry.selection import named_folder, with_encoder
from tgq.registry.tracking import Tracker, open_tracker
from tgq.retrieval.comparison import Difference, judge
from tgq.retrieval.metrics import ALL
from tgq.run.night import Night, StepResult
from tgq.run.opening import new_run_id
from tgq.run.records import git_commit, record, run_step
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder
from tgq.storage.paths import absolute

STEP = "promote"
METRICS = ("mrr", "hit_rate@10")
EXPERIMENT = "tgq-promotion"


@dataclass(frozen=True)
class Rivals:
    """Who is compared: model versions, and where the encoders are."""

    candidate: str
    candidate_folder: str
    champion: str
    champion_folder: str

    @property
    def same(self) -> bool:
        return self.candidate == self.champion


def need_champion(settings: Settings) -> None:
    """UsageError where nights would not embed with the champion, whoever that is."""
    if settings.encoder.path != CHAMPION:
        found = f"encoder.path is {settings.encoder.path}, so nights embed with that encoder and no champion"
        raise UsageError(found, f"leave the setting out, or give --set encoder.path={CHAMPION}")


def rivals_of(root: str, candidate: str) -> Rivals:
    """The candidate (a folder, or `default`) and the champion of a warehouse.

    Raises:
        ModelError: one of them is missing, incomplete, or was altered after it was promoted.
    """
    folders = named_folder(candidate), named_folder(read_history(root).reference(root))
    (first, _), (second, _) = map(versions_of, folders)
    return Rivals(first, folders[0], second, folders[1])


def rehearse(night: Night, rivals: Rivals) -> Iterator[str]:
    """What a promotion would compare, a line each; nothing is written."""
    limit = night.settings.evaluate.min_slice_queries
    yield f"candidate: model {rivals.candidate} in {rivals.candidate_folder}"
    yield f"champion: model {rivals.champion} in {rivals.champion_folder}"
    asked = validation_queries(night).agg(F.count("*").alias("queries"), F.countDistinct("group_id").alias("groups")).collect()[0]
    active = night.warehouse.read("catalog_items").where("is_active").count()
    yield f"queries: {asked['queries']} of {asked['groups']} validation groups, over a pool of {active} active items"
    for name, folder in (("candidate", rivals.candidate_folder), ("champion", rivals.champion_folder)):
        yield f"to embed for the {name}: {pending(night, *versions_of(folder)).count()} items"
    yield f"compared: {', '.join(METRICS)}, overall and in each slice of at least {limit} queries"
    if asked["queries"] < limit:
        yield str(too_few(night, asked["queries"]))


def promote(night: Night, rivals: Rivals, force: bool = False) -> dict[str, Any]:
    """Compare, tell MLflow, and make the candidate the champion if it is not worse. Everything that `--summary` writes.

    night: the last run, whose catalog the pictures come from.
    force: promote whatever the comparison says.

    Raises:
        EvidenceError: too few validation queries to compare by.
        TrackingError: MLflow does not answer; the champion stays.
    """
    night = begin(night, rivals)
    tracker = open_tracker(night.settings.tracking.model_copy(update={"experiment": EXPERIMENT}), night.warehouse.root)
    tags = {"git_commit": git_commit(), "candidate": rivals.candidate, "champion": rivals.champion}
    tracker.start(night.run_id, tags, night.started_at)
    try:
        found = run_step(night, STEP, lambda night: compare(night, rivals, force)).figures
        tracker.log_metrics(told(found))
        tracker.log_tags({name: found[name] for name in ("passed", "forced", "promoted")})
        tracker.log_json(found, "promotion.json")
    except Exception as error:
        tracker.log_tags({"error": str(error)[:500]})
        tracker.finish("FAILED")
        raise
    if found["promoted"]:
        crown(night, rivals, found, tracker)
    else:
        tracker.finish()
    for problem in tracker.problems:
        night.progress.say(f"MLflow: {problem}")
    remove_folder(night.staging())
    return {"run_id": night.run_id, **found, "mlflow_run": tracker.run}


def begin(night: Night, rivals: Rivals) -> Night:
    """The run of this comparison, the interrupted one of the same two where there is one: a row `running` until it ends."""
    evaluated = night.settings.evaluate.model_copy(update={"ks": (10,), "baselines": False})
    settings = with_encoder(night.settings, rivals.candidate_folder).model_copy(update={"evaluate": evaluated})
    detail = {"candidate": rivals.candidate, "champion": rivals.champion}
    runs = night.warehouse.read("pipeline_runs").where((F.col("step") == STEP) & (F.col("status") == "running"))
    for name, version in detail.items():
        runs = runs.where(F.get_json_object("detail", f"$.{name}") == version)
    found = runs.orderBy(F.desc("started_at")).first()
    now = datetime.now(timezone.utc)
    if found:
        night.progress.say(f"taking up run {found['run_id']}, which was interrupted")
        return replace(night, settings=settings, run_id=found["run_id"], started_at=found["started_at"].astimezone(timezone.utc))
    night = replace(night, settings=settings, run_id=new_run_id(now), started_at=now)
    record(night, STEP, "running", now, None, StepResult(figures=detail))
    return night


def compare(night: Night, rivals: Rivals, force: bool) -> StepResult:
    """Measure and judge; moves nothing."""
    options = night.settings.promote
    figures: dict[str, Any] = asdict(rivals)
    try:
        differences, measured = measure(night, rivals)
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
    return StepResult(rows_in=figures.get("queries"), figures=figures, status="done" if figures["promoted"] else "refused")


def measure(night: Night, rivals: Rivals) -> tuple[list[Difference], dict[str, Any]]:
    """Differences by metric and slice, overall first, and what they were measured on.

    Raises:
        EvidenceError: too few validation queries; found before anything is embedded, if possible.
    """
    need_queries(night, validation_queries(night).count())
    for folder in (rivals.champion_folder, rivals.candidate_folder):
        one = replace(night, settings=with_encoder(night.settings, folder))
        need_model(one)
        embed(one)
    pool, path = write_pool(night, rival=rivals.champion), night.staging("evaluate", "queries")
    totals = write_queries(night, pool, validation_pairs(night), path)
    need_queries(night, totals.queries)
    rows, figures = score(night, pool, totals)
    differences = [coverage(night, pool), *paired(rows, rivals)]
    return differences, {"queries": totals.queries, "pool_size": pool.rows, **figures}


def validation_queries(night: Night) -> DataFrame:
    """Active items that have an active positive among the validation pairs: query_item_id, group_id."""
    active = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    pairs = validation_pairs(night).where("weight > 0").join(active.withColumnsRenamed({"item_id": "positive_item_id"}), "positive_item_id")
    return pairs.join(active.withColumnsRenamed({"item_id": "query_item_id"}), "query_item_id").select("query_item_id", "group_id").distinct()


def need_queries(night: Night, queries: int) -> None:
    """Raises EvidenceError for fewer queries than a slice needs."""
    if queries < night.settings.evaluate.min_slice_queries:
        raise too_few(night, queries)


def too_few(night: Night, queries: int) -> EvidenceError:
    limit, share = night.settings.evaluate.min_slice_queries, night.settings.promote.share
    has = f"{queries} validation queries" if queries else "no validation queries"
    return EvidenceError(
        f"{night.warehouse.root} has {has}, and {limit} are needed (evaluate.min_slice_queries)",
        f"raise promote.share ({share:g}), give the catalog groups or links (pairs.source), or promote without a comparison by --force",
    )


def coverage(night: Night, pool: Pool) -> Difference:
    """Share of the active items that each has a vector of: what a candidate cannot embed, it must not gain by."""
    assert pool.rival is not None  # a promotion's pool holds both models' vectors
    candidate, champion = (pool_members(night, pool.versions, version).count() / pool.active for version in (pool.model_version, pool.rival))
    exact = candidate - champion
    return Difference(ALL, "coverage", candidate, champion, exact, exact, pool.active)


def paired(rows: list[Row], rivals: Rivals) -> list[Difference]:
    """The compared metrics of `score`'s rows, overall first, then by slice."""
    found = {(row["model_version"], row["slice"], metric_key(row)): row for row in rows}
    slices = sorted({row["slice"] for row in rows}, key=lambda name: (name != ALL, name))
    out = []
    for name in slices:
        for metric in METRICS:
            if between := found.get((MINUS + rivals.champion, name, metric)):
                candidate, champion = (found[system, name, metric] for system in (rivals.candidate, rivals.champion))
                out.append(Difference(name, metric, candidate["value"], champion["value"], between["ci_low"], between["ci_high"], between["n_queries"]))
    return out


def told(found: dict[str, Any]) -> dict[str, float]:
    """The overall figures as MLflow metrics."""
    out = {"queries": float(found.get("queries", math.nan))}
    for row in found["differences"]:
        if row["slice"] == ALL:
            name = row["metric"].replace("@", "_at_")
            out |= {name: row["candidate"], f"champion/{name}": row["champion"]}
            out |= {f"difference/{name}{end}": row[key] for end, key in (("", "difference"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high"))}
    return out


def crown(night: Night, rivals: Rivals, found: dict[str, Any], tracker: Tracker) -> None:
    """Make the candidate the champion: its files, MLflow's alias, and last the pointer.

    Raises:
        TrackingError: MLflow did not take the encoder; the alias and the champion would have parted.
    """
    root = night.warehouse.root
    hashes = store_encoder(root, local_folder(rivals.candidate_folder), rivals.candidate)
    register(tracker, rivals.candidate_folder, rivals.candidate)
    overall = [row for row in found["differences"] if row["slice"] == ALL]
    promotion = Promotion(
        model_version=rivals.candidate, promoted_at=now_text(), previous=rivals.champion, forced=found["forced"], files=hashes,
        figures={"queries": found.get("queries"), "differences": overall},
    )  # fmt: skip
    write_history(root, read_history(root).promoted(promotion))


def rollback_model(settings: Settings, to: str | None = None) -> str:
    """Make the champion before this one, or `to`, the champion again; its model version.

    Raises:
        WarehouseError: nothing was promoted, or `to` was not champion before.
        ModelError: its files are gone or were altered.
        TrackingError: MLflow does not answer; the champion stays.
    """
    root, now = absolute(settings.warehouse.path), datetime.now(timezone.utc)
    history = read_history(root).rolled_back(to, now_text())
    folder = named_folder(history.reference(root))
    version, _ = versions_of(folder)
    tracker = open_tracker(settings.tracking.model_copy(update={"experiment": EXPERIMENT}), root)
    tracker.start(new_run_id(now), {"rolled_back_to": version}, now)
    register(tracker, folder, version)
    write_history(root, history)
    return version


def register(tracker: Tracker, folder: str, model_version: str) -> None:
    """Move MLflow's alias and end the run.

    Raises:
        TrackingError: it could not be moved.
    """
    moved = tracker.publish_encoder(local_folder(folder), model_version) or not tracker.run
    problem = None if moved else tracker.problems[-1]
    tracker.finish("FAILED" if problem else "FINISHED")
    if problem:
        raise TrackingError(f"the champion stays, because of {problem}", "mend it, or set tracking.enabled=false")


def refusal(found: dict[str, Any]) -> GateError | None:
    """The no, as the error that ends the command with exit code 3."""
    if found["promoted"]:
        return None
    return GateError(f"{found['candidate']} is not promoted: " + "; ".join(found["reasons"]), "the champion stays; --force promotes all the same")


def now_text() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
