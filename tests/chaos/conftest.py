"""A shop of 300 items on two evenings, and the nights over them that nothing disturbed."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.contents import Contents, contents_of, size_of
from tests.chaos.moments import FULL, LOOK, Writes
from tests.chaos.process import NightProcess
from tests.chaos.reader import NOTHING, Published, published_in
from tgq.demo.catalog import draw_catalog

ITEMS, BAD_ROWS = 300 if FULL else 80, 6


@dataclass
class Night:
    """An undisturbed night: the catalog, the warehouse before it (None: empty), and what it leads to.

    Attributes:
        seconds: its length.
        writes: to the logs of the tables and to the index.
        states: what readers may see during it.
        grown: bytes that the warehouse takes more afterwards.
    """

    catalog: Path
    before: Path | None
    wanted: Contents
    states: dict[str, Published]
    seconds: float
    writes: int
    grown: int

    def prepare(self, root: Path) -> None:
        """Put the warehouse as it was before this night."""
        root.mkdir(parents=True, exist_ok=True)
        if self.before:
            shutil.copytree(self.before, root, dirs_exist_ok=True)


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """Folders of the catalog on two evenings: on the second every tenth title is changed, 15 items are gone and 10 are new."""
    first, second = tmp_path_factory.mktemp("shop") / "first", tmp_path_factory.mktemp("shop") / "second"
    draw_catalog(first, items=ITEMS + 10, seed=7, size=64, workers=1, bad_rows=BAD_ROWS)
    shutil.copytree(first, second)
    table = pq.read_table(first / "catalog.parquet")
    new, rest = table.slice(0, 10), table.slice(10)
    pq.write_table(rest, first / "catalog.parquet")
    titles = [f"{title} again" if i % 10 == 0 else title for i, title in enumerate(rest["title"].to_pylist())]
    changed = rest.set_column(rest.schema.get_field_index("title"), "title", [titles])
    pq.write_table(pa.concat_tables([changed.slice(15), new]), second / "catalog.parquet")
    return first, second


@pytest.fixture(scope="session")
def nights(shop, tiny_encoder, tmp_path_factory):
    """nights(name): the night `first` or `second`, undisturbed, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("undisturbed")

    @functools.cache
    def made(name: str) -> Night:
        if name == "first":
            return undisturbed(shop[0], None, tiny_encoder, folder / "first")
        return undisturbed(shop[1], folder / "first", tiny_encoder, folder / "second", old=made("first").states["new"])

    return made


def undisturbed(catalog: Path, before: Path | None, encoder: Path, root: Path, old: Published = NOTHING) -> Night:
    """Run a night that nothing disturbs, and keep what it leads to."""
    root.mkdir()
    if before:
        shutil.copytree(before, root, dirs_exist_ok=True)
    size, writes = size_of(root), Writes(root)
    night = NightProcess(catalog, root, encoder)
    while night.is_running:
        writes.look()
        time.sleep(LOOK)
    seconds = time.monotonic() - night.began
    status, printed = night.wait()
    assert status == 0, printed[-3000:]
    return Night(catalog, before, contents_of(root), {"old": old, "new": published_in(root)}, seconds, writes.look(), size_of(root) - size)


@pytest.fixture(scope="session")
def table():
    """table(row): add a row of figures to the file that CHAOS_RESULTS names, which several processes of pytest may share."""

    def add(row: dict) -> None:
        if out := os.environ.get("CHAOS_RESULTS"):
            with open(out, "a+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                rows = [*json.loads(file.read() or "[]"), row]
                file.truncate(0)
                file.write(json.dumps(rows, indent=1) + "\n")

    return add
