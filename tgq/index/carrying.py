"""The pool and the shards of the last published run, taken over by a run that would make the same.

Every run keeps a description of its pool and the list of its shards beside its report, with keys of all that decides them. A night without
changes then neither shuffles the vectors nor hashes the members of the shards. Cost: a file of a line per block and shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tgq.index.generations import last_published
from tgq.index.pool import Pool, pool_from_json, source_of, write_pool, written_pool
from tgq.retrieval.shards import ShardFile
from tgq.run.night import Night
from tgq.storage import artifacts
from tgq.storage.files import Files

FORMAT = 1  # to be raised when the same tables, model and settings give another pool or other shards


def find_pool(night: Night) -> Pool:
    """The night's pool. If the last published run had the same one, only its description: `write_pool` writes the files of its blocks.

    Raises:
        WarehouseError: embeddings of one model have different widths.
    """
    source = source_of(night)
    if found := written_pool(night, source):
        return found
    before = _kept(night)
    if before and (pool := pool_from_json(before["pool"])).is_from(source):
        return dataclasses.replace(pool, folder=night.staging("pool"))
    return write_pool(night)


def index_key(night: Night, pool: Pool, build_format: int) -> str:
    """Key of a list of shards, 16 hex digits: a hash of all that decides them. Table versions are part of it, because titles are in shards."""
    parts = [FORMAT, build_format, pool.digest, pool.model_version, pool.versions, night.settings.index.model_dump(mode="json")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def carried_shards(night: Night, key: str) -> list[ShardFile] | None:
    """The shards of the last published run; None if they have another key, or a file is gone."""
    before = _kept(night)
    if before is None or before["key"] != key:
        return None
    shards = [ShardFile(**file) for file in before["shards"]]
    return shards if all(is_there(night, file) for file in shards) else None


def is_there(night: Night, file: ShardFile) -> bool:
    """Whether both files of a shard exist."""
    return all(artifacts.exists(night.warehouse.path(path)) for path in (file.path, file.ids_path))


def keep(night: Night, key: str, pool: Pool, shards: Sequence[ShardFile]) -> None:
    """Write what this run's pool and shards are."""
    kept = {"format": FORMAT, "key": key, "pool": asdict(pool), "shards": [asdict(file) for file in shards]}
    Files(night.warehouse.root).write(_file(night.run_id), json.dumps(kept).encode())


def _kept(night: Night) -> dict[str, Any] | None:
    last = last_published(night)
    if last is None:
        return None
    try:
        kept: dict[str, Any] = json.loads(Files(night.warehouse.root).read(_file(last.run_id)))
    except FileNotFoundError:
        return None
    return kept if kept["format"] == FORMAT else None


def _file(run_id: str) -> str:
    return f"reports/{run_id}/index.json"
