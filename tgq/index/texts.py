"""The BM25 index of a generation's titles and brands. Needs no Spark.

It is made of the details beside the published shards at first use, and kept in the local cache: `bm25/<hash of the files with the texts>`.
So generations with the same items and texts share an index, and no index is of other texts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from tgq.encoder.text import normalise
from tgq.retrieval.bm25 import FORMAT, TextIndex
from tgq.retrieval.manifest import Manifest
from tgq.retrieval.shards import ShardFile, read_details
from tgq.storage.files import sha256
from tgq.storage.paths import cache_folder

KEPT = 8  # indexes in the cache; a warehouse uses one at a time, and another after a rollback


def ordered(published: Manifest) -> list[ShardFile]:
    """The shards by category and number: the order of the rows of `text_index`, and of equal scores in a search."""
    return sorted(published.shards, key=lambda file: (file.category, file.shard))


def text_index(root: str, published: Manifest) -> TextIndex:
    """The BM25 index of all published items: the rows of each shard in their order, the shards as `ordered` has them.

    Cost at first use: the details of all shards are read, and indexed at about 50,000 items a second. Later it is opened in milliseconds.
    A cache that cannot be written costs that time at every use.

    Raises:
        WarehouseError: a shard's details are missing or damaged.
    """
    place = cached_folder(published)
    try:
        found = TextIndex.load(str(place))
        if len(found) == sum(file.n_items for file in published.shards):
            os.utime(place)  # used last, so it is kept
            return found
    except (ValueError, OSError):
        pass  # none yet, or damaged
    built = TextIndex.build(text for file in ordered(published) for text in _texts(root, file))
    with contextlib.suppress(OSError):
        _keep(built, place)
    return built


def cached_folder(published: Manifest) -> Path:
    """Where the cache keeps, or will keep, the index of a generation."""
    texts = sha256("\n".join([str(FORMAT), *(file.ids_sha256 for file in ordered(published))]).encode())
    return cache_folder() / "bm25" / texts[:32]


def _texts(root: str, file: ShardFile) -> list[str]:
    rows = read_details(root, file).select(["title", "brand"]).to_pylist()
    return [f"{normalise(row['title'])} {normalise(row['brand'])}" for row in rows]


def _keep(index: TextIndex, place: Path) -> None:
    """Write an index to the cache at once or not at all, and remove those that were used least lately. Of two writers one wins."""
    place.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".", dir=place.parent))
    try:
        index.save(str(staging))
        staging.chmod(0o755)
        if place.exists():  # damaged, or another writer was faster
            shutil.rmtree(place)
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    others = sorted((p for p in place.parent.iterdir() if p != place and not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
    for old in others[: len(others) - KEPT + 1]:
        shutil.rmtree(old, ignore_errors=True)
