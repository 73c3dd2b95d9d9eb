"""Names of columns, ids of runs and texts that are pieces of SQL: they name what they say, or are refused, and no statement changes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from tgq.catalog.reading.feed import feed_options
from tgq.catalog.reading.source import open_source
from tgq.errors import ConfigError, SourceError, UsageError
from tgq.feeds.feed import read
from tgq.feeds.files import feed_files
from tgq.feeds.plan import plan_feed
from tgq.feeds.source_row import SourceRows
from tgq.run.opening import check_run_id
from tgq.settings.sections import CatalogSettings, WarehouseSettings
from tgq.storage import small_tables
from tgq.storage.warehouse import Warehouse, sql_string

IDENTIFIERS = {
    "backtick": "ti`tle", "only-a-backtick": "`", "closed-backtick": "`title`", "quote": "ti'tle", "double-quote": 'ti"tle', "comment": "title--",
    "statement": "x; DROP TABLE catalog_items; --", "always-true": "x' OR '1'='1", "union": "x UNION SELECT * FROM quarantine", "star": "*",
    "function": "reflect('java.lang.Runtime','exec')", "variable": "${spark.app.name}", "template": "{{7*7}}", "alias": "title AS item_id", "dot": "a.title",
    "newline": "ti\ntle", "zero": "ti\0tle", "override": "\u202eeltit", "semicolon": "title;",
}  # fmt: skip


def catalog(name: str, **more) -> CatalogSettings:
    return CatalogSettings.model_validate({"columns": {"title": name, "brand": None, "category": None, "attributes": None, "image_bytes": None},
                                           "optional_columns": ["image_uri"], **more})  # fmt: skip


def rows_of(path, settings: CatalogSettings) -> list[dict]:
    format, options = {"parquet": "parquet", "jsonl": "jsonl"}[path.suffix[1:]], feed_options(settings)
    plan = plan_feed(feed_files(str(path)), format, options, str(path))
    return [SourceRows(options)(raw, 0) for part in plan.parts for raw in read(part, format, options)]


@pytest.mark.parametrize("name", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_a_column_with_the_name_of_a_statement_is_a_column(tmp_path, name):
    row = {"item_id": "1", name: "a shoe", "title": "another", "secret": "s"}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    for file in ("a.parquet", "a.jsonl"):
        [found] = rows_of(tmp_path / file, catalog(name, slice_columns=[name]))
        assert (found["title"], found["slices"], found["reason"]) == ("a shoe", [(name, "a shoe")], None)


@pytest.mark.parametrize("name", IDENTIFIERS.values(), ids=IDENTIFIERS)
def test_a_column_that_is_not_there_is_named_in_one_line(tmp_path, name):
    pq.write_table(pa.table({"item_id": ["1"], "other": ["a shoe"]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match=r"catalog\.columns\.title names the column") as caught:
        rows_of(tmp_path / "a.parquet", catalog(name))
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", [n for n in IDENTIFIERS.values() if not set(n) & set(" ,;{}()\n\t=\0")], ids=ascii)
def test_a_column_of_a_delta_table_with_the_name_of_a_statement(spark, tmp_path, name):
    """Delta tables are read by Spark. Names with blanks, brackets and semicolons no Delta table has."""
    write_deltalake(str(tmp_path / "shop"), pa.table({"item_id": ["1"], name: ["a shoe"]} | ({} if name == "title" else {"title": ["another"]})))
    [row] = open_source(spark, catalog(name, path=str(tmp_path / "shop"))).frame.select("title", "reason").collect()
    assert (row["title"], row["reason"]) == ("a shoe", None)


RUN_IDS = {
    "always-true": "x' OR '1'='1", "statement": "x'; DROP TABLE catalog_items; --", "out": "../../etc", "absolute": "/etc", "newline": "a\nb", "zero": "a\0",
    "escape": "\x1b[2J", "variable": "${env:HOME}", "empty": "", "dots": "..", "long": "a" * 200, "blank": "a b", "override": "a\u202eb", "markup": "<b>",
}  # fmt: skip


@pytest.mark.parametrize("run_id", RUN_IDS.values(), ids=RUN_IDS)
def test_an_id_of_a_run(run_id):
    with pytest.raises(UsageError, match="the run id .* is not valid: use at most 120 letters, digits and - _ .") as caught:
        check_run_id(run_id)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


TEXTS = {
    "quote": "x' OR '1'='1", "escaped-quote": "x\\' OR 1=1 --", "backslash": "a\\", "double-quote": 'a"b', "variable": "${spark.app.name}",
    "environment": "${env:HOME}", "newline": "a\nb", "comment": "a --", "unicode-escape": "\\u0027 OR 1=1",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_a_query_of_a_small_table(tmp_path, text):
    write_deltalake(str(tmp_path / "t"), pa.table({"run_id": ["a", text, "b"], "n": [1, 2, 3]}))
    assert small_tables.select(str(tmp_path / "t"), ["n"], {"run_id": text}) == [{"n": 2}]
    small_tables.replace(str(tmp_path / "t"), [{"run_id": text, "n": 4}], {"run_id": text})
    assert sorted(DeltaTable(str(tmp_path / "t")).to_pyarrow_table()["n"].to_pylist()) == [1, 3, 4]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_a_statement_of_spark(spark, text):
    assert spark.sql(f"SELECT {sql_string(text)} AS said").collect()[0]["said"] == text


@pytest.mark.parametrize("schema", ["x; DROP SCHEMA y", "x` LOCATION '/etc", "x--", "a.b.c", "${env:HOME}", "x y", ""])
def test_a_schema_of_the_metastore(spark, tmp_path, schema):
    with pytest.raises(ConfigError, match="warehouse.metastore_schema: '.*' is not an identifier" if schema else "metastore_schema is") as caught:
        Warehouse(spark, WarehouseSettings(path=str(tmp_path), metastore_schema=schema))
    assert "\n" not in str(caught.value)
