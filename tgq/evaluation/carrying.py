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
from tgq.retrieval.shards import ShardFile
from tgq.run.night import Night
from tgq.storage.files import Files

FORMAT = 1  # to be raised when the same inputs and settings give other figures


@dataclass(frozen=True)
class Measured:
    """The result of an evaluation, before the gate judges it."""

    queries: int
    rows: list[Row]  # as in `retrieval_metrics`, without the run, and the differences to the baselines
    figures: dict[str, Any]


def key_of(night: Night, pool: Pool, shards: Sequence[ShardFile]) -> str:
    """Key of an evaluation, 16 hex digits: a hash of all that decides its figures."""
    settings, versions = night.settings, pool.versions | night.warehouse.versions("relevance_pairs")
    parts = [
        FORMAT, pool.model_version, pool.tower_version, pool.digest, versions, sorted(file.members_digest for file in shards),
        settings.evaluate.model_dump(mode="json"), list(settings.catalog.slice_columns), settings.index.recall_k,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def measured_before(night: Night, key: str) -> Measured | None:
    """The figures of the last published run; None if it measured something else, or its file is gone."""
    last = last_published(night)
    if last is None:
        return None
    try:
        kept = json.loads(Files(night.warehouse.root).read(_file(last.run_id)))
    except FileNotFoundError:
        return None
    return Measured(kept["queries"], kept["rows"], kept["figures"]) if kept["key"] == key else None


def keep(night: Night, key: str, found: Measured) -> None:
    """Write the figures of this run."""
    Files(night.warehouse.root).write(_file(night.run_id), json.dumps({"key": key, **asdict(found)}).encode())


def _file(run_id: str) -> str:
    return f"reports/{run_id}/evaluation.json"
