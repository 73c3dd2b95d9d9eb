"""Every view and every analysis, on a small warehouse whose results can be computed by hand.

The vectors of twelve boots are 5 degrees apart on a circle. Two sandals have the same vector; a third is at right angles to it.
"""

import math
import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tgq.publishing.views import define_views, statements
from tgq.retrieval import manifest
from tgq.settings.sections import WarehouseSettings
from tgq.storage.warehouse import Warehouse

SQL = Path(__file__).parents[2] / "sql"
BOOTS, SANDALS = "Shoes > Boots", "Shoes > Sandals"
EVENING = datetime(2026, 1, 2, 2)


def angle(degrees):
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), 0.0, 0.0]


VECTORS = {f"a{i:02d}": angle(5 * i) for i in range(12)} | {"b0": [0.0, 0.0, 1.0, 0.0], "b1": [0.0, 0.0, 1.0, 0.0], "b2": [0.0, 0.0, 0.0, 1.0]}
AGREEMENT = {f"a{i:02d}": 0.4 + 0.01 * i for i in range(12)} | {"a03": -0.5, "b0": 0.1, "b1": math.nan, "b2": 0.2}


def append(store, table, rows):
    schema = store.read(table).schema
    store.append(store.spark.createDataFrame([tuple(row.get(f.name) for f in schema.fields) for row in rows], schema), table)


def item(item_id, category, active=True, title=None):
    return dict(item_id=item_id, title=title or f"title of {item_id}", brand="Acme", category=category, content_hash=f"hash {item_id}", is_active=active)


def embedding(item_id, vector, model="new", content=None, at=EVENING):
    return dict(
        item_id=item_id, model_version=model, content_hash=content or f"hash {item_id}", category=BOOTS if item_id[0] == "a" else SANDALS,
        has_image=True, agreement=AGREEMENT.get(item_id), run_id="r1", embedded_at=at, embedding=vector,
    )  # fmt: skip


def step(run_id, name, status, seconds, started=EVENING, **counts):
    return dict(run_id=run_id, step=name, status=status, started_at=started, ended_at=started + timedelta(seconds=seconds), detail="{}", **counts)


def metric(run_id, system, name, k, value, slice="all", at=EVENING):
    return dict(run_id=run_id, model_version=system, slice=slice, metric=name, k=k, value=value, ci_low=value - 0.1, ci_high=value + 0.1,
                n_queries=40, pool_size=15, measured_at=at)  # fmt: skip


