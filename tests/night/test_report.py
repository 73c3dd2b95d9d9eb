"""The report, made from tables and staging: figures, example queries, thumbnails."""

import base64
import io
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from tgq.night.report import collect, write_report
from tgq.night.report_figures import enrichment_notes
from tgq.run.night import Night
from tgq.settings.load import load_settings

NOW = datetime(2026, 1, 31, 2, tzinfo=timezone.utc)
MODEL = "0123456789abcdef"
ITEMS = {"q1": "red", "q2": "green", "a": "blue", "b": "white", "same": "black"}


def add(warehouse, table, *rows):
    schema = warehouse.read(table).schema
    warehouse.append(warehouse.spark.createDataFrame([tuple(r.get(f.name) for f in schema.fields) for r in rows], schema), table)


def metric(run_id, value, model=MODEL, slice="all", name="hit_rate", k=10, n=2):
    return dict(run_id=run_id, model_version=model, slice=slice, metric=name, k=k, value=value, ci_low=value - 0.1, ci_high=value + 0.1, n_queries=n)


@pytest.fixture
def night(spark, warehouse, tmp_path):
    catalog = tmp_path / "catalog"
    (catalog / "images").mkdir(parents=True)
    (catalog / "catalog.csv").write_text("item_id\n")
    for item, colour in ITEMS.items():
        if item != "b":  # its picture is gone
            Image.new("RGB", (60, 40), colour).save(catalog / "images" / f"{item}.png")
    settings = load_settings(["local"], [f"catalog.path={catalog}", "catalog.table=catalog.csv", f"warehouse.path={warehouse.root}"], {}).settings
    add(warehouse, "catalog_items", *(
        dict(item_id=i, title=f"<b>{i}</b>", category="Home > Cups", image_uri=str(catalog / "images" / f"{i}.png"), content_hash=i, is_active=True)
        for i in ITEMS
    ))  # fmt: skip
    add(warehouse, "item_embeddings", *(
        dict(item_id=i, model_version=m, content_hash=i, run_id="run-2", agreement=0.25, gate_metadata=1.0, gate_exploratory=1.5)
        for i in ITEMS for m in (MODEL, "older")
    ))  # fmt: skip
    near = {"q1": ["same", "a", "b"], "q2": ["b", "q1", "a"]}
    add(warehouse, "item_neighbors", *(
        dict(item_id=q, model_version=MODEL, rank=r + 1, neighbor_id=n, score=0.9 - r / 10) for q, ns in near.items() for r, n in enumerate(ns)
    ))  # fmt: skip
    pair = dict(source="group", split="test", group_id="g")
    add(warehouse, "relevance_pairs", dict(query_item_id="q1", positive_item_id="a", weight=1.0, **pair),
        dict(query_item_id="q1", positive_item_id="same", weight=0.0, **pair),
        dict(query_item_id="q2", positive_item_id="same", weight=1.0, **pair),
        dict(query_item_id="a", positive_item_id="q1", weight=1.0, **pair | {"split": "train"}))  # fmt: skip
    add(warehouse, "quarantine", *(
        dict(run_id="run-2", stage="ingest", item_id=f"bad{n}", occurrence=0, reason="not_an_image", detail="<html>", fields='{"image_uri": "images/a.png"}')
        for n in range(3)
    ))  # fmt: skip
    add(warehouse, "pipeline_runs", *(dict(run_id=f"run-{n}", step="nightly", status="done", started_at=NOW + timedelta(days=n - 2)) for n in (1, 2, 3)),
        dict(run_id="run-1", step="publish", status="done", started_at=NOW))  # fmt: skip
    add(warehouse, "retrieval_metrics", metric("run-1", 0.4), metric("run-2", 0.5), metric("run-3", 0.6), metric("run-2", 0.3, "frozen_image"),
        metric("run-2", 0.7, slice="category=Cups = mugs"), metric("run-2", 0.2, "frozen_image", "category=Cups = mugs"))  # fmt: skip
    return Night(spark, settings, warehouse, "run-2", NOW)


