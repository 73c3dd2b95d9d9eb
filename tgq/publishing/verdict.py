"""The quality gate's verdict on a night: judged against floors and the last published run, staged, read again by publishing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from tgq.errors import GateError, UsageError
from tgq.index.generations import last_published
from tgq.index.pool import Pool
from tgq.metrics import gate
from tgq.metrics.metrics import ALL
from tgq.metrics.names import QUERY, metric_key
from tgq.publishing.catalog_change import catalog_change
from tgq.retrieval import manifest
from tgq.run.night import Night
from tgq.storage import artifacts

Row = dict[str, Any]


def read_verdict(night: Night) -> dict[str, Any]:
    """{"passed": bool, "reasons": [str], "notes": [str], "pool": digest of what was judged, "catalog_change": figures or None} of this run.

    Raises:
        UsageError: the run has not been evaluated.
    """
    path = night.staging("gate.json")
    if not artifacts.exists(path):
        raise UsageError(f"run {night.run_id} has no verdict of the gate", "run the evaluate step of this run first")
    return artifacts.read_json(path)


def refusal(verdict: dict[str, Any]) -> GateError | None:
    """The error of a refused night (exit code 3), or None if the gate passed it."""
    if verdict["passed"]:
        return None
    remedy = "the last good generation stays published"
    if (verdict.get("catalog_change") or {}).get("refused"):
        remedy += "; check the catalog, or run the night again with --accept-catalog-change if the change was planned"
    return GateError("the quality gate refused this night: " + "; ".join(verdict["reasons"]), remedy)


def verdict(night: Night, pool: Pool, rows: list[Row], has_pairs: bool, has_queries: bool) -> dict[str, Any]:
    """Judge the night against the floors and the last published run, and stage the verdict for `publish`.

    has_pairs, has_queries: whether there were relevance pairs, and search queries with judgments, to measure with.
    """
    settings, last, changes = night.settings.gate, last_published(night), None
    if not settings.enabled:
        judged = gate.Verdict(True, (), ("The gate is switched off.",))
    else:
        now = _values(row for row in rows if row["model_version"] == pool.model_version)
        absent = {} if has_pairs else dict.fromkeys(gate.RELEVANCE, "the catalog has no relevance pairs")
        if not has_queries:
            absent |= dict.fromkeys((QUERY + name for name in gate.OF_QUERIES), "the catalog has no search queries with judged items")
        if pool.rows <= 1:
            absent["ann_recall"] = f"a pool of {pool.rows} has no neighbours"
        judged = gate.judge(now, metrics_of(night, last) if last else None, settings.floors, settings.max_relative_drop, absent)
        if last and (change := catalog_change(night, pool, last)):
            of_change = gate.judge_change(change, settings.catalog_change)
            changes = _change_figures(change, of_change, last.run_id)
            accepted = tuple(f"accepted by gate.catalog_change.accept: {found}" for found in of_change.accepted)
            notes = (*accepted, *of_change.notes)
            for note in notes:
                night.progress.say(f"gate: {note}")
            judged = gate.Verdict(judged.passed and of_change.passed, (*of_change.reasons, *judged.reasons), (*notes, *judged.notes))
    result = {
        "passed": judged.passed, "reasons": list(judged.reasons), "notes": list(judged.notes), "pool": pool.digest, "catalog_change": changes,
    }  # fmt: skip
    artifacts.write_json(night.staging("gate.json"), result)
    return result


def metrics_of(night: Night, published: manifest.Manifest) -> dict[str, gate.MetricValue]:
    """The overall figures of a published run."""
    of_run = {"run_id": published.run_id, "model_version": published.model_version, "slice": ALL}
    return _values(night.warehouse.rows("retrieval_metrics", of_run))


def _change_figures(change: gate.CatalogChange, judged: gate.Verdict, against: str) -> dict[str, Any]:
    """Counts and shares as the verdict records them. `accepted`: what the operator accepted, in words; `refused`: whether it was refused."""
    shares = ("vanished_share", "changed_share", "quarantined_share", "last_quarantined_share")
    return {
        "against": against, **asdict(change), **{name: round(getattr(change, name), 6) for name in shares},
        "refused": not judged.passed, "accepted": list(judged.accepted),
    }  # fmt: skip


def _values(rows: Iterable[Row]) -> dict[str, gate.MetricValue]:
    """Overall figures by the metric names that settings use."""

    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {
        metric_key(row): gate.MetricValue(row["value"], number(row["ci_low"]), number(row["ci_high"]), row["n_queries"] or 0)
        for row in rows if row["slice"] == ALL
    }  # fmt: skip
