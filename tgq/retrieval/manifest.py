"""Generations of the published index: one immutable manifest per generation, and a pointer to the current one.

    index/CURRENT                          {"generation": ..., "sha256": of that manifest}
    index/generations/<gen>/manifest.json  its shards, table versions and encoder
    index/shards/*.faiss, *.ids.arrow      named by content, shared between generations

Publishing writes the manifest and then replaces the pointer atomically, so a reader sees either the old generation or the new
one. Only one process at a time may publish, roll back or collect garbage: the caller holds the warehouse's lock. Readers need
no lock.
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
_SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_VISITED = 2**20  # lists or nodes that a search may visit


@dataclass(frozen=True)
class Manifest:
    """The contents of one generation. Paths are relative to the warehouse; created_at is ISO 8601, UTC."""

    generation: str
    run_id: str
    model_version: str
    encoder: str
    created_at: str
    tables: Mapping[str, int] = field(default_factory=dict)  # Delta version of each table that it was built from
    shards: tuple[ShardFile, ...] = ()
    previous: str | None = None  # the current generation at the time of building
    grounding: Mapping[str, Any] | None = None  # how pictures were cropped: `enrich.grounding` and the detector's `identity`; None: they were not

    def to_json(self) -> str:
        """The manifest as the text of its file."""
        fields = {"format": FORMAT, **dataclasses.asdict(self)}
        if self.grounding is None:
            del fields["grounding"]  # as in manifests of earlier versions
        return json.dumps(fields, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Parse a manifest file. Raises WarehouseError if the text is not a manifest of this format version."""
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise ValueError("it was written by another version of tgq")
            shards = tuple(ShardFile(**shard) for shard in fields.pop("shards"))
            manifest = cls(**fields, shards=shards)
            _check_name(manifest.generation)
            _check_values(manifest)
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise WarehouseError(
                f"broken manifest: {error}", "roll back to another generation or build the index again"
            ) from None


def publish(root: str | Path, manifest: Manifest) -> None:
    """Make `manifest` the current generation. A second call with the same manifest has no effect.

    Raises:
        WarehouseError: a shard file is missing or truncated, the generation exists with other content, or another generation was
            published since this one was built.
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
            "build the index again on top of the current generation",
        )
    _check_shards(files, manifest)
    data, path = manifest.to_json().encode(), manifest_path(manifest.generation)
    if files.size(path) is None:
        files.write(path, data)
    elif files.read(path) != data:
        raise WarehouseError(
            f"generation {manifest.generation} exists with other content", "give the new one another name"
        )
    _set_current(files, manifest.generation, data)


def load_current(root: str | Path) -> Manifest | None:
    """The manifest of the published generation, None before the first. Raises WarehouseError if pointer or manifest is broken."""
    files = Files(root)
    try:
        text = files.read(CURRENT)
    except FileNotFoundError:
        return None
    pointer = _parse_pointer(text)
    data = _read(files, pointer["generation"])
    if sha256(data) != pointer["sha256"]:
        raise WarehouseError(
            f"the manifest of generation {pointer['generation']} was altered after it was published",
            "roll back to another generation or build the index again",
        )
    return Manifest.from_json(data)


def load(root: str | Path, generation: str) -> Manifest:
    """The manifest of a generation. Raises WarehouseError if it does not exist or is broken."""
    return Manifest.from_json(_read(Files(root), generation))


def stored(root: str | Path) -> list[str]:
    """The names of all generations that have a manifest, sorted. A run that ends while it writes one may leave a folder without."""
    return _stored(Files(root))


def history(root: str | Path) -> list[Manifest]:
    """The current generation, its predecessor, and so on, as far as they are stored."""
    return list(_chain(root))


def rollback(root: str | Path, to: str | None = None) -> Manifest:
    """Make generation `to` current, by default the predecessor of the current one, and return its manifest.

    Raises:
        WarehouseError: there is no such generation, or its shards are missing.
    """
    files = Files(root)
    if to is None:
        now = load_current(root)
        if now is None or now.previous is None:
            raise WarehouseError("there is no generation to roll back to", "publish one first, or name a generation")
        to = now.previous
    data = _read(files, to)
    manifest = Manifest.from_json(data)
    _check_shards(files, manifest)
    _set_current(files, to, data)
    return manifest


def collect_garbage(root: str | Path, keep: int) -> list[str]:
    """Remove all but the newest `keep` generations of the history, and every shard file that none of these uses.

    No other process may build shards at the same time, because files that are not published yet would seem unused.

    Returns:
        The removed paths.

    Raises:
        ValueError: keep < 1.
        WarehouseError: a manifest to be kept is broken. Nothing is removed then.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}: keep at least the current generation")
    files = Files(root)
    kept = history(root)[:keep]
    if not kept:
        return []
    named = {path for manifest in kept for shard in manifest.shards for path in (shard.path, shard.ids_path)}
    generations = {manifest.generation for manifest in kept}
    # Manifests first, so that an interrupted call leaves no manifest that names a removed file.
    removed = [f"{GENERATIONS}/{name}" for name in files.list(GENERATIONS) if name not in generations]
    for name in files.list(SHARDS):
        path = f"{SHARDS}/{name}"
        if path not in named and (name.endswith((".faiss", ".ids.arrow")) or name.startswith(TEMPORARY)):
            removed.append(path)
    for path in removed:
        files.remove(path)
    return removed


