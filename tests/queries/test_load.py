"""Queries, judgments and click logs written by hand: every row is kept, or refused with its reason; a second run writes only what changed."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tgq.catalog.reading.location import Location
from tgq.errors import SourceError
from tgq.queries.inputs import described, open_inputs
from tgq.queries.load import TABLES, last_load, load, prepare
from tgq.query_tower.text import normalised_text
from tgq.run.night import StepResult
from tgq.run.records import run_step
from tgq.training.data.split import split_of

ITEMS = ("i1", "i2", "i3", "i4")


@pytest.fixture
def run(spark, warehouse, make_night, tmp_path):
    """run(run_id, **settings of queries): loads the files of tmp_path as the ingest step does, and gives its figures."""
    rows = [(i, "hash", i != "gone") for i in (*ITEMS, "gone")]
    spark.createDataFrame(rows, "item_id string, content_hash string, is_active boolean").write.format("delta").mode("append") \
        .saveAsTable(warehouse.qualified("catalog_items"))  # fmt: skip
    location = Location(f"file:{tmp_path}/catalog.parquet", "parquet", str(tmp_path))

    def run(run_id="r1", **queries):
        night = make_night(run_id, queries=queries)

        def step(night):
            inputs, last = open_inputs(spark, night.settings, location), last_load(night)
            run.prepared = prepare(night, inputs, last)
            return StepResult(figures={"queries": load(night, inputs, last, run.prepared)})

        return run_step(night, "ingest", step).figures["queries"]

    run.night = lambda **queries: make_night("dry", queries=queries)
    run.location = location
    return run


@pytest.fixture
def table(warehouse):
    return lambda name: [row.asDict() for row in warehouse.read(name).collect()]


@pytest.fixture
def quarantine(warehouse):
    """quarantine(run_id): rows by (stage, item_id, reason)."""

    def read(run_id):
        rows = warehouse.read("quarantine").where(f"run_id = '{run_id}'").collect()
        assert len({(r.stage, r.item_id, r.occurrence) for r in rows}) == len(rows), "the key of quarantine is not one"
        return Counter((r.stage, r.item_id, r.reason) for r in rows)

    return read


def test_every_row_ends_once_in_a_table_or_with_its_reason(run, table, quarantine, tmp_path, warehouse):
    (tmp_path / "queries.csv").write_text(
        "query_id,query,source,popularity\n"
        "q1,Red  Shoes,human,10\nq2,red shoes,,x\nq3,Blue hat,generated,-1\nq3,blue  HAT,generated,7\n"
        "q4,  ,human,\n,no id,human,\nq5,one,,\nq5,another,,\nq6,too,many,cells,here\n"
    )
    (tmp_path / "judgments.jsonl").write_text("\n".join([
        *(json.dumps(row) for row in (
            {"query_id": "q1", "item_id": "i1", "grade": 3, "weight": 2}, {"query_id": "q1", "item_id": "i2", "grade": "2.5"},
            {"query_id": "q3", "item_id": "i1", "grade": "Exact", "event_time": "2026-01-02T03:04:05Z"},
            {"query_id": "q3", "item_id": "i1", "grade": 2, "event_time": "2025-01-02T03:04:05Z"},
            {"query_id": "q1", "item_id": "i3", "grade": 4}, {"query_id": "q1", "item_id": "i3", "grade": -1}, {"query_id": "q1", "item_id": "i3"},
            {"query_id": "q1", "item_id": "i3", "grade": "good"}, {"query_id": "q1", "grade": 1}, {"item_id": "i4", "grade": 1},
            {"query_id": "q5", "item_id": "i4", "grade": 1}, {"query_id": "q9", "item_id": "i4", "grade": 1},
            {"query_id": "q1", "item_id": "gone", "grade": 1}, {"query_id": "q1", "item_id": "NaN", "grade": "nan"},
        )),
        '{"query_id": "q1", "item_id": "i4", "grade": 1',
    ]))  # fmt: skip
    names = {"path": "queries.csv", "judgments": "judgments.jsonl", "labels": {"exact": 3}}
    figures = run(**names)
    queries = {row["query_id"]: row for row in table("relevance_queries")}
    assert set(queries) == {"q1", "q2", "q3"}
    assert queries["q3"]["popularity"] == 7 and queries["q1"]["popularity"] == 10 and queries["q2"]["popularity"] is None
    assert queries["q1"]["text"] == "Red  Shoes" and queries["q2"]["source"] == "file" and queries["q1"]["run_id"] == "r1"
    for row in queries.values():
        assert row["normalised_text"] == normalised_text(row["text"]) and row["split"] == split_of(row["normalised_text"])
    assert queries["q1"]["split"] == queries["q2"]["split"], "one text is in one split"
    judgments = {(row["query_id"], row["item_id"]): (row["grade"], row["weight"], row["source"]) for row in table("query_judgments")}
    assert judgments == {("q1", "i1"): (3, 2, "judgments"), ("q1", "i2"): (2.5, 1, "judgments"), ("q3", "i1"): (2.5, 1, "judgments")}
    [timed] = [row["event_time"] for row in table("query_judgments") if row["query_id"] == "q3"]
    assert timed.year == 2026
    expected = Counter({
        ("queries", "q4", "empty_query"): 1, ("queries", "(missing)", "missing_query_id"): 1, ("queries", "q5", "duplicate_query_id"): 2,
        ("queries", "(missing)", "malformed_row"): 1, ("judgments", "i3", "grade_out_of_range"): 2, ("judgments", "i3", "missing_grade"): 1,
        ("judgments", "i3", "grade_not_a_number"): 1, ("judgments", "(missing)", "missing_item_id"): 1, ("judgments", "i4", "missing_query_id"): 1,
        ("judgments", "i4", "unknown_query"): 2, ("judgments", "gone", "unknown_item"): 1, ("judgments", "NaN", "grade_not_a_number"): 1,
        ("judgments", "(missing)", "malformed_row"): 1,
    })  # fmt: skip
    assert quarantine("r1") == expected
    assert figures["rows"] == {"queries": 9, "judgments": 15} and figures["repeated"] == {"queries": 1, "judgments": 1}
    refused = Counter({kind: sum(n for name, n in figures["quarantined"].items() if name.startswith(kind)) for kind in figures["rows"]})
    assert figures["rows"]["queries"] == len(queries) + 1 + refused["queries"] and figures["rows"]["judgments"] == 3 + 1 + refused["judgments"]
    assert figures["queries"] == figures["train"] + figures["test"] == 3 and figures["judgments"] == 3
    [row] = warehouse.read("quarantine").where("reason = 'grade_not_a_number' AND item_id = 'i3'").collect()
    assert json.loads(row.fields) == {"query_id": "q1", "item_id": "i3", "grade": "good"} and "'good'" in row.detail

    versions = warehouse.versions(*TABLES)
    assert run("r2", **names) == figures and not run.prepared, "the same files are not read again"
    assert warehouse.versions(*TABLES) == versions and quarantine("r2") == expected
    with open(tmp_path / "judgments.jsonl", "a") as file:
        file.write('\n{"query_id": "q1", "item_id": "i9", "grade": 1}\n')
    assert run("r3", **names)["quarantined"]["judgments.unknown_item"] == 2 and run.prepared
    assert warehouse.versions(*TABLES) == versions, "no judgment changed"
    (tmp_path / "queries.csv").write_text("query_id,query\nq1,Red  Shoes\nq3,blue hat\n")
    assert run("r4", **names)["queries"] == 2
    assert [warehouse.version(name) - versions[name] for name in TABLES] == [1, 0], "the judgments are still of q1 and q3"


def test_a_click_log_gives_queries_popularity_and_grades_beside_those_of_people(run, table, quarantine, tmp_path):
    rng, n = np.random.default_rng(0), 400
    own = {"i1": 0.6, "i2": 0.2, "i3": 0.02, "gone": 0.3}
    rows = []
    for spelling, times in (("Red shoes", n), ("red  SHOES", n // 4), ("hat", n)):
        for _ in range(times):
            for rank, item in enumerate(rng.permutation(list(own)), start=1):
                rows.append((spelling, item, rank, bool(rng.random() < own[item] / rank)))
    rows += [("rare", "i4", 1, True), ("hat", None, 1, True), ("hat", "i1", None, True), (" ", "i1", 1, False)]
    pd.DataFrame(rows, columns=["typed", "item_id", "rank", "clicked"]).to_parquet(tmp_path / "clicks.parquet")
    pd.DataFrame({"query_id": ["q1"], "query": ["RED shoes"]}).to_parquet(tmp_path / "queries.parquet")
    pd.DataFrame({"query_id": ["q1"], "item_id": ["i1"], "grade": [1.0]}).to_parquet(tmp_path / "judgments.parquet")
    names = {"path": "queries.parquet", "judgments": "judgments.parquet", "clicks": {"path": ".", "query": "typed"}}
    figures = run(**names)
    queries = {row["normalised_text"]: row for row in table("relevance_queries")}
    assert {text: (row["source"], row["popularity"]) for text, row in queries.items()} == {"red shoes": ("file", 500), "hat": ("clicks", 400)}
    assert queries["red shoes"]["query_id"] == "q1" and queries["hat"]["query_id"].startswith("text-") and queries["hat"]["text"] == "hat"
    grades = {(row["query_id"], row["item_id"]): row for row in table("query_judgments")}
    assert set(grades) == {(q["query_id"], i) for q in queries.values() for i in ("i1", "i2", "i3")}
    assert grades["q1", "i1"]["grade"] == 1 and grades["q1", "i1"]["source"] == "judgments", "people's grades stand"
    hat = queries["hat"]["query_id"]
    assert [grades[hat, i]["grade"] for i in ("i1", "i2", "i3")] == [3, 1, 0]
    assert all(0.5 < grades[hat, i]["weight"] < 1 for i in ("i1", "i2", "i3"))
    assert np.allclose(figures["clicks"]["examination"], [1, 1 / 2, 1 / 3, 1 / 4], atol=0.1)
    assert {"pairs": 9, "graded": 6, "too_few_examined": 1, "unknown_item": 2}.items() <= figures["clicks"].items()
    assert figures["judgments"] == 6 and figures["repeated"] == {"queries": 0, "judgments": 0} and figures["rows"]["clicks"] == len(rows)
    assert quarantine("r1") == Counter({("clicks", "(missing)", "missing_item_id"): 1, ("clicks", "i1", "bad_rank"): 1, ("clicks", "i1", "empty_query"): 1})


@pytest.mark.parametrize("queries, judgments, settings, said", [
    (None, None, {}, r"queries.path: there is nothing at queries.csv: name an existing file"),
    ("id,query\n1,a\n", None, {}, r"queries.csv has no column 'query_id', which queries.columns.query_id names: name one of its columns: id, query"),
    ("query_id,query\n", None, {}, r"queries.csv is empty: check"),
    ("query_id,query\n1, \n", None, {}, r"none of the 1 rows of queries.csv can be used \(empty_query 1\): correct queries.columns"),
    ("query_id,query\n1,a\n", "query_id,item_id,grade\n1,i1,5\n1,i2,9\n", {},
     r"no grade of the 2 rows of judgments.csv lies in 0 to 3; they are 5 to 9: set queries.highest_grade"),
    ("query_id,query\n1,a\n", "query_id,item_id,grade\n1,i1,E\n", {}, r"no grade .* is a number \(.*'E'.*\): give each word its number in queries.labels"),
    ("query_id,query\n1,a\n", "query_id,item_id,grade\n1,x1,1\n1,gone,1\n", {},
     r"none of the 2 judgments of judgments.csv is about an item of the catalog \(unknown_item 2\); they name '(x1|gone)', where there is 'i\d'"),
    ("query_id,query\n1,a\n", "query_id,item_id,grade\n7,i1,1\n", {}, r"is about a query of queries.path .* they name '7', where there is '1'"),
    ("query_id,query\n1,a\n", "query_id,item_id,grade\n1,i1,1\n", {"judgment_columns": {"weight": "trust"}},
     r"judgments.csv has no column 'trust', which queries.judgment_columns.weight names"),
])  # fmt: skip
def test_a_mistake_is_one_line_that_says_what_to_do(run, tmp_path, queries, judgments, settings, said):
    for name, text in (("queries", queries), ("judgments", judgments)):
        if text is not None:
            (tmp_path / f"{name}.csv").write_text(text)
    with pytest.raises(SourceError, match=said) as caught:
        run(path="queries.csv", judgments="judgments.csv" if judgments else None, **settings)
    assert "\n" not in str(caught.value)


def test_files_that_may_be_absent(run, spark, tmp_path):
    names = {"path": "queries.csv?", "judgments": "judgments.csv?"}
    inputs = open_inputs(spark, run.night(**names).settings, run.location)
    assert not inputs.found and [line.partition(":")[0] for line in inputs.notes] == ["no queries", "no judgments"]
    (tmp_path / "queries.csv").write_text("query_id,query\n1,a\n")
    inputs = open_inputs(spark, run.night(**names).settings, run.location)
    assert list(inputs.found) == ["queries"]
    first, second = described(inputs)
    assert first == "queries: about 2 rows in queries.csv, columns query_id, query" and "judgments.csv" in second
    assert run(**names)["judgments"] == 0