@pytest.fixture(scope="module")
def store(spark, tmp_path_factory, tables_in):
    store = Warehouse(spark, WarehouseSettings(path=str(tables_in(tmp_path_factory.mktemp("sql") / "warehouse"))))
    active = [item(i, BOOTS if i[0] == "a" else SANDALS) for i in VECTORS]
    append(store, "catalog_items", [*active, item("gone", BOOTS, active=False), item("edited", SANDALS), item("bare", "  ")])
    vectors = [embedding(i, v) for i, v in VECTORS.items()] + [embedding("gone", angle(0)), embedding("edited", angle(0), content="old")]
    older = [embedding(i, [v[3], v[0], v[1], v[2]], "old", at=EVENING - timedelta(days=9)) for i, v in VECTORS.items()]  # turned as a whole
    append(store, "item_embeddings", [*vectors, *older])
    pairs = [("a00", 1, "a01", 0.9), ("a00", 2, "a02", 0.8), ("b0", 1, "b1", 1.0)]
    append(store, "item_neighbors", [dict(item_id=i, model_version="new", rank=r, neighbor_id=n, score=s) for i, r, n, s in pairs])
    night = dict(generation="g1", run_id="r1", model_version="new", encoder="default", created_at="2026-01-02T03:00:00+00:00")
    manifest.publish(store.root, manifest.Manifest(**night, tables=store.versions("catalog_items", "item_embeddings", "item_neighbors")))

    # the next night is refused: nothing of it may show in what is published
    refused = EVENING + timedelta(days=1)
    append(store, "catalog_items", [item("late", BOOTS, title="not published")])
    append(store, "item_embeddings", [embedding("late", angle(1))])
    append(store, "item_neighbors", [dict(item_id="a00", model_version="new", rank=3, neighbor_id="late", score=0.99)])
    append(store, "pipeline_runs", [
        step("r1", "nightly", "done", 100), step("r1", "ingest", "done", 10, rows_in=20, rows_out=18), step("r1", "embed", "done", 30, rows_out=15),
        step("r1", "publish", "done", 1),
        step("r2", "nightly", "refused", 100, refused), step("r2", "ingest", "done", 12, refused, rows_in=10, rows_out=7),
        step("r2", "embed", "done", 50, refused, rows_out=200), step("r2", "index", "failed", 3, refused),
    ])  # fmt: skip
    append(store, "retrieval_metrics", [
        metric("r1", "new", "hit_rate", 10, 0.6), metric("r1", "new", "mrr", 0, 0.5), metric("r1", "frozen_image", "hit_rate", 10, 0.4),
        metric("r2", "new", "hit_rate", 10, 0.3, at=refused), metric("r2", "frozen_image", "hit_rate", 10, 0.4, at=refused),
        metric("r2", "frozen_text", "hit_rate", 10, 0.1, at=refused),
        metric("r2", "new", "hit_rate", 10, 0.7, "popularity=head", refused), metric("r2", "frozen_text", "hit_rate", 10, 0.5, "popularity=head", refused),
        metric("r2", "new", "hit_rate", 10, 0.9, "category=Shoes", refused),
        *(metric("r2", system, name, k, value, at=refused) | {"task": "query_item"}
          for system, name, k, value in (("new", "hit_rate", 10, 0.99), ("new", "ndcg", 10, 0.8), ("bm25", "ndcg", 10, 0.85),
                                         ("frozen_text", "ndcg", 10, 0.2))),
    ])  # fmt: skip
    bad = [("r1", "x1", "truncated"), ("r1", "x2", "unreadable"), ("r2", "x1", "truncated"), ("r2", "x3", "truncated"), ("r2", "x4", "duplicate_id")]
    append(store, "quarantine", [dict(run_id=r, stage="ingest", item_id=i, occurrence=0, reason=why, detail=f"{i} is bad") for r, i, why in bad])
    define_views(spark, store)
    return store


@pytest.fixture
def analysis(spark, store):
    """analysis(name): the rows of sql/analyses/<name>.sql, run as `tgq tables --file` runs it."""

    def run(name):
        frames = [spark.sql(statement) for statement in statements((SQL / "analyses" / f"{name}.sql").read_text())]
        assert not any(frame.columns for frame in frames[:-1]), "only the last statement shows rows"
        return frames[-1].collect()

    return run


def test_before_the_first_run_every_view_exists_and_is_empty(spark, warehouse):
    views = define_views(spark, warehouse)
    assert {file.stem for file in (SQL / "views").glob("*.sql")} < set(views)
    assert spark.sql(" UNION ALL ".join(f"(SELECT '{view}' FROM {view} LIMIT 1)" for view in views)).collect() == []


def test_current_embeddings_are_those_of_the_published_generation(spark, store):
    rows = {r.item_id: r for r in spark.table("current_embeddings").collect()}
    assert set(rows) == set(VECTORS), "neither inactive, nor edited since, nor embedded after publishing, nor of another model"
    assert rows["a04"].embedding == pytest.approx(VECTORS["a04"]) and rows["a04"].title == "title of a04"
    assert spark.table("current_embeddings").columns[-1] == "embedding"


