"""Pairs from groups, tables and links, between items written by hand."""

from datetime import datetime, timezone

import pytest

from tgq.catalog import pairs as module
from tgq.catalog.pairs import load_pairs
from tgq.catalog.reading.location import Location
from tgq.errors import SourceError
from tgq.run.night import Night
from tgq.settings.sections import CatalogSettings, PairSettings, Settings, WarehouseSettings
from tgq.training.data.split import split_of

ITEMS = [  # item, group, variant, picture, active
    ("a1", "A", "red", "p1", True), ("a2", "A", "red", "p2", True), ("a3", "A", "blue", "p3", True), ("a4", "A", None, "p3", True),
    ("a5", "A", "green", "p5", False), ("b1", "B", None, None, True), ("b2", "B", None, None, True), ("c1", None, None, "p1", True),
]  # fmt: skip


@pytest.fixture
def load(spark, warehouse, tmp_path):
    """Loads pairs under some settings and gives (counts, {(query, positive, source): row})."""
    rows = [(*item, "hash") for item in ITEMS]
    frame = spark.createDataFrame(rows, "item_id string, group_id string, variant_id string, image_hash string, is_active boolean, content_hash string")
    frame.write.format("delta").mode("append").saveAsTable(warehouse.qualified("catalog_items"))

    def load(**settings):
        whole = Settings(warehouse=WarehouseSettings(path=warehouse.root), catalog=CatalogSettings(path=str(tmp_path)), pairs=PairSettings(**settings))
        night = Night(spark, whole, warehouse, "r", datetime.now(timezone.utc))
        counts = load_pairs(night, Location(f"file:{tmp_path}/catalog.parquet", "parquet", str(tmp_path)))
        found = warehouse.read("relevance_pairs").collect()
        by_key = {(r.query_item_id, r.positive_item_id, r.source): r for r in found}
        assert len(by_key) == len(found) and not any(q == p for q, p, _ in by_key)
        return counts, by_key

    load.warehouse = warehouse
    return load


def test_groups(load, monkeypatch):
    counts, found = load()
    weights = {(q, p): r.weight for (q, p, _), r in found.items()}
    judged = {("a1", "a3"), ("a1", "a4"), ("a2", "a3"), ("a2", "a4"), ("b1", "b2")}
    ignored = {("a1", "a2"), ("a3", "a4")}  # one variant, one picture
    assert weights == {pair: w for pairs, w in ((judged, 1.0), (ignored, 0.0)) for a, b in pairs for pair in ((a, b), (b, a))}
    assert {r.group_id: r.split for r in found.values()} == {g: split_of(g) for g in "AB"}
    assert counts["ignored"] == 4 and sum(v for k, v in counts.items() if k.startswith("group.")) == 10
    version = load.warehouse.version("relevance_pairs")
    assert load() == (counts, found) and load.warehouse.version("relevance_pairs") == version, "the same items have the same pairs"
    load(test_share=0.9)
    assert load.warehouse.version("relevance_pairs") == version + 1
    monkeypatch.setattr(module, "MAX_GROUP", 2)
    assert len(load()[1]) == 4, "two items of A and two of B"
    assert load(source="none") == ({}, {})


def test_links_between_groups_and_a_table_of_items(load, tmp_path):
    (tmp_path / "links.csv").write_text("kind,src,dst\nrelated,A,B\nrelated,A,B\nupsell,B,A\nupsell,B,Z\nself,A,A\n")
    for share in (1.0, 0.0, 0.5):
        counts, found = load(source="links", path="links.csv", key_column="group_id", test_share=share)
        a, b = {"a1", "a2", "a3", "a4"}, {"b1", "b2"}
        sides = {split_of(g, share) for g in "AB"}
        expected = {(q, p, "related") for q in a for p in b} | {(q, p, "upsell") for q in b for p in a} | {(q, p, "self") for q in a for p in a if q != p}
        if len(sides) == 2:  # a pair from the training side to the test side is left out
            train = a if split_of("A", share) == "train" else b
            expected = {(q, p, s) for q, p, s in expected if q not in train or p in train}
        assert set(found) == expected and counts["rows"] == 5
        assert {r.weight for (q, p, s), r in found.items() if s != "self"} <= {1.0}
        assert found["a3", "a4", "self"].weight == 0, "identical pictures are no positives"

    (tmp_path / "clicks.csv").write_text("query_item_id,positive_item_id,weight,event_time\na1,c1,2,\na1,b1,0.5,2026-01-02\na1,b1,3,2026-01-01\n"
                                         "c1,b2,x,\nb1,a5,1,\nb1,b1,1,\nb1,b2,-1,\n")  # fmt: skip
    _, found = load(source="table", path="clicks.csv", test_share=1.0)
    assert {(q, p): (r.weight, r.group_id, r.source) for (q, p, _), r in found.items()} == {
        ("a1", "c1"): (0.0, "A", "table"), ("a1", "b1"): (3.0, "A", "table"), ("c1", "b2"): (1.0, "c1", "table"), ("b1", "b2"): (0.0, "B", "table"),
    }  # fmt: skip
    assert found["a1", "b1", "table"].event_time.timestamp() == datetime(2026, 1, 2, tzinfo=timezone.utc).timestamp()
    with pytest.raises(SourceError, match=r"clicks.csv has no columns src, dst: its columns are query_item_id"):
        load(source="table", path="clicks.csv", query_column="src", positive_column="dst")
    with pytest.raises(SourceError, match="pairs.path: no catalog at"):
        load(source="table", path="absent.csv")


def test_the_split_in_sql_is_the_split_in_python(spark):
    units = [f"unit {n} ü" for n in range(300)] + ["", "MH01", "0"]
    frame = spark.createDataFrame([(u,) for u in units], "unit string")
    for share in (0.5, 0.1):
        found = frame.select("unit", module.split_of(frame.unit, share).alias("split")).collect()
        assert {r.unit: r.split for r in found} == {u: split_of(u, share) for u in units}


def test_pairs_of_groups_replace_those_of_a_table_though_no_item_changed(load, tmp_path):
    (tmp_path / "pairs.csv").write_text("query_item_id,positive_item_id\na1,a3\n")
    _, groups = load()
    assert set(load(source="table", path="pairs.csv")[1]) == {("a1", "a3", "table")}
    assert load()[1] == groups
