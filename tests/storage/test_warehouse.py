"""The warehouse: tables created from the shipped DDL, opened again by name."""

import shutil
from datetime import datetime, timezone

import pytest
from pyspark.sql.types import StructType

import tgq
from tgq.errors import ConfigError, WarehouseError
from tgq.settings.sections import WarehouseSettings
from tgq.storage.warehouse import TABLES, Warehouse, ddl, schema_of


def test_every_table_of_the_ddl_folder_is_created_and_empty(warehouse):
    assert {name: warehouse.read(name).count() for name in TABLES} == dict.fromkeys(TABLES, 0)


def test_a_warehouse_opened_again_holds_what_was_written(spark, warehouse):
    row = spark.sql("SELECT 'q' AS query_item_id, 'p' AS positive_item_id, 'group' AS source, CAST(1 AS FLOAT) AS weight, "
                    "'test' AS split, 'g' AS group_id, CAST(NULL AS TIMESTAMP) AS event_time")
    warehouse.append(row, "relevance_pairs", transaction=("t", 1))
    warehouse.append(row, "relevance_pairs", transaction=("t", 1))
    again = Warehouse(spark, WarehouseSettings(path=warehouse.root), create=False)
    assert again.read("relevance_pairs").count() == 1, "the same transaction is applied once"
    assert again.read("relevance_pairs", version=0).count() == 0
    again.upsert(row.withColumn("split", row.split.substr(1, 0)), "relevance_pairs", ("query_item_id", "positive_item_id", "source"))
    assert [r.split for r in again.read("relevance_pairs").collect()] == [""]


def test_tables_whose_creation_was_killed_are_created_and_others_stay(spark, tmp_path):
    root = tmp_path / "warehouse"
    for name in ("item_embeddings", "item_texts"):  # one is opened by Spark at once, the other later
        (root / name / "_delta_log" / "_staged_commits").mkdir(parents=True)
        (root / name / "_delta_log" / ".00000000000000000000.json.1a2b.tmp").write_text("{")
    (root / "quarantine" / "_delta_log").mkdir(parents=True)
    data = root / "quarantine" / "part-0.parquet"
    data.write_bytes(b"rows")
    with pytest.raises(WarehouseError, match="table quarantine in .* cannot be opened"):
        Warehouse(spark, WarehouseSettings(path=str(root)))
    assert data.exists(), "a table that has lost its log is not removed"
    shutil.rmtree(data.parent)
    made = Warehouse(spark, WarehouseSettings(path=str(root)))
    assert made.read("item_embeddings").count() == made.read("item_texts").count() == 0
    versions = made.versions("item_embeddings", "catalog_items")
    assert Warehouse(spark, WarehouseSettings(path=str(root))).versions("item_embeddings", "catalog_items") == versions


@pytest.mark.parametrize("scheme", ["", "file://"])  # a plain folder is read by delta-rs, a URI by Spark
def test_rows_of_runs_are_replaced_and_read(spark, warehouse, scheme):
    store = Warehouse(spark, WarehouseSettings(path=f"{scheme}{warehouse.root}"))
    at = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone.utc)
    first = {"run_id": "o'ne\\", "step": "ingest", "status": "running", "started_at": at, "versions_read": {"catalog_items": 7}, "detail": "{}"}
    other = {"run_id": "two", "step": "ingest", "status": "done", "started_at": at, "rows_in": 5}
    for row in (first, other):
        store.replace("pipeline_runs", [row], {"run_id": row["run_id"], "step": row["step"]})
    done = first | {"status": "done", "rows_in": 3}
    for _ in range(2):
        store.replace("pipeline_runs", [done], {"run_id": first["run_id"], "step": "ingest"})
    names = [f.name for f in schema_of("pipeline_runs")]
    assert store.rows("pipeline_runs", {"run_id": first["run_id"]}) == [dict.fromkeys(names) | done]
    assert sorted(r["rows_in"] for r in store.rows("pipeline_runs", {"step": ("ingest", "embed"), "rows_in": [3, 5]}, "rows_in")) == [3, 5]
    assert store.rows("pipeline_runs", {"status": "running"}) == []
    assert {(r.run_id, r.rows_in) for r in store.read("pipeline_runs").collect()} == {(first["run_id"], 3), ("two", 5)}
    spark.sql("DELETE FROM tgq.pipeline_runs WHERE run_id = 'two'")
    assert [r["run_id"] for r in store.rows("pipeline_runs", {"step": "ingest"})] == [first["run_id"]]
    assert store.version("pipeline_runs") == 5


