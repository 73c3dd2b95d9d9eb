"""A reader that looks at what a warehouse publishes, again and again while a night is disturbed."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tgq
from tests.chaos.contents import TOLERANCE, matrix
from tgq.storage.files import Files, sha256


@dataclass
class Published:
    """What readers see of a generation: its vectors by item, and the (item, rank, neighbour) of its neighbours."""

    vectors: dict[str, np.ndarray]
    neighbors: set[tuple]

    def is_like(self, other: Published) -> bool:
        """Whether both are one generation. Neighbours of equal score may change places, so 1 in 100 may differ."""
        if self.vectors.keys() != other.vectors.keys() or len(self.neighbors) != len(other.neighbors):
            return False
        near = all(np.allclose(vector, other.vectors[key], rtol=0, atol=TOLERANCE) for key, vector in self.vectors.items())
        return near and len(self.neighbors ^ other.neighbors) <= 0.01 * len(other.neighbors)


NOTHING = Published({}, set())


def published_in(root: Path) -> Published:
    """What is published, read as an analyst would; the files of all shards are compared with their hashes.

    Raises:
        AssertionError: a shard's file is not the one that the manifest names, or vectors, shards and neighbours are of different items.
    """
    warehouse = tgq.open_warehouse(root)
    if warehouse.published is None:
        return NOTHING
    files = Files(root)
    for shard in warehouse.published.shards:
        for path, digest in ((shard.path, shard.sha256), (shard.ids_path, shard.ids_sha256)):
            assert sha256(files.read(path)) == digest, f"{path} is not the file of generation {warehouse.published.generation}"
    found = warehouse.embeddings(["item_id", "embedding"])
    vectors = dict(zip(found["item_id"].to_pylist(), matrix(found["embedding"]), strict=True))
    rows = warehouse.sql("SELECT item_id, rank, neighbor_id FROM published_neighbors")
    neighbors = set(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))
    assert sum(shard.n_items for shard in warehouse.published.shards) == found.num_rows == len(vectors), "shards and vectors of different items"
    assert {row[0] for row in neighbors} <= vectors.keys() and {row[2] for row in neighbors} <= vectors.keys(), "neighbours of other items"
    return Published(vectors, neighbors)


class Reader:
    """Reads a warehouse until the block ends.

    Attributes:
        looks: how often it has read each of the named states.
        wrong: what it has read that is none of them, in lines.
    """

    def __init__(self, root: Path, states: Mapping[str, Published], pause: float = 0.5):
        self._root, self._states, self._pause = root, states, pause
        self.looks = dict.fromkeys(states, 0)
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._ended.is_set():
            self.look()
            time.sleep(self._pause)

    def look(self) -> None:
        """Read once."""
        if not (self._root / "pipeline_runs" / "_delta_log" / "00000000000000000000.json").exists():
            return  # the tables of a first night are being made
        try:
            seen = published_in(self._root)
        except Exception as error:  # whatever a reader meets during a night is a finding
            self.wrong.append(f"{type(error).__name__}: {error}")
            return
        name = next((name for name, state in self._states.items() if seen.is_like(state)), None)
        if name is None:
            self.wrong.append(f"a mixture: {len(seen.vectors)} vectors, {len(seen.neighbors)} neighbours")
        else:
            self.looks[name] += 1
