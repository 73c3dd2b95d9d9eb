"""The ingest step with queries beside a catalog of texts: its figures, its account, and what it does before long work."""

import pandas as pd
import pytest

from tgq.errors import SourceError
from tgq.night.ingestion import ingest
from tgq.night.nightly import STEPS
from tgq.queries.load import TABLES
from tgq.run.records import run_step

QUERIES = {"path": "queries.jsonl?", "judgments": "judgments.parquet?"}


@pytest.fixture
def shop(tmp_path, make_night):
    """shop(run_id, **settings of queries): the ingest step over tmp_path/shop, as a night runs it."""
    folder = tmp_path / "shop"
    folder.mkdir()
    pd.DataFrame({"item_id": ["1", "2", None], "title": ["red shoe", "blue hat", "lost"]}).to_parquet(folder / "catalog.parquet")

    def step(run_id, **queries):
        columns = {"image_uri": "image?", "image_bytes": None, "brand": None, "category": None, "attributes": None}
        night = make_night(run_id, catalog={"path": str(folder), "columns": columns}, queries=queries)
        said = []
        night.progress.say = said.append
        result = run_step(night, "ingest", STEPS["ingest"])
        return result, said

    step.folder = folder
    return step


def test_a_night_with_queries_counts_the_catalog_as_one_without(shop, warehouse):
    assert STEPS["ingest"] is ingest
    plain, said = shop("r1", **QUERIES)
    assert "queries" not in plain.figures and sum("which may be absent" in line for line in said) == 2
    before = warehouse.versions(*TABLES)

    (shop.folder / "queries.jsonl").write_text('{"query_id": 7, "query": "Shoe"}\n{"query_id": 8, "query": ""}\n')
    pd.DataFrame({"query_id": [7, 7], "item_id": [1, 3], "grade": [3, 1]}).to_parquet(shop.folder / "judgments.parquet")
    result, said = shop("r2", **QUERIES)
    counts = ("rows_in", "rows_out", "quarantined", "inactive")
    assert [getattr(result, name) for name in counts] == [getattr(plain, name) for name in counts] == [3, 2, 1, 0]
    figures = result.figures["queries"]
    assert (figures["queries"], figures["judgments"], figures["quarantined"]) == (1, 1, {"queries.empty_query": 1, "judgments.unknown_item": 1})
    assert any("1 queries" in line and "1 judgments" in line for line in said)
    written = result.versions_written
    assert all(written[table] == before[table] + 1 for table in TABLES)
    assert written["quarantine"] == warehouse.version("quarantine")

    same, _ = shop("r3", **QUERIES)
    assert same.figures["queries"] == figures and {t: same.versions_written[t] for t in TABLES} == {t: written[t] for t in TABLES}
    stages = {r: {row.stage for row in warehouse.read("quarantine").where(f"run_id = '{r}'").collect()} for r in ("r1", "r2", "r3")}
    assert stages == {"r1": {"ingest"}, "r2": {"ingest", "queries", "judgments"}, "r3": {"ingest", "queries", "judgments"}}


@pytest.mark.parametrize("wrong, said", [
    ({"path": "none.csv"}, "queries.path: there is nothing at none.csv"),
    ({"path": "catalog.parquet", "columns": {"query_id": "item_id"}}, "catalog.parquet has no column 'query'"),
])  # fmt: skip
def test_a_wrong_path_or_column_is_said_before_the_catalog_is_read(shop, warehouse, wrong, said):
    with pytest.raises(SourceError, match=said):
        shop("r1", **wrong)
    assert warehouse.version("catalog_items") == 0