def summary():
    figure = dict(value=0.5, ci_low=0.4, ci_high=0.6, n_queries=2, pool_size=5)
    step = dict(status="done", seconds=1.5, rows_in=8, embedded=5, unchanged=0, quarantined=3, inactive=0, versions_read={}, versions_written={"quarantine": 1})
    return dict(
        run_id="run-2", model_version=MODEL, published=False, gate={"passed": False, "reasons": ["hit_rate@10 fell by 20 %"], "notes": ["mrr was not judged"]},
        rows={"in": 8, "embedded": 5, "unchanged": 0, "quarantined": 3, "inactive": 0},
        steps={"ingest": step | {"figures": {}}, "embed": step | {"figures": {"items_per_s": 12.0, "decode_wait_share": 0.1}}},
        metrics={"encoder": {"hit_rate@10": figure}, "frozen_image": {"hit_rate@10": figure | {"value": 0.3}}}, mlflow_run=None, manifest=None,
    )  # fmt: skip


def test_crops_are_shown_beside_their_pictures(night):
    assert collect(night, summary()).crops is None
    told = dict(detector="anchor (0123)", cropped=2, kept_whole={"low_score": 1})
    left = dict(run_id="run-2", image_hash="0", detector_version="v", score=0.75, box=[0.0, 0.0, 0.5, 1.0], kept_whole=False)
    add(night.warehouse, "item_grounding", dict(item_id="a", content_hash="a", **left), dict(item_id="q1", content_hash="earlier", **left),
        dict(item_id="q2", content_hash="q2", **left | {"kept_whole": True, "reason": "low_score"}), dict(item_id="b", content_hash="b", **left))
    crops = collect(night, summary() | {"grounding": told}).crops
    assert (crops.detector, crops.cropped, crops.kept_whole) == ("anchor (0123)", 2, {"low_score": 1})
    pairs = {original.item_id: (original, crop) for original, crop in crops.pairs}
    assert pairs.keys() == {"a", "b"}, "one has another content by now, one was kept whole"
    assert pairs["b"][0].picture is None is pairs["b"][1].picture, "its picture is gone"
    sizes = [Image.open(io.BytesIO(base64.b64decode(card.picture.partition(",")[2]))).size for card in pairs["a"]]
    assert sizes == [(60, 40), (33, 40)] and pairs["a"][1].score == 0.75, "half of the picture, and a tenth of that as its margin"


def test_the_report_shows_the_content_of_the_tables(night):
    report = collect(night, summary())
    assert report.notes == ["Gate: mrr was not judged"] and report.catalog_change is None
    assert report.status == "refused" and report.reasons == ["hit_rate@10 fell by 20 %"] and report.best_baseline == "frozen_image"
    assert [(n.run_id, n.published, n.figures["hit_rate@10"].value) for n in report.trend] == [("run-1", True, 0.4), ("run-2", False, 0.5)]
    (row,) = report.slices["category"]
    assert row.value == "Cups = mugs" and {s: f.value for s, f in row.figures.items()} == {"encoder": 0.7, "frozen_image": 0.2}
    assert {h.title: sum(h.counts) for h in report.histograms} == {
        "Image–title agreement": 5, "Metadata gate": 5, "Exploratory gate": 5, "Nearest neighbour": 2,
    }  # fmt: skip
    assert report.quarantine_counts == [("ingest", "not_an_image", 3)] and len(report.quarantined) == 2 and report.quarantined[0].card.picture
    strips = {g.title: g.strips for g in report.strips}
    (best,), (worst,) = strips["Best queries"], strips["Worst queries"]
    assert [(c.item_id, c.mark) for c in best.neighbors] == [("a", "hit"), ("b", "miss")], "a pair of weight 0 is neither hit nor miss"
    assert [(c.item_id, c.mark) for c in worst.neighbors] == [("b", "miss"), ("q1", "miss"), ("a", "miss")]
    assert best.query.picture and best.neighbors[1].picture is None
    assert ("catalog.table", '"catalog.csv"', '"catalog.parquet"') in report.settings
    path = write_report(night, summary())
    page = Path(path).read_text()
    assert page == (Path(night.warehouse.root) / "reports" / "latest.html").read_text()
    assert "&lt;b&gt;q1&lt;/b&gt;" in page and "<b>q1" not in page