def test_a_rollback_changes_the_views(spark, store):
    now = manifest.load_current(store.root)
    tables = store.versions("catalog_items", "item_embeddings", "item_neighbors")
    manifest.publish(store.root, manifest.Manifest("g2", "r3", "new", "default", now.created_at, tables, previous="g1"))
    define_views(spark, store)
    assert spark.table("current_embeddings").where("item_id = 'late'").count() == 1
    assert spark.table("neighbors_with_titles").where("neighbor_title = 'not published'").count() == 1
    manifest.rollback(store.root, "g1")
    define_views(spark, store)
    assert spark.table("current_embeddings").where("item_id = 'late'").count() == 0


def test_coverage_compares_published_items_with_the_present_catalog(spark, store):
    rows = {r.category: (r.active_items, r.embedded_items, r.share) for r in spark.table("coverage").collect()}
    assert rows == {BOOTS: (13, 12, 12 / 13), SANDALS: (4, 3, 0.75), "(none)": (1, 0, 0.0)}


def test_metric_trend_has_a_row_per_system_and_run(spark, store):
    rows = {(r.run_id, r.system): r for r in spark.table("metric_trend").collect()}
    assert set(rows) == {("r1", "encoder"), ("r1", "frozen_image"), ("r2", "encoder"), ("r2", "frozen_image"), ("r2", "frozen_text")}
    first, second = rows["r1", "encoder"], rows["r2", "encoder"]
    assert (first.hit_rate_10, first.mrr, first.published, first.status) == (0.6, 0.5, True, "done")
    assert (second.hit_rate_10, second.mrr, second.published, second.status) == (0.3, None, False, "refused"), "the slices stay out"
    assert first.hit_rate_10_low == 0.5 and first.started_at == EVENING


def test_neighbors_with_titles(spark, store):
    rows = spark.table("neighbors_with_titles").orderBy("item_id", "rank").collect()
    assert [(r.item_id, r.rank, r.neighbor_id, r.neighbor_title) for r in rows] == [
        ("a00", 1, "a01", "title of a01"), ("a00", 2, "a02", "title of a02"), ("b0", 1, "b1", "title of b1"),
    ]  # fmt: skip


def test_quarantine_of_the_latest_run(spark, store, analysis):
    assert {r.item_id for r in spark.table("quarantine_latest").collect()} == {"x1", "x3", "x4"}
    rows = {r.reason: r for r in analysis("quarantine_by_reason")}
    assert {k: (r.inputs, r.change, r.share_of_rows_in) for k, r in rows.items()} == {
        "truncated": (2, 1, 0.2), "duplicate_id": (1, 1, 0.1), "unreadable": (0, -1, 0.0),
    }  # fmt: skip
    assert rows["truncated"].example_id == "x1" and rows["truncated"].example_detail == "x1 is bad"


def test_nearest_to_item(analysis):
    rows = analysis("nearest_to_item")
    assert [r.item_id for r in rows] == [f"a{i:02d}" for i in range(1, 12)] + ["b0", "b1", "b2"]
    assert {r.query_id for r in rows} == {"a00"}
    assert rows[1].cosine == pytest.approx(math.cos(math.radians(10)), abs=1e-4)


def test_category_centroids(analysis):
    rows = {r.category: r for r in analysis("category_centroids")}
    arc = math.sin(math.radians(30)) / (12 * math.sin(math.radians(2.5)))  # mean of 12 unit vectors 5 degrees apart
    assert rows[BOOTS].cohesion == pytest.approx(arc, abs=1e-4) and rows[BOOTS].items == 12
    assert rows[SANDALS].cohesion == pytest.approx(math.sqrt(5) / 3, abs=1e-4)
    assert (rows[SANDALS].nearest_category, rows[SANDALS].similarity) == (BOOTS, 0.0)


def test_near_duplicates_are_pairs_within_one_category(analysis):
    rows = analysis("near_duplicates")
    assert (rows[0].item_id, rows[0].other_id, rows[0].cosine) == ("b0", "b1", 1.0)
    assert len(rows) == 1 + 11 + 10, "5 and 10 degrees are near, 15 are not"


