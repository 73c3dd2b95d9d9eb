"""Published generations: publish the staged shards as one, list them, go back to an earlier one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from tgq.index.staging import staged_index
from tgq.registry.grounding import noted_grounding
from tgq.retrieval import manifest
from tgq.retrieval.manifest import Manifest
from tgq.retrieval.shards import ShardFile  # fmt: skip
from tgq.run.night import Night
from tgq.storage.warehouse import Warehouse


def publish_index(night: Night, versions: Mapping[str, int]) -> Manifest:
    """Publish the staged shards as the generation of this run, and delete generations beyond `index.keep_generations`.

    The rows of `index_shards` are written first and the manifest last, so readers see the new generation only when it is complete.
    A repeated call changes nothing. If a run is continued after its manifest was written and its contents differ by then, they are
    published as a second generation named `<run>.2`.

    Args:
        versions: the Delta version of each table that belongs to the generation.

    Raises:
        UsageError: nothing is staged.
    """
    root = night.warehouse.root
    staged, current = staged_index(night), manifest.load_current(root)
    known = {made.generation: made for made in _manifests(root)}
    number = 1
    while True:
        name = night.run_id if number == 1 else f"{night.run_id}.{number}"
        wanted = Manifest(
            generation=name, run_id=night.run_id, model_version=staged["model_version"], encoder=night.settings.encoder.path,
            created_at=night.started_at.isoformat(timespec="seconds"), tables=dict(versions),
            shards=tuple(ShardFile(**file) for file in staged["shards"]), previous=current.generation if current else None,
            grounding=noted_grounding(night.settings.enrich.grounding, night.model_folder),
        )  # fmt: skip
        if name in known and current is not None and name == current.generation:
            wanted = dataclasses.replace(wanted, previous=current.previous)
        if known.get(name, wanted) == wanted:
            break
        number += 1
    if current != wanted:
        _write_rows(night, wanted)
        night.lock.need()  # renewed here, a lease lasts until the manifest is written
        manifest.publish(root, wanted)
    manifest.collect_garbage(root, night.settings.index.keep_generations)
    return wanted


@dataclass(frozen=True)
class Generation:
    """A generation that is still in the warehouse."""

    generation: str
    run_id: str
    model_version: str
    created_at: str
    n_shards: int
    n_items: int
    current: bool


def generations(root: str) -> list[Generation]:
    """The generations of a warehouse folder, newest first."""
    current = manifest.load_current(root)
    made = sorted(_manifests(root), key=lambda m: (m.created_at, m.generation), reverse=True)
    return [
        Generation(m.generation, m.run_id, m.model_version, m.created_at, len(m.shards), sum(s.n_items for s in m.shards),
                   current is not None and m.generation == current.generation)
        for m in made
    ]  # fmt: skip


def rollback(warehouse: Warehouse, to: str | None = None) -> Manifest:
    """Make the previous generation, or `to`, the current one. Its manifest names the table versions that belong to it.

    Raises:
        WarehouseError: there is no such generation, or its files are gone.
    """
    return manifest.rollback(warehouse.root, to)


def last_published(night: Night) -> Manifest | None:
    """The manifest of the last published run other than this one; None if there is none."""
    return next((made for made in manifest.history(night.warehouse.root) if made.run_id != night.run_id), None)


def published_shards(warehouse: Warehouse) -> tuple[ShardFile, ...]:
    """The shards of the current generation; none before the first."""
    current = manifest.load_current(warehouse.root)
    return current.shards if current else ()


def _manifests(root: str) -> list[Manifest]:
    return [manifest.load(root, name) for name in manifest.stored(root)]


def _write_rows(night: Night, made: Manifest) -> None:
    """Replace the rows of one generation in `index_shards`, in one commit."""
    shared = dict(
        generation=made.generation, model_version=made.model_version, run_id=made.run_id,
        embeddings_version=made.tables.get("item_embeddings"), published_at=datetime.now(timezone.utc),
    )  # fmt: skip
    night.warehouse.replace("index_shards", [asdict(file) | shared for file in made.shards], {"generation": made.generation})