def _chain(root: str | Path) -> Iterator[Manifest]:
    """The current manifest and its stored predecessors, newest first."""
    manifest, seen, files = load_current(root), set(), Files(root)
    while manifest is not None and manifest.generation not in seen:
        yield manifest
        seen.add(manifest.generation)
        older = manifest.previous
        manifest = load(root, older) if older and files.size(manifest_path(older)) is not None else None


def manifest_path(generation: str) -> str:
    """The manifest's path, relative to the warehouse."""
    return f"{GENERATIONS}/{generation}/manifest.json"


def _read(files: Files, generation: str) -> bytes:
    _check_name(generation)
    try:
        return files.read(manifest_path(generation))
    except FileNotFoundError:
        known = ", ".join(_stored(files)) or "none"
        raise WarehouseError(f"there is no generation {generation!r}", f"choose one of: {known}") from None


def _stored(files: Files) -> list[str]:
    return [name for name in files.list(GENERATIONS) if files.size(manifest_path(name)) is not None]


def _set_current(files: Files, generation: str, manifest: bytes) -> None:
    files.write(CURRENT, json.dumps({"generation": generation, "sha256": sha256(manifest)}).encode())


def _parse_pointer(text: bytes) -> dict[str, Any]:
    try:
        pointer: dict[str, Any] = json.loads(text)
        if set(pointer) == {"generation", "sha256"} and all(
            isinstance(value, str) for value in pointer.values()
        ):
            return pointer
    except (ValueError, TypeError, RecursionError):
        pass
    raise WarehouseError(f"{CURRENT} does not name a generation", "roll back to a generation by its name")


def _check_name(generation: str) -> None:
    if not isinstance(generation, str) or not _NAME.fullmatch(generation):
        raise WarehouseError(
            f"{generation!r} is not a valid name of a generation", "use letters, digits, '.', '_' and '-'"
        )


def _check_values(manifest: Manifest) -> None:
    """Check that every value is what readers take it for: names go into SQL, paths to files, and numbers to FAISS.

    Raises:
        ValueError: one is not.
    """
    names = (manifest.run_id, manifest.model_version, *([] if manifest.previous is None else [manifest.previous]), *manifest.tables)
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
        raise ValueError("a run, a model, a table or the previous generation has no valid name")
    if not isinstance(manifest.encoder, str) or not isinstance(manifest.created_at, str):
        raise ValueError("encoder or created_at is no text")
    if manifest.grounding is not None and not isinstance(manifest.grounding, dict):
        raise ValueError("grounding is no group of settings")
    if not all(map(_is_count, manifest.tables.values())):
        raise ValueError("a table's version is no number")
    for shard in manifest.shards:
        for path in (shard.path, shard.ids_path):
            if not isinstance(path, str) or not path.startswith(f"{SHARDS}/") or not _NAME.fullmatch(path[len(SHARDS) + 1 :]):
                raise ValueError(f"a shard's path {str(path)[:120]!r} is none in {SHARDS}")
        if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in (shard.sha256, shard.ids_sha256)):
            raise ValueError(f"{shard.path} has no sha256")
        if not all(isinstance(text, str) for text in (shard.category, shard.factory, shard.members_digest)):
            raise ValueError(f"{shard.path} has a category, factory or digest that is no text")
        if not all(map(_is_count, (shard.shard, shard.n_items, shard.bytes))):
            raise ValueError(f"{shard.path} has a number that is none")
        if set(shard.search) - {"nprobe", "efSearch"} or not all(_is_count(n) and 0 < n <= MOST_VISITED for n in shard.search.values()):
            raise ValueError(f"{shard.path} has search parameters {str(shard.search)[:80]}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _check_shards(files: Files, manifest: Manifest) -> None:
    """Check that all shard files exist with their size. Their sha256 is checked when they are read."""
    for shard in manifest.shards:
        index_size, ids_size = files.size(shard.path), files.size(shard.ids_path)
        if index_size is None or ids_size is None or index_size + ids_size != shard.bytes:
            raise WarehouseError(
                f"shard {shard.path} of generation {manifest.generation} is missing or truncated",
                "choose another generation or build the index again",
            )
