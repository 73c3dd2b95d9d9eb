"""Two nights on one warehouse in a real object store: one has the lease, and the other says whose it is."""

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tgq
from tests.s3.commands import SETTINGS, Shell, end, need_same, vectors
from tests.s3.server import BUCKET, files_of

pytestmark = pytest.mark.s3

LEASE_S = 12.0


@pytest.fixture
def shell(request, store, cache):
    return Shell(f"s3a://{BUCKET}/{request.node.name}", store.environment() | cache)


def begin(shell, catalog, encoder, summary, *sets):
    options = SETTINGS + (f"encoder.path={encoder}", *sets)
    return shell.start("nightly", "--conf", "local", "--conf", "catalogs/demo", "--catalog", catalog, "--summary", summary, sets=options)


def claims(shell, store):
    files = files_of(store)
    folder = f"{shell.warehouse.removeprefix('s3a://')}/_lease"
    return [json.loads(files.cat_file(name)) for name in sorted(files.ls(folder, detail=False))] if files.exists(folder) else []


def test_of_two_nights_at_once_one_publishes(shell, store, catalog, encoder, tmp_path):
    both = [begin(shell, catalog, encoder(), tmp_path / f"{n}.json") for n in (1, 2)]
    said = [process.communicate(timeout=900) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    winner, loser = both[codes.index(0)], said[codes.index(1)][1]
    (line,) = loser.strip().splitlines()
    assert re.fullmatch(
        rf"tgq: the warehouse {shell.warehouse} is in use by process {winner.pid} on {re.escape(socket.gethostname())} since \S+ \S+ UTC: "
        r"wait for that run to end, or stop it; if it was killed, its lease ends 120 s after its last renewal",
        line,
    )
    warehouse = tgq.open_warehouse(shell.warehouse, storage_options=store.environment())
    runs = warehouse.sql("SELECT DISTINCT run_id FROM pipeline_runs")["run_id"].to_pylist()
    assert runs == [warehouse.published.run_id] and warehouse.published.previous is None
    assert [claim["state"] for claim in claims(shell, store)] == ["released"]


def test_the_lease_of_a_killed_night_ends_and_the_next_one_takes_up_its_run(shell, store, catalog, encoder, cache, shop, tmp_path):
    short = f"warehouse.lease_seconds={LEASE_S}"
    killed = begin(shell, catalog, encoder(), tmp_path / "killed.json", short)
    give_up = time.monotonic() + 300
    embedded = f"{shell.warehouse.removeprefix('s3a://')}/item_embeddings/_delta_log"
    while len(files_of(store).glob(f"{embedded}/*.json")) < 2 and killed.poll() is None and time.monotonic() < give_up:
        time.sleep(0.5)
    assert killed.poll() is None and claims(shell, store)[0]["process"] == killed.pid
    end(killed)  # with its JVM, as a machine that is switched off
    died = time.monotonic()
    asked = begin(shell, catalog, encoder(), tmp_path / "asked.json", short)
    _, errors = asked.communicate(timeout=300)
    if time.monotonic() - died < LEASE_S:
        assert asked.returncode == 1 and f"in use by process {killed.pid}" in errors and "its lease ends 12 s after" in errors
    time.sleep(max(0.0, died + LEASE_S + 1 - time.monotonic()))
    told = shell.night(catalog, encoder(), tmp_path / "next.json", short) if asked.returncode else json.loads((tmp_path / "asked.json").read_text())
    assert told["published"]
    warehouse = tgq.open_warehouse(shell.warehouse, storage_options=store.environment())
    assert warehouse.sql("SELECT DISTINCT run_id FROM pipeline_runs")["run_id"].to_pylist() == [told["run_id"]], "the killed run was taken up"
    plain = Shell(str(tmp_path / "warehouse"), cache)
    plain.night(shop, encoder(), tmp_path / "plain.json")
    need_same(warehouse, tgq.open_warehouse(plain.warehouse))


def test_a_night_that_lost_its_lease_publishes_nothing(shell, store, catalog, shop, encoder, tmp_path):
    """It sleeps for longer than its lease, as a machine that is suspended, and another night publishes in between."""
    short = f"warehouse.lease_seconds={LEASE_S}"
    slept = begin(shell, catalog, encoder(), tmp_path / "slept.json", short)
    give_up = time.monotonic() + 300
    while not claims(shell, store) and time.monotonic() < give_up:
        time.sleep(0.2)
    os.killpg(slept.pid, 19)  # SIGSTOP
    try:
        time.sleep(LEASE_S + 1)
        more = Path(shutil.copytree(shop, tmp_path / "catalog"))
        table = pq.read_table(shop / "catalog.parquet")
        one = table.slice(3, 1).set_column(table.schema.get_field_index("item_id"), "item_id", [["brand-new"]])
        pq.write_table(pa.concat_tables([table, one]), more / "catalog.parquet")
        told = shell.night(more, encoder(), tmp_path / "next.json", short)
    finally:
        os.killpg(slept.pid, 18)  # SIGCONT
    _, errors = slept.communicate(timeout=600)
    assert told["published"] and slept.returncode == 1
    assert f"has lost its lease of the warehouse {shell.warehouse} to process" in errors and "Traceback" not in errors
    warehouse = tgq.open_warehouse(shell.warehouse, storage_options=store.environment())
    assert warehouse.published.run_id == told["run_id"] and "brand-new" in vectors(warehouse)
