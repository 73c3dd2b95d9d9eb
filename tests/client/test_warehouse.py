"""A warehouse read without Spark has the rows that Spark reads, also after deletions."""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

import tgq
from tgq.client.warehouse import TABLES
from tgq.errors import UsageError, WarehouseError
from tgq.settings.load import data_folder

VIEWS = ("published_items", "published_embeddings", "published_neighbors", *sorted(p.stem for p in (data_folder("sql") / "views").glob("*.sql")))


@pytest.fixture(scope="module")
def opened(published):
    return tgq.open_warehouse(published.root)


@pytest.mark.parametrize("name", [*TABLES, *VIEWS])
def test_every_table_and_view_has_the_rows_that_spark_reads(opened, warehouse_of, name):
    here = opened.sql(f"SELECT * FROM {name}")
    there = warehouse_of.spark.sql(f"SELECT * FROM {warehouse_of.schema}.{name}")
    assert here.num_rows == there.count()
    assert set(here.column_names) == set(there.columns)
    if key := next((k for k in ("item_id", "run_id", "category") if k in there.columns), None):
        assert sorted(here[key].to_pylist()) == sorted(row[0] for row in there.select(key).collect())


def test_rows_were_deleted_under_deletion_vectors(published):
    """The precondition of the test above."""
    logs = (published.root / "catalog_items" / "_delta_log").glob("*.json")
    assert any('"deletionVector":{' in log.read_text() for log in logs)


def test_items_and_embeddings(opened):
    items, vectors = opened.items(columns=["item_id", "title"]), opened.embeddings()
    assert items.column_names == ["item_id", "title"] and "image_bytes" not in opened.items().column_names
    assert "something else entirely" in items["title"].to_pylist() and "new-item" in items["item_id"].to_pylist()
    matrix = np.stack(vectors["embedding"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)
    assert vectors["embedding"].type == pa.list_(pa.field("element", pa.float32())) or vectors["embedding"].type.value_type == pa.float32()
    category = vectors["category"][0].as_py()
    top = category.split(" > ")[0]
    assert 0 < opened.embeddings(category=category).num_rows <= opened.embeddings(category=top).num_rows < vectors.num_rows + 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_accent_in_a_category_may_be_composed_or_not(opened, form):
    for wanted in ("Caf\u00e9 > Th\u00e9", "Caf\u00e9"):
        category = unicodedata.normalize(form, wanted)
        assert opened.items(category=category)["item_id"].to_pylist() == opened.embeddings(category=category)["item_id"].to_pylist() == ["new-item"]
        assert opened.search(text="tea", category=category)["item_id"].to_pylist() == ["new-item"]


def test_neighbours_and_search(opened):
    item = opened.items(columns=["item_id"])["item_id"][0].as_py()
    near = opened.neighbors(item, k=3)
    assert near["rank"].to_pylist() == [1, 2, 3] and near["score"].to_pylist() == sorted(near["score"].to_pylist(), reverse=True)
    assert opened.neighbors(item).num_rows > 3
    hits = opened.search(item_id=item, k=3)
    assert hits.column_names == ["item_id", "title", "brand", "category", "score"] and item not in hits["item_id"].to_pylist()
    assert opened.metrics().num_rows > 20 and set(opened.metrics()["run_id"].to_pylist()) == {opened.published.run_id}


def test_a_hybrid_search_puts_the_item_with_the_words_first(opened, monkeypatch, tmp_path):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path))
    text = "something else entirely"  # a title that no other item has a word of
    hits = opened.search(text=text, hybrid=True, k=60)
    first = hits.slice(0, 1).to_pylist()[0]
    assert first["title"] == text and hits["score"].to_pylist() == sorted(hits["score"].to_pylist(), reverse=True)
    vectors = opened.search(text=text, k=60)["item_id"].to_pylist()
    assert first["score"] == pytest.approx(1 / 61 + 1 / (61 + vectors.index(first["item_id"])))
    assert sorted(hits["item_id"].to_pylist()) == sorted(vectors)
    top = first["category"].split(" > ")[0]
    assert opened.search(text=text, hybrid=True, category=top, k=60)["item_id"][0].as_py() == first["item_id"]


@pytest.mark.parametrize("act, kind, said", [
    (lambda w: w.neighbors("nobody"), UsageError, "item 'nobody' has no published neighbours"),
    (lambda w: w.search(item_id="nobody"), UsageError, "item 'nobody' is not published"),
    (lambda w: w.search(), UsageError, "exactly one"),
    (lambda w: w.search(item_id="x", hybrid=True), UsageError, "a hybrid search compares words, and there is no text"),
    (lambda w: w.search(text=" "), UsageError, "the text of the search is empty"),
    (lambda w: w.search(text="x", category="Nowhere"), UsageError, "no category 'Nowhere'"),
    (lambda w: w.items(category="Nowhere"), UsageError, "no published item is in the category 'Nowhere'"),
    (lambda w: w.embeddings(category="Nowhere"), UsageError, "no published item is in the category 'Nowhere'"),
    (lambda w: w.sql("SELECT nothing FROM catalog_items"), UsageError, "SQL: .*nothing"),
    (lambda w: w.sql("SELEC"), UsageError, "SQL"),
    (lambda w: tgq.open_warehouse("/nonexistent/warehouse"), WarehouseError, "there is no tgq warehouse in /nonexistent/warehouse"),
])  # fmt: skip
def test_a_mistake_is_one_line(opened, act, kind, said):
    with pytest.raises(kind, match=said) as caught:
        act(opened)
    assert "\n" not in str(caught.value)


def test_before_the_first_publication(published, tmp_path):
    import shutil

    root = tmp_path / "unpublished"
    shutil.copytree(published.root, root, ignore=shutil.ignore_patterns("index", "reports", "mlartifacts"))
    unpublished = tgq.open_warehouse(root)
    assert unpublished.published is None and "nothing published" in repr(unpublished)
    assert unpublished.sql("SELECT * FROM published_items").num_rows == 0 and unpublished.sql("SELECT * FROM catalog_items").num_rows > 0
    for act in (unpublished.items, unpublished.embeddings, unpublished.metrics, lambda: unpublished.neighbors("x"), lambda: unpublished.search(text="x")):
        with pytest.raises(WarehouseError, match="nothing is published"):
            act()


@pytest.mark.parametrize("name", TABLES)
def test_delta_rs_polars_and_duckdb_read_the_tables(published, warehouse_of, name):
    """The snippets of docs/how-to/read-without-spark.md."""
    import duckdb
    import polars
    from deltalake import DeltaTable, QueryBuilder

    path = f"{published.root}/{name}"
    rows = warehouse_of.read(name).count()
    batches = QueryBuilder().register("t", DeltaTable(path)).execute("SELECT * FROM t")
    items = pa.RecordBatchReader.from_stream(batches).read_all()
    assert items.num_rows == rows
    assert polars.scan_delta(path).select(polars.len()).collect().item() == rows
    assert duckdb.sql("SELECT count(*) FROM items").fetchall() == [(rows,)]
