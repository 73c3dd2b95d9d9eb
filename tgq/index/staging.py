"""The result of a run's index step, staged until it is published."""

from __future__ import annotations

from typing import Any

from tgq.errors import UsageError
from tgq.retrieval.shards import ShardFile
from tgq.run.night import Night
from tgq.storage import artifacts


def staged_index(night: Night) -> dict[str, Any]:
    """The staged shards, and the pool (digest and Delta versions) that they were built from.

    Raises:
        UsageError: nothing is staged.
    """
    path = night.staging("index", "manifest.json")
    if not artifacts.exists(path):
        raise UsageError(f"run {night.run_id} has no staged shards", "run the index step of this run first")
    return artifacts.read_json(path)


def staged_shards(night: Night) -> list[ShardFile] | None:
    """The staged shards of this run; None before the index step."""
    path = night.staging("index", "manifest.json")
    return [ShardFile(**file) for file in artifacts.read_json(path)["shards"]] if artifacts.exists(path) else None
