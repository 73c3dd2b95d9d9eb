"""Sound tables pass; each defect is found by the expectation that is named for it; results are on disk before the stop."""

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tgq.encoder.config import EncoderConfig
from tgq.encoder.tiny import write_tiny_encoder
from tgq.errors import ValidationError
from tgq.registry.loading import versions_of
from tgq.run.night import Night
from tgq.settings.sections import EncoderSettings, Settings, WarehouseSettings
from tgq.validation.catalog import CATALOG, catalog_figures, validate_catalog
from tgq.validation.embeddings import embedding_suite, validate_embeddings
from tgq.validation.expectations import Expect, judge

NOW = datetime(2026, 1, 31, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def night(spark, warehouse, encoder):
    settings = Settings(warehouse=WarehouseSettings(path=warehouse.root), encoder=EncoderSettings(path=str(encoder)))
    return Night(spark, settings, warehouse, "run-1", NOW)


def add_items(night, *items):
    schema = night.warehouse.read("catalog_items").schema
    good = dict(title="a shoe", category="Shoes", image_hash="h", metadata_text="a shoe", encoder_title="a shoe",
                content_hash="c", last_run_id="run-1", is_active=True)
    rows = [tuple((good | item).get(f.name) for f in schema.fields) for item in items]
    night.warehouse.append(night.spark.createDataFrame(rows, schema), "catalog_items")


def add_embeddings(night, *embeddings):
    schema = night.warehouse.read("item_embeddings").schema
    good = dict(model_version=versions_of(night.model_folder)[0], content_hash="c", agreement=float("nan"),
                gate_metadata=1.0, gate_exploratory=1.0, run_id="run-1")
    rows = [tuple((good | e).get(f.name) for f in schema.fields) for e in embeddings]
    night.warehouse.append(night.spark.createDataFrame(rows, schema), "item_embeddings")


def axis(width, n, length=1.0):
    return [length if i == n else 0.0 for i in range(width)]


def test_a_sound_catalog_passes_and_says_what_is_merely_unusual(night):
    add_items(night, {"item_id": "a"}, {"item_id": "b", "title": None}, {"item_id": "c", "title": " ", "is_active": False},
              {"item_id": "d", "image_hash": None, "title": ""}, {"item_id": "e", "title": None})  # fmt: skip
    result = validate_catalog(night)
    assert result.figures["active_items"] == 4 and result.figures["untitled_share"] == 0.75
    assert [w.split(" is ")[0] for w in result.figures["warnings"]] == ["untitled_share"]
    stored = json.loads(Path(night.warehouse.path("reports", "run-1", "validation", "catalog.json")).read_text())
    assert stored["result"]["success"] is False and stored["result"]["statistics"]["evaluated_expectations"] == len(CATALOG)
    page = Path(result.figures["data_docs"]).read_text()
    assert "most active items have a title" in page and "<script" not in page and "url(" not in page and "src=" not in page


def test_every_critical_defect_of_a_catalog_is_counted_and_stops_the_night(night):
    add_items(night, {"item_id": "a"}, {"item_id": "a"}, {"item_id": " "}, {"item_id": "b", "content_hash": ""},
              {"item_id": "c", "image_hash": None, "metadata_text": " ", "encoder_title": None})  # fmt: skip
    with pytest.raises(ValidationError, match=r"catalog: duplicate_ids is 1, must be exactly 0 .*and 3 more"):
        validate_catalog(night)
    figures = catalog_figures(night)
    assert [figures[n] for n in ("duplicate_ids", "blank_ids", "missing_content_hashes", "empty_items")] == [1, 1, 1, 1]
    assert Path(night.warehouse.path("reports", "run-1", "data_docs", "catalog.html")).is_file()


def test_an_empty_catalog_stops_the_night(night):
    with pytest.raises(ValidationError, match="active_items is 0, must be at least 1"):
        validate_catalog(night)


def test_sound_embeddings_pass(night):
    width = EncoderConfig.read(Path(night.model_folder)).dim
    add_items(night, {"item_id": "a"}, {"item_id": "b"}, {"item_id": "gone", "is_active": False})
    add_embeddings(night, {"item_id": "a", "embedding": axis(width, 0)}, {"item_id": "b", "embedding": axis(width, 1)},
                   {"item_id": "a", "model_version": "another", "embedding": [7.0]})  # fmt: skip
    figures = validate_embeddings(night).figures
    assert figures["embeddings"] == 2 and figures["coverage"] == 1.0 and figures["mean_cosine"] == pytest.approx(0.5)
    assert figures["warnings"] == []


def test_every_defect_of_embeddings_is_counted(night):
    width = EncoderConfig.read(Path(night.model_folder)).dim
    nan, infinite = axis(width, 0), axis(width, 0)
    nan[1], infinite[1] = float("nan"), float("inf")
    add_items(night, *({"item_id": i} for i in "abcd"), {"item_id": "stale", "content_hash": "new"})
    add_embeddings(
        night, {"item_id": "a", "embedding": nan}, {"item_id": "b", "embedding": infinite}, {"item_id": "c", "embedding": None},
        {"item_id": "d", "embedding": axis(width, 2, 0.9), "gate_metadata": 2.5}, {"item_id": "d", "embedding": axis(width, 2)},
        {"item_id": "stale", "embedding": axis(width + 1, 0), "agreement": 1.5},
    )  # fmt: skip
    with pytest.raises(ValidationError, match="embeddings: null_vectors is 1"):
        validate_embeddings(night)
    figures = json.loads(Path(night.warehouse.path("reports", "run-1", "validation", "embeddings.json")).read_text())["figures"]
    expected = dict(embeddings=6, null_vectors=1, wrong_width=1, non_finite=2, duplicate_keys=2, active_items=5, covered_items=4,
                    coverage=0.8, gates_out_of_range=1, agreement_out_of_range=1)  # fmt: skip
    assert {k: figures[k] for k in expected} == expected
    assert figures["norm_min"] == pytest.approx(0.9) and figures["norm_max"] == pytest.approx(1.0)


@pytest.mark.parametrize("found", [None, float("nan")])
def test_a_figure_that_could_not_be_computed_fails(found):
    verdict = judge("catalog", [Expect("norm_min", "unit length", 0.999, 1.001)], {"norm_min": found})
    assert [o.passed for o in verdict.outcomes] == [False]


def test_bounds_are_included_and_severities_kept():
    suite = embedding_suite(0.9)
    sound = {e.figure: e.low if e.low is not None else e.high for e in suite}
    verdict = judge("embeddings", suite, sound)
    assert all(o.passed for o in verdict.outcomes)
    verdict = judge("embeddings", suite, sound | {"coverage": 0.89, "norm_max": 1.002, "duplicate_keys": 1})
    assert [o.expect.figure for o in verdict.failed("critical")] == ["norm_max", "duplicate_keys"]
    assert [str(o) for o in verdict.failed("warning")] == [
        "coverage is 0.89, must be between 0.9 and 1 (nearly all active items have an embedding of their present content)"
    ]


def test_judging_leaves_no_file_and_prints_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    judge("catalog", CATALOG, {e.figure: 1 for e in CATALOG})
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
