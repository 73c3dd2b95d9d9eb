"""Generations of the published index: an immutable manifest each, and one pointer to the current one.

    index/CURRENT                          {"generation": ..., "sha256": of that manifest}
    index/generations/<gen>/manifest.json  which shards, from which tables' versions, by which encoder
    index/shards/*.faiss, *.ids.arrow      named by content, shared between generations

Publishing writes the manifest and then replaces the pointer, so a reader sees the old generation or the new
one, whatever happens in between. One night at a time publishes, rolls back or collects (the caller holds the
warehouse's lock); readers need no lock.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tgq.errors import WarehouseError
from tgq.retrieval.shards import FOLDER as SHARDS
from tgq.retrieval.shards import ShardFile
from tgq.storage.files import TEMPORARY, Files, sha256

CURRENT, GENERATIONS = "index/CURRENT", "index/generations"
FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Manifest:
    """What one generation consists of. Paths are relative to the warehouse; created_at is ISO 8601, UTC."""

    generation: str
    run_id: str
    model_version: str
    encoder: str
    created_at: str
    tables: Mapping[str, int] = field(
        default_factory=dict
    )  # Delta version of each table that it was built from
    shards: tuple[ShardFile, ...] = ()
    previous: str | None = None  # the generation that was current when this one was built

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Raises WarehouseError for text that is no manifest of this version."""
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError("its format is of another version of tgq")
            shards = tuple(ShardFile(**shard) for shard in fields.pop("shards"))
            manifest = cls(**fields, shards=shards)
            _check_name(manifest.generation)
            if not all(isinstance(path, str) for shard in shards for path in (shard.path, shard.ids_path)):
                raise ValueError("a shard's path is no text")
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise WarehouseError(
                f"broken manifest: {error}", "roll back to another generation or index again"
            ) from None


def publish(root: str | Path, manifest: Manifest) -> None:
    """Makes `manifest` the current generation; doing it twice is doing it once.

    Raises:
        WarehouseError: a shard file is missing or cut short, the generation exists with another content, or
            another generation was published since this one was built.
    """
    files = Files(root)
    _check_name(manifest.generation)
    now = load_current(root)
    if now == manifest:
        return
    if manifest.previous != (now and now.generation):
        raise WarehouseError(
            f"generation {manifest.generation} was built on {manifest.previous}, "
            f"and {now and now.generation} is current",
            "index again on top of the current generation",
        )
    _check_shards(files, manifest)
    data, path = manifest.to_json().encode(), path_of(manifest.generation)
    if files.size(path) is None:
        files.write(path, data)
    elif files.read(path) != data:
        raise WarehouseError(
            f"generation {manifest.generation} exists with another content", "give the new one a new name"
        )
    _point(files, manifest.generation, data)


def load_current(root: str | Path) -> Manifest | None:
    """The published generation, None before the first. Raises WarehouseError when pointer or manifest is
    broken."""
    files = Files(root)
    try:
        text = files.read(CURRENT)
    except FileNotFoundError:
        return None
    pointer = _pointer(text)
    data = _read(files, pointer["generation"])
    if sha256(data) != pointer["sha256"]:
        raise WarehouseError(
            f"the manifest of generation {pointer['generation']} was altered after it was published",
            "roll back to another generation or index again",
        )
    return Manifest.from_json(data)


def load(root: str | Path, generation: str) -> Manifest:
    """Raises WarehouseError when there is no such generation, or it is broken."""
    return Manifest.from_json(_read(Files(root), generation))


def history(root: str | Path) -> list[Manifest]:
    """The current generation, the one before it, and so on, as far back as they were kept."""
    return list(_chain(root))


def rollback(root: str | Path, to: str | None = None) -> Manifest:
    """Points to generation `to`, or to the one before the current one, and returns its manifest.

    Raises:
        WarehouseError: there is no such generation, or its shards are gone.
    """
    files = Files(root)
    if to is None:
        now = load_current(root)
        if now is None or now.previous is None:
            raise WarehouseError("there is no generation to roll back to", "publish one first, or name it")
        to = now.previous
    data = _read(files, to)
    manifest = Manifest.from_json(data)
    _check_shards(files, manifest)
    _point(files, to, data)
    return manifest


def collect_garbage(root: str | Path, keep: int) -> list[str]:
    """Keeps the newest `keep` generations of the history and removes the others, then every shard file that
    no kept one names.

    Only while no other night builds shards: files that are written and not yet published would look unused.

    Returns:
        The paths that were removed.

    Raises:
        ValueError: keep < 1. WarehouseError: a kept manifest is broken; nothing is removed then.
    """
    if keep < 1:
        raise ValueError(f"at least the current generation is kept, not {keep}")
    files = Files(root)
    kept = history(root)[:keep]
    if not kept:
        return []
    named = {path for manifest in kept for shard in manifest.shards for path in (shard.path, shard.ids_path)}
    generations = {manifest.generation for manifest in kept}
    # Manifests first: killed in between, no manifest is left that names a removed file.
    removed = [f"{GENERATIONS}/{name}" for name in files.list(GENERATIONS) if name not in generations]
    for name in files.list(SHARDS):
        path = f"{SHARDS}/{name}"
        if path not in named and (name.endswith((".faiss", ".ids.arrow")) or name.startswith(TEMPORARY)):
            removed.append(path)
    for path in removed:
        files.remove(path)
    return removed


def _chain(root: str | Path) -> Iterator[Manifest]:
    manifest, seen, files = load_current(root), set(), Files(root)
    while manifest is not None and manifest.generation not in seen:
        yield manifest
        seen.add(manifest.generation)
        older = manifest.previous
        manifest = load(root, older) if older and files.size(path_of(older)) is not None else None


def path_of(generation: str) -> str:
    return f"{GENERATIONS}/{generation}/manifest.json"


def _read(files: Files, generation: str) -> bytes:
    _check_name(generation)
    try:
        return files.read(path_of(generation))
    except FileNotFoundError:
        known = ", ".join(files.list(GENERATIONS)) or "none"
        raise WarehouseError(f"there is no generation {generation!r}", f"choose one of: {known}") from None


def _point(files: Files, generation: str, manifest: bytes) -> None:
    files.write(CURRENT, json.dumps({"generation": generation, "sha256": sha256(manifest)}).encode())


def _pointer(text: bytes) -> dict[str, Any]:
    try:
        pointer: dict[str, Any] = json.loads(text)
        if set(pointer) == {"generation", "sha256"} and all(
            isinstance(value, str) for value in pointer.values()
        ):
            return pointer
    except (ValueError, TypeError):
        pass
    raise WarehouseError(f"{CURRENT} does not name a generation", "roll back to a generation by its name")


def _check_name(generation: str) -> None:
    if not isinstance(generation, str) or not _NAME.fullmatch(generation):
        raise WarehouseError(
            f"{generation!r} is no name for a generation", "use letters, digits, '.', '_' and '-'"
        )


def _check_shards(files: Files, manifest: Manifest) -> None:
    """Presence and size; contents are checked by their sha256 when they are read."""
    for shard in manifest.shards:
        index_size, ids_size = files.size(shard.path), files.size(shard.ids_path)
        if index_size is None or ids_size is None or index_size + ids_size != shard.bytes:
            raise WarehouseError(
                f"shard {shard.path} of generation {manifest.generation} is missing or cut short",
                "choose another generation or index again",
            )
