"""Figures of an earlier run that measured the same: an unchanged night does not rank the same queries in the same pool again.

Every run keeps its figures beside its report, with a key of all that decides them. Cost: a file of a row per slice, metric and system.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tgq.index.generations import last_published
from tgq.index.pool import Pool
from tgq.publishing.verdict import Row
from tgq.registry.loading import query_version_of
from tgq.retrieval.shards import ShardFile
from tgq.run.night import Night
from tgq.storage.files import Files

FORMAT = 3  # to be raised when the same inputs and settings give other figures


@dataclass(frozen=True)
class Measured:
    """The result of an evaluation, before the gate judges it."""

    queries: int  # items that find items
    searches: int  # search queries
    rows: list[Row]  # as in `retrieval_metrics`, without the run, and the differences to the baselines
    figures: dict[str, Any]
    examples: list[dict[str, Any]]  # search queries that are answered best and worst; see `tgq.evaluation.search.examples`


def key_of(night: Night, pool: Pool, shards: Sequence[ShardFile]) -> str:
    """Key of an evaluation, 16 hex digits: a hash of all that decides its figures."""
    settings, versions = night.settings, pool.versions | night.warehouse.versions("relevance_pairs", "relevance_queries", "query_judgments")
    parts = [
        FORMAT, pool.model_version, pool.tower_version, pool.digest, versions, sorted(file.members_digest for file in shards),
        settings.evaluate.model_dump(mode="json"), list(settings.catalog.slice_columns), settings.index.recall_k,
        query_version_of(night.model_folder), settings.queries.irrelevant_grade, settings.queries.relevant_grade,
        settings.report.strips, settings.report.strip_neighbors,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def measured_before(night: Night, key: str) -> Measured | None:
    """The figures of the last published run; None if it measured something else, or its file is gone."""
    last = last_published(night)
    kept = _kept(night, last.run_id) if last else {}
    return Measured(**{name: kept[name] for name in Measured.__dataclass_fields__}) if kept.get("key") == key else None


def search_examples(night: Night) -> list[dict[str, Any]]:
    """The example search queries that this run measured or took over; none before its evaluation, and of runs of earlier versions."""
    examples: list[dict[str, Any]] = _kept(night, night.run_id).get("examples", [])
    return examples


def keep(night: Night, key: str, found: Measured) -> None:
    """Write the figures of this run."""
    Files(night.warehouse.root).write(_file(night.run_id), json.dumps({"key": key, **asdict(found)}).encode())


def _kept(night: Night, run_id: str) -> dict[str, Any]:
    """What `keep` has written for a run; empty if there is nothing."""
    try:
        kept: dict[str, Any] = json.loads(Files(night.warehouse.root).read(_file(run_id)))
    except FileNotFoundError:
        return {}
    return kept


def _file(run_id: str) -> str:
    return f"reports/{run_id}/evaluation.json"