def test_two_warehouses_in_one_session_do_not_mix(spark, warehouse, tmp_path):
    other = Warehouse(spark, WarehouseSettings(path=str(tmp_path / "other")))
    assert other.root != warehouse.root
    assert "other" in spark.sql("DESCRIBE DETAIL tgq.quarantine").first()["location"]


def test_a_missing_warehouse_is_a_named_error(spark, tmp_path):
    with pytest.raises(WarehouseError, match="no tgq tables"):
        Warehouse(spark, WarehouseSettings(path=str(tmp_path / "nothing")), create=False)


def test_a_file_at_the_warehouses_path_is_a_named_error(spark, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WarehouseError, match="not writable"):
        Warehouse(spark, WarehouseSettings(path=str(tmp_path / "file" / "sub")))


def test_ddl_has_one_statement():
    for name in TABLES:
        assert ddl(name).count(";") == 0 and f"CREATE TABLE IF NOT EXISTS {name} (" in ddl(name)


def test_a_warehouse_of_an_earlier_version_opens_if_its_columns_are_the_same(spark, tmp_path):
    settings = WarehouseSettings(path=str(tmp_path / "w"))
    Warehouse(spark, settings)
    spark.sql("ALTER TABLE tgq.quarantine CHANGE COLUMN detail COMMENT 'an older comment'")
    Warehouse(spark, settings)
    spark.sql("ALTER TABLE tgq.quarantine ADD COLUMN mood STRING")
    with pytest.raises(WarehouseError, match=r"quarantine .* columns; they differ in mood"):
        Warehouse(spark, settings)


def test_a_column_of_a_later_version_is_added_to_an_earlier_ones_table(spark, tmp_path):
    settings = WarehouseSettings(path=str(tmp_path / "w"))
    place, earlier = f"file:{tmp_path}/w/catalog_items", [f for f in schema_of("catalog_items") if f.name != "additional_images"]
    spark.createDataFrame([], StructType(earlier)).write.format("delta").save(place)
    row = {"item_id": "1", "content_hash": "x"}
    spark.createDataFrame([tuple(row.get(f.name) for f in earlier)], StructType(earlier)).write.format("delta").mode("append").save(place)
    warehouse = Warehouse(spark, settings)
    [item] = warehouse.read("catalog_items").collect()
    assert (item.item_id, item.additional_images) == ("1", None)


@pytest.mark.parametrize("scheme", ["", "file://"])  # a plain folder is read by delta-rs, a URI by Spark
def test_records_of_an_earlier_version_get_the_column_and_keep_their_rows(spark, warehouse, scheme):
    """`task` of retrieval_metrics, a table that a local run does not open with Spark otherwise."""
    place, earlier = f"{warehouse.root}/retrieval_metrics", StructType([f for f in schema_of("retrieval_metrics") if f.name != "task"])
    row = {"run_id": "old", "model_version": "m", "slice": "all", "metric": "mrr", "k": 0, "value": 0.5}
    shutil.rmtree(place)
    spark.createDataFrame([tuple(row.get(f.name) for f in earlier)], earlier).write.format("delta").save(f"file:{place}")
    before = tgq.open_warehouse(warehouse.root)  # reads without Spark, and before any run of this version
    assert before.metrics("old")["value"].to_pylist() == [0.5] and not before.metrics("old", task="query_item").num_rows
    assert before.sql("SELECT * FROM query_metric_trend").num_rows == 0
    store = Warehouse(spark, WarehouseSettings(path=f"{scheme}{warehouse.root}"))
    assert [(r["run_id"], r["task"]) for r in store.rows("retrieval_metrics", {"run_id": "old"})] == [("old", None)]
    new = row | {"run_id": "new", "task": "query_item"}
    for _ in range(2):
        store.replace("retrieval_metrics", [new, new | {"metric": "map"}], {"run_id": "new"})
    assert sorted((r.run_id, r.metric, r.task) for r in store.read("retrieval_metrics").collect()) == [
        ("new", "map", "query_item"), ("new", "mrr", "query_item"), ("old", "mrr", None)
    ]  # fmt: skip
    store.replace("retrieval_metrics", [row | {"value": 0.7}], {"run_id": "old"})
    assert [(r["value"], r["task"]) for r in store.rows("retrieval_metrics", {"run_id": "old"})] == [(0.7, None)]
    again = Warehouse(spark, WarehouseSettings(path=f"{scheme}{warehouse.root}"))
    assert len(again.rows("retrieval_metrics", {"metric": ("mrr", "map")})) == 3