def test_models_that_differ_by_a_rotation_agree(analysis):
    rows = {r.pairs_of: r for r in analysis("drift_between_models")}
    assert rows["all"].pairs == 15 * 14 / 2 and rows["all"].agreement == pytest.approx(1)
    assert rows["same category"].pairs == 66 + 3
    assert rows["all"].mean_cosine_before == rows["all"].mean_cosine_after


def test_embedding_norms(analysis):
    rows = {r.model_version: r for r in analysis("embedding_norms")}
    assert (rows["new"].items, rows["old"].items) == (18, 15)
    assert (rows["old"].width, rows["old"].shortest, rows["old"].longest, rows["old"].off_unit, rows["old"].not_finite) == (4, 1, 1, 0, 0)


def test_head_and_tail_metrics_with_the_best_frozen_baseline(analysis):
    rows = [(r.slice, r.metric, r.encoder, r.best_frozen, r.frozen_value, r.gain) for r in analysis("head_tail_metrics")]
    assert rows == [("all", "hit_rate@10", 0.3, "frozen_image", 0.4, -0.1), ("popularity=head", "hit_rate@10", 0.7, "frozen_text", 0.5, 0.2)]


def test_search_queries_are_apart_from_items(spark, store, analysis):
    rows = {(r.run_id, r.system): (r.ndcg_10, r.ndcg_10_low, r.published) for r in spark.table("query_metric_trend").collect()}
    assert rows == {("r2", "encoder"): (0.8, pytest.approx(0.7), False), ("r2", "bm25"): (0.85, pytest.approx(0.75), False),
                    ("r2", "frozen_text"): (0.2, pytest.approx(0.1), False)}  # fmt: skip
    assert {r.hit_rate_10 for r in spark.table("metric_trend").where("run_id = 'r2'").collect()} == {0.3, 0.4, 0.1}
    text = (SQL / "analyses" / "head_tail_metrics.sql").read_text().replace("DEFAULT 'item_item'", "DEFAULT 'query_item'")
    (*declared, last) = statements(text)
    for statement in declared:
        spark.sql(statement)
    found = [(r.slice, r.metric, r.encoder, r.best_frozen, r.gain) for r in spark.sql(last).collect()]
    assert found == [("all", "hit_rate@10", 0.99, None, None), ("all", "ndcg@10", 0.8, "bm25", -0.05)]


def test_slowest_steps(analysis):
    rows = {r.step: r for r in analysis("slowest_steps")}
    assert next(iter(rows)) == "embed" and "nightly" not in rows
    assert (rows["embed"].median_s, rows["embed"].slowest_s, rows["embed"].slowest_run, rows["embed"].rows_per_s) == (40.0, 50.0, "r2", 4.0)
    assert rows["embed"].share_of_time == pytest.approx(80 / 106, abs=1e-4) and rows["index"].failed == 1


def test_agreement_outliers(analysis):
    rows = analysis("agreement_outliers")
    assert (rows[0].item_id, rows[0].agreement) == ("a03", -0.5) and rows[0].z < -2
    assert {r.category for r in rows} == {BOOTS}, "three sandals are fewer than least_items"


def test_every_file_is_described(spark):
    for file in sorted([*SQL.glob("views/*.sql"), *SQL.glob("analyses/*.sql")]):
        text = file.read_text()
        assert text.startswith("-- "), file
        if file.parent.name == "views":
            assert f"CREATE OR REPLACE VIEW {file.stem} AS" in text
        else:
            assert "-- Change:" in text and re.search(r"^LIMIT \d+;$|^ORDER BY pairs_of;$", text, re.M), file


def test_statements_are_split_at_semicolons_that_end_a_line():
    text = "-- one; two;\nSELECT ';' AS a; \n\n  -- between\nSELECT\n  2;\nSELECT 3"
    assert statements(text) == ["SELECT ';' AS a", "SELECT\n  2", "SELECT 3"]
    assert statements("-- nothing\n;\n") == []