def test_the_report_shows_search_queries_apart_from_items(night, warehouse):
    assert collect(night, summary()).search is None
    figure = dict(value=0.3, ci_low=0.2, ci_high=0.4, n_queries=40, pool_size=5)
    add(warehouse, "retrieval_metrics", *(
        metric("run-2", value, model, slice, "ndcg", n=30) | {"task": "query_item"}
        for model, slice, value in ((MODEL, "all", 0.3), ("bm25", "all", 0.35), (MODEL, "length=1", 0.2), ("bm25", "length=1", 0.6))
    ))  # fmt: skip
    examples = [
        dict(choice="best", query_id="1", text="<i>red</i>", ndcg=1.0, best_item="q1", item_ids=["q1", "a"], scores=[0.9, 0.8], marks=["hit", ""]),
        dict(choice="worst", query_id="2", text="green", ndcg=0.0, best_item="gone", item_ids=["b"], scores=[0.1], marks=["miss"]),
    ]
    kept = {"key": "k", "queries": 0, "searches": 40, "rows": [], "figures": {}, "examples": examples}
    place = Path(night.warehouse.root) / "reports" / "run-2"
    place.mkdir(parents=True)
    (place / "evaluation.json").write_text(json.dumps(kept))
    told = summary() | {"query_metrics": {"encoder": {"query_ndcg@10": figure}, "bm25": {"query_ndcg@10": figure | {"value": 0.35}}}}
    row = {"baseline": "bm25", "metric": "ndcg", "k": 10, "value": -0.05, "ci_low": -0.1, "ci_high": 0.0}
    told["steps"]["evaluate"] = told["steps"]["embed"] | {"figures": {"search": {"differences": [row]}}}
    report = collect(night, told)
    assert {s: f["ndcg@10"].value for s, f in report.search.systems.items()} == {"encoder": 0.3, "bm25": 0.35}
    assert report.search.differences["bm25"]["ndcg@10"].value == -0.05
    (one,) = report.search.slices["length"]
    assert (one.value, {s: f.value for s, f in one.figures.items()}) == ("1", {"encoder": 0.2, "bm25": 0.6})
    best, worst = report.search.strips
    (shown,) = best.strips
    assert shown.query.picture and "NDCG@10 1.00" in shown.query.caption and [(c.item_id, c.mark) for c in shown.neighbors] == [("q1", "hit"), ("a", "")]
    assert worst.strips[0].query.picture is None and worst.strips[0].neighbors[0].mark == "miss"
    assert "length" not in report.slices and [set(n.figures) for n in report.trend] == [{"hit_rate@10"}] * 2, "items only"
    assert ("search queries", "40") in report.facts
    page = Path(write_report(night, told)).read_text()
    assert "Search queries" in page and "&lt;i&gt;red&lt;/i&gt;" in page and "BM25" in page


def test_a_run_that_failed_before_any_table_was_filled_has_a_report(spark, warehouse):
    settings = load_settings(["local"], [f"warehouse.path={warehouse.root}"], {}).settings
    failed = dict(status="failed", seconds=0.1, rows_in=None, figures={"error": "no table in there"})
    path = write_report(Night(spark, settings, warehouse, "run-1", NOW), {"run_id": "run-1", "steps": {"ingest": failed}})
    assert "no table in there" in Path(path).read_text()


def test_the_notes_say_what_enrichment_did():
    assert enrichment_notes({"embed": {"figures": {}}}) == []
    text = {"active": 1200, "applied": 900, "refused": 20, "failed": 3, "waiting": 7, "tokens": 5000,
            "reasons": {"refused.invented_brand": 20, "failed.unreachable": 3}}  # fmt: skip
    [note] = enrichment_notes({"enrich": {"figures": {"text": text}}})
    assert note == ("Enrichment: the encoder reads refined titles of 900 of 1,200 items; 30 keep their own although they were to be refined "
                    "(refused: invented brand 20, failed: unreachable 3, not asked yet 7); this run spent 5,000 tokens")  # fmt: skip
    quiet = text | {"refused": 0, "failed": 0, "waiting": 0, "tokens": 0, "reasons": {}}
    assert enrichment_notes({"enrich": {"figures": {"text": quiet}}}) == ["Enrichment: the encoder reads refined titles of 900 of 1,200 items"]


def test_the_notes_say_which_attributes_were_generated():
    none = {"refiner": "none", "active": 50, "applied": 0, "refused": 0, "failed": 0, "waiting": 50, "tokens": 0, "reasons": {}}
    found = {"active": 50, "applied": 30, "said": 40, "silent": 7, "waiting": 2, "tokens": 900, "by_key": {"colour": 30, "fit": 10},
             "reasons": {"failed.no_picture": 1}}  # fmt: skip
    assert enrichment_notes({"enrich": {"figures": {"text": none, "attributes": found}}}) == [
        "Enrichment: 40 generated attributes of 30 of 50 items (colour 30, fit 10); not sure enough of 7; not used: failed: no picture 1, not asked yet 2; "
        "this run spent 900 tokens"]  # fmt: skip
    assert enrichment_notes({"enrich": {"figures": {"text": none, "attributes": found | {"source": "none"}}}}) == [], "what was undone is no news"