def test_a_session_with_the_wrong_kind_of_catalog_is_an_error(spark, tmp_path):
    with pytest.raises(ConfigError, match="metastore_schema is shop, but this session's catalog is in-memory"):
        Warehouse(spark, WarehouseSettings(path=str(tmp_path), metastore_schema="shop"))


def test_a_warehouse_opened_twice_in_one_session_reads_tables_that_the_other_has_registered(spark, warehouse):
    again = Warehouse(spark, WarehouseSettings(path=warehouse.root))
    assert again.read("index_shards").count() == warehouse.read("index_shards").count() == again.read("index_shards").count() == 0


def test_the_note_of_the_rows_outlives_maintenance(spark, warehouse):
    rows = spark.createDataFrame([(f"item-{i}", f"item-{i + 1}", "group", 1.0, "test", "g", None) for i in range(4)],
                                 warehouse.read("relevance_pairs").schema).repartition(4)  # fmt: skip
    assert warehouse.note_of("relevance_pairs") is None
    warehouse.overwrite(rows, "relevance_pairs", "key 1")
    warehouse.delta("relevance_pairs").optimize().executeCompaction()
    assert warehouse.version("relevance_pairs") == 2 and warehouse.note_of("relevance_pairs") == "key 1"
    warehouse.overwrite(rows.limit(2), "relevance_pairs", "key 2")
    assert warehouse.note_of("relevance_pairs") == "key 2" and warehouse.read("relevance_pairs").count() == 2
    warehouse.append(rows.limit(1), "relevance_pairs")
    assert warehouse.note_of("relevance_pairs") is None, "rows were added that no key decided"


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_short_questions_are_answered_alike_by_both_engines(spark, warehouse, scheme):
    store = Warehouse(spark, WarehouseSettings(path=f"{scheme}{warehouse.root}"))
    assert store.sums("tower_features", "fingerprint", "bytes") == {} and not store.has_rows("tower_features", {"fingerprint": "a"})
    schema = store.read("tower_features").schema
    sizes = (("a", 1), ("a", 2_000_000_000), ("a", 2_000_000_000), ("b", 5))
    rows = [{"fingerprint": f, "source_hash": f"{f}{n}", "bytes": n, "run_id": "r"} for f, n in sizes]
    store.append(spark.createDataFrame([tuple(row.get(f.name) for f in schema) for row in rows], schema), "tower_features")
    spark.sql("DELETE FROM tgq.tower_features WHERE source_hash = 'b5'")
    assert store.sums("tower_features", "fingerprint", "bytes") == {"a": 4_000_000_001}
    assert store.has_rows("tower_features", {"fingerprint": ("b", "a"), "run_id": "r"})
    assert not store.has_rows("tower_features", {"fingerprint": "b"}), "the row was deleted"


def test_conditions_of_several_values_are_alike_in_a_folder_and_where_spark_reads(spark, warehouse):
    stores = warehouse, Warehouse(spark, WarehouseSettings(path=f"file://{warehouse.root}"))
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    for run, step in (("r1", "ingest"), ("r1", "embed"), ("r2", "ingest"), ("r3", "index")):
        warehouse.replace("pipeline_runs", [dict(run_id=run, step=step, status="done", started_at=at)], {"run_id": run, "step": step})
    conditions = [{"run_id": ("r1", "r2"), "step": ["ingest", "embed"]}, {"run_id": ("none",)}]
    for where, count in zip(conditions, (3, 0), strict=True):
        local, read = ([sorted(map(str, store.rows("pipeline_runs", where, "run_id", "step")))] for store in stores)
        assert local == read and len(local[0]) == count
        assert [store.has_rows("pipeline_runs", where) for store in stores] == [count > 0] * 2
    stores[1].replace("pipeline_runs", [], {"run_id": ("r1", "r3")})
    assert [row["run_id"] for row in warehouse.rows("pipeline_runs", {"run_id": ("r1", "r2", "r3")}, "run_id")] == ["r2"]
