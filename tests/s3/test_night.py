"""Nights on a real object store, without faults and with a fault in every twentieth request: the same tables as in a folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tgq
from tests.s3.commands import Shell, contents, need_same, vectors
from tests.s3.faults import KINDS, Faults, faulty
from tests.s3.server import BUCKET, files_of

pytestmark = pytest.mark.s3

RATE = 0.05
PROMOTION = ("evaluate.min_slice_queries=5", "promote.share=0.5")


@pytest.fixture(scope="module")
def grown(store, shop, tmp_path_factory):
    """The catalog with one more item, in a local folder and in the store."""
    folder = Path(shutil.copytree(shop, tmp_path_factory.mktemp("grown") / "catalog"))
    table = pq.read_table(shop / "catalog.parquet")
    one = table.slice(3, 1).set_column(table.schema.get_field_index("item_id"), "item_id", [["brand-new"]])
    pq.write_table(pa.concat_tables([table, one]), folder / "catalog.parquet")
    files_of(store).put(str(folder), f"{BUCKET}/grown", recursive=True)
    return folder, f"s3a://{BUCKET}/grown"


@pytest.fixture(scope="module")
def local(shop, encoder, cache, tmp_path_factory):
    """A night of the same catalog in a folder."""
    folder = tmp_path_factory.mktemp("local")
    shell = Shell(str(folder / "warehouse"), cache)
    shell.told = shell.night(shop, encoder(), folder / "night.json")
    return shell


@pytest.fixture(scope="module", params=["direct", "faulty"])
def shell(request, store, cache):
    """A warehouse of its own in the store, reached through the proxy or directly."""
    faults = Faults(RATE if request.param == "faulty" else 0.0, seed=1)
    with faulty(store.place, faults) as address:
        made = Shell(f"s3a://{BUCKET}/{request.param}", store.environment(address) | cache)
        made.faults, made.options = faults, store.environment()
        yield made
    print(f"\n{request.param}: {faults.requests} requests, {faults.conditional} of them conditional, injected: {dict(faults.injected)}")


@pytest.fixture(scope="module")
def first(shell, catalog, encoder, tmp_path_factory):
    return shell.night(catalog, encoder(), tmp_path_factory.mktemp("first") / "night.json")


@pytest.fixture(scope="module")
def second(shell, first, catalog, encoder, tmp_path_factory):
    """A night without changes."""
    return shell.night(catalog, encoder(), tmp_path_factory.mktemp("second") / "night.json")


@pytest.fixture(scope="module")
def third(shell, second, grown, encoder, tmp_path_factory):
    """A night with one more item."""
    return shell.night(grown[1], encoder(), tmp_path_factory.mktemp("third") / "night.json")


def opened(shell):
    """The warehouse as a notebook opens it: this process has no credentials in its environment."""
    return tgq.open_warehouse(shell.warehouse, storage_options=shell.options)


def test_the_first_night_leaves_the_same_tables(shell, first, local):
    assert first["published"] and first["rows"] == local.told["rows"] and first["rows"]["quarantined"] > 0
    need_same(opened(shell), tgq.open_warehouse(local.warehouse))
    assert first["report"].startswith(shell.warehouse)


def test_a_night_without_changes_embeds_nothing(shell, second, first, local):
    assert second["published"] and second["rows"]["embedded"] == 0 and second["rows"]["unchanged"] == first["rows"]["embedded"]
    warehouse = opened(shell)
    assert warehouse.published.run_id in (first["run_id"], second["run_id"])
    ours, theirs = vectors(warehouse), vectors(tgq.open_warehouse(local.warehouse))
    assert all(np.abs(ours[item] - theirs[item]).max() < 1e-6 for item in theirs) and ours.keys() == theirs.keys()


def test_search_finds_the_same(shell, second, local, encoder):
    item = sorted(vectors(tgq.open_warehouse(local.warehouse)))[0]
    made_with = ("--set", f"encoder.path={encoder()}")
    for query in (("--item", item), ("--text", "red shoe", *made_with), ("--text", "red shoe", "--hybrid", *made_with)):
        found, expected = shell.search(*query), local.search(*query)
        assert [hit["item_id"] for hit in found] == [hit["item_id"] for hit in expected]
        assert np.allclose([hit["score"] for hit in found], [hit["score"] for hit in expected], atol=1e-6)
    read = opened(shell).search(item_id=item, k=5)
    assert read["item_id"].to_pylist() == tgq.open_warehouse(local.warehouse).search(item_id=item, k=5)["item_id"].to_pylist()


def test_rollback(shell, third, second):
    before = opened(shell).published
    assert third["rows"]["embedded"] == 1 and "brand-new" in vectors(opened(shell))
    printed, _ = shell.run("index", "rollback")
    now = opened(shell).published
    assert now.generation == before.previous and now.generation in printed and "brand-new" not in vectors(opened(shell))
    shell.run("index", "rollback", "--to", before.generation)
    assert opened(shell).published == before


def test_a_promoted_encoder_is_read_from_the_store(shell, third, grown, encoder, tmp_path):
    candidate = encoder(seed=9)
    shell.run("promote", candidate, "--catalog", grown[1], "--force", "--summary", tmp_path / "promotion.json")
    told = json.loads((tmp_path / "promotion.json").read_text())
    assert told["promoted"] and any(name in shell.run("models")[0] for name in told["names"])
    night = shell.night(grown[1], "champion", tmp_path / "night.json")
    assert night["published"] and opened(shell).published.model_version == told["candidate"]
    shell.run("rollback-model")
    assert told["champion"] in shell.run("models")[0]


def test_nothing_stands_twice(shell, third):
    warehouse = opened(shell)
    for table, key in (
        ("catalog_items", "item_id"), ("item_embeddings", "item_id, model_version"), ("item_neighbors", "item_id, model_version, rank"),
        ("pipeline_runs", "run_id, step"), ("retrieval_metrics", "run_id, task, model_version, slice, metric, k"),
        ("quarantine", "run_id, stage, item_id, occurrence"), ("relevance_pairs", "query_item_id, positive_item_id"),
    ):  # fmt: skip
        assert warehouse.sql(f"SELECT {key}, count(*) AS n FROM {table} GROUP BY {key} HAVING count(*) > 1").num_rows == 0, table
    assert contents(warehouse)["items"]
    if shell.faults.rate:
        assert set(shell.faults.injected) == set(KINDS), "each kind of fault was injected"
        assert sum(shell.faults.injected.values()) > 0.03 * shell.faults.requests
