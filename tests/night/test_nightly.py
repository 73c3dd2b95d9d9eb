"""The whole night on a drawn catalog with a tiny encoder: killed and taken up, then grown and refused by the gate."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tgq.demo.catalog import draw_catalog
from tgq.errors import GateError, ModelError
from tgq.night import nightly
from tgq.night.nightly import STEPS, Nightly
from tgq.publishing.views import define_views
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.run.opening import open_night
from tgq.settings.load import load_settings

BAD_ROWS = 6


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=150, seed=5, size=64, workers=1, bad_rows=BAD_ROWS)
    return folder


@pytest.fixture
def begin(spark, tmp_path, tiny_encoder, empty_tables):
    def begin(catalog, *sets):
        overrides = [f"warehouse.path={tmp_path / 'warehouse'}", f"catalog.path={catalog}", f"encoder.path={tiny_encoder}", *sets]
        return Nightly(open_night(spark, load_settings(["local", "catalogs/demo"], overrides, {}).settings))

    return begin


def vectors(warehouse):
    return {r["item_id"]: np.array(r["embedding"], np.float32) for r in warehouse.read("item_embeddings").collect()}


def test_a_killed_night_is_taken_up_and_a_refused_one_moves_nothing(begin, shop, tmp_path, monkeypatch):
    interrupted = begin(shop)
    with monkeypatch.context() as patch:
        patch.setitem(nightly.STEPS, "index", lambda night: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            interrupted.run(list(STEPS))
    assert not (tmp_path / "warehouse" / "index" / "CURRENT").exists()

    # the next one takes up the same run, and its figures are those of an undisturbed one
    first = begin(shop)
    assert first.night.run_id == interrupted.night.run_id
    first.run(list(STEPS))
    told, store = first.summary(), first.night.warehouse
    total = pq.read_metadata(shop / "catalog.parquet").num_rows
    assert told["published"] and told["rows"]["in"] == total == told["rows"]["embedded"] + told["rows"]["quarantined"]
    assert told["rows"]["quarantined"] == store.read("quarantine").where("stage IN ('ingest', 'embed')").count() > 0
    queries = told["steps"]["ingest"]["figures"]["queries"]
    assert queries["queries"] == store.read("relevance_queries").count() > 0 and queries["judgments"] == store.read("query_judgments").count() > 0
    assert queries["quarantined"].keys() == {"judgments.unknown_item"}, "of an item that the broken rows made unusable"
    assert {"encoder", "frozen_image", "frozen_text", "frozen_concat"} <= told["metrics"].keys()
    assert told["metrics"]["encoder"]["hit_rate@10"]["n_queries"] > 0
    assert told["query_metrics"].keys() == {"encoder", "frozen_text", "bm25"} and told["query_metrics"]["bm25"]["query_ndcg@10"]["n_queries"] > 0
    page = Path(told["report"]).read_text()
    assert "<h2>Search queries</h2>" in page
    assert first.night.run_id in page and "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads(Path(told["manifest"]).read_text())["generation"] == first.night.run_id
    assert not Path(first.night.staging()).exists()
    before = vectors(store)

    # a new item, a third of the others gone and a refusing gate: everything is measured, nothing is published
    grown = Path(shutil.copytree(shop, tmp_path / "grown"))
    table = pq.read_table(shop / "catalog.parquet")
    one = table.slice(3, 1).set_column(table.schema.get_field_index("item_id"), "item_id", [["brand-new"]])
    kept = [table.slice(0, 2 * total // 3), table.slice(total - BAD_ROWS)]  # the broken rows stay, so that the same ids stand twice
    pq.write_table(pa.concat_tables([*kept, one]), grown / "catalog.parquet")
    refused = begin(grown, "gate.floors={hit_rate@10: 1.01}", "tracking.enabled=false")
    with pytest.raises(GateError, match=r"published items vanished .*hit_rate@10.*--accept-catalog-change"):
        refused.run(list(STEPS))
    told = refused.summary()
    change = told["gate"]["catalog_change"]
    assert not told["published"] and not told["gate"]["passed"] and told["rows"]["embedded"] == 1
    assert change["against"] == first.night.run_id and change["published"] == len(before) == change["vanished"] + told["rows"]["unchanged"]
    page = Path(told["report"]).read_text()
    assert "Changes to the catalog: refused" in page and f"{change['vanished']} of its {len(before)} items vanished" in page
    current = json.loads((tmp_path / "warehouse" / "index" / "CURRENT").read_text())
    assert first.night.run_id in json.dumps(current)
    define_views(store.spark, store)
    seen = {r[0] for r in store.spark.sql("SELECT item_id FROM current_embeddings").collect()}
    assert seen == set(before), "the current view stays at the last good generation"
    after = vectors(store)
    assert after.keys() == before.keys() | {"brand-new"} and all(np.array_equal(after[k], before[k]) for k in before)


def test_a_query_tower_of_another_encoder_stops_a_night_before_its_first_step(begin, shop, tiny_encoder, tmp_path):
    folder = shutil.copytree(tiny_encoder, tmp_path / "encoder")
    QueryTower(QueryTowerConfig("0" * 16, 16, text="towers/text"), relative_to=folder).save(folder / FOLDER)
    night = begin(shop, f"encoder.path={folder}")
    with pytest.raises(ModelError, match="the query tower is for item embeddings of model 0000000000000000, these are of"):
        night.run(list(STEPS))
    store = night.night.warehouse
    assert store.read("catalog_items").isEmpty() and not store.rows("pipeline_runs", {"status": "done"}, "step")
