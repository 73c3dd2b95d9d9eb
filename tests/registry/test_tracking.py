"""One MLflow run per nightly run, also a continued or failed one; the encoder registered once per model version."""

import json
import socket
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.errors import TrackingError
from tgq.registry.tracking import metric_names, open_tracker
from tgq.settings.sections import TrackingSettings

BEGAN = datetime(2026, 1, 31, 2, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A warehouse whose sqlite file is created once for all tests."""
    folder = tmp_path_factory.mktemp("warehouse")
    open_tracker(TrackingSettings(), str(folder))
    return folder


def started(root, run_id, **settings):
    tracker = open_tracker(TrackingSettings(**settings), str(root))
    tracker.start(run_id, {"commit": "abc", "nothing": None}, BEGAN)
    return tracker


def row(metric="hit_rate", k=10, slice="all", model="0123456789abcdef", value=0.5, ci=(0.4, 0.6)):
    return {"metric": metric, "k": k, "slice": slice, "model_version": model, "value": value, "ci_low": ci[0], "ci_high": ci[1]}


def test_a_continued_run_uses_the_same_mlflow_run(root):
    first = started(root, "night-1")
    first.log_params({"evaluate.ks": [1, 5], "encoder.path": "default"})
    first.log_metrics({"mrr": 0.25})
    again = started(root, "night-1")
    again.log_params({"encoder.path": "other", "embed.batch": 3})
    again.log_metrics({"mrr": 0.25, "coverage": float("nan")})
    again.log_versions({"catalog_items": 3}, {"item_embeddings": 4})
    again.finish()
    assert first.run == again.run and not first.problems and not again.problems
    assert started(root, "night-2").run != first.run
    run = again.client.get_run(again.run)
    assert run.data.params == {"evaluate.ks": "[1, 5]", "encoder.path": "default", "embed.batch": "3"}
    assert run.data.metrics == {"mrr": 0.25} and len(again.client.get_metric_history(again.run, "mrr")) == 1
    assert run.data.tags["delta.written.item_embeddings"] == "4" and run.data.tags["tgq.run_id"] == "night-1"
    assert "nothing" not in run.data.tags and run.info.status == "FINISHED"


def test_the_run_of_a_failed_night_that_could_not_end_it_is_ended_by_the_next(root):
    settings = {"experiment": "ended later"}
    failed, running, done = (started(root, name, **settings) for name in ("failed", "of-another-warehouse", "done"))
    done.finish()
    following = started(root, "following", **settings)
    following.end_failed({"failed", "done", "following"})
    assert not following.problems
    statuses = {tracker.run: following.client.get_run(tracker.run).info.status for tracker in (failed, running, done, following)}
    assert list(statuses.values()) == ["FAILED", "RUNNING", "FINISHED", "RUNNING"]


def test_artifacts_are_stored_in_the_warehouse(root, tmp_path):
    (tmp_path / "report.html").write_text("<html>")
    tracker = started(root, "night-3")
    tracker.log_artifact(tmp_path / "report.html")
    tracker.log_artifact(tmp_path, "validation")
    tracker.log_artifact(tmp_path / "absent")
    tracker.log_json({"passed": True}, "gate.json")
    assert not tracker.problems
    found = {p.relative_to(root / "mlartifacts").as_posix().split("artifacts/")[1] for p in (root / "mlartifacts").rglob("*") if p.is_file()}
    assert {"report.html", "validation/report.html", "gate.json"} <= found


def test_an_encoder_is_registered_once_per_model_version_and_the_last_one_has_the_alias(root, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    tracker = started(root, "night-4", registered_model="published")
    numbers = [tracker.publish_encoder(tmp_path, version) for version in ("a" * 16, "b" * 16, "a" * 16)]
    assert numbers == ["1", "2", "1"], tracker.problems
    assert tracker.publish_encoder(tmp_path, "c" * 16, champion=False) == "3", "registered without the alias"
    towers = [tracker.publish_encoder(tmp_path, "a" * 16, query_version=version) for version in ("1" * 16, "2" * 16, "1" * 16, "")]
    assert towers == ["4", "5", "4", "1"], "the same items with another query tower are another encoder"
    assert tracker.client.get_model_version("published", "5").tags == {"model_version": "a" * 16, "query_version": "2" * 16}
    champion = tracker.client.get_model_version_by_alias("published", "champion")
    assert champion.tags["model_version"] == "a" * 16
    stored = tracker.client.download_artifacts(champion.run_id, "encoder", str(tmp_path))
    assert json.loads(open(f"{stored}/config.json").read()) == {}
    assert not list((root / "mlartifacts").rglob("*.pkl"))


def test_disabled_tracking_does_nothing(tmp_path):
    tracker = open_tracker(TrackingSettings(enabled=False), str(tmp_path))
    assert tracker.start("n") is None and tracker.publish_encoder(tmp_path, "a") is None
    tracker.log_metrics({"mrr": 1.0})
    tracker.finish()
    assert list(tmp_path.iterdir()) == [] and not tracker.problems


def test_an_absent_server_is_a_named_error_within_seconds(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TrackingError, match="does not answer"):
        open_tracker(TrackingSettings(uri=f"http://user:secret@127.0.0.1:{port}"), str(tmp_path))


def test_the_error_does_not_show_a_password(tmp_path):
    with pytest.raises(TrackingError) as caught:
        open_tracker(TrackingSettings(uri="http://user:secret@127.0.0.1:9"), str(tmp_path))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_named_error(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(TrackingError, match="mlflow.db"):
        open_tracker(TrackingSettings(), str(tmp_path))


def test_an_object_store_needs_a_server():
    with pytest.raises(TrackingError, match="tracking.uri"):
        open_tracker(TrackingSettings(), "s3a://bucket/tgq")


def test_a_failure_after_the_start_is_collected_and_not_raised(root):
    tracker = started(root, "night-5")
    tracker.client.delete_run(tracker.run)
    tracker.log_metrics({"mrr": 0.5})
    assert len(tracker.problems) == 1 and "MLflow" in tracker.problems[0]


def test_metric_names_hold_slice_baseline_and_cutoff():
    rows = [row(), row("mrr", 0, model="frozen_image"), row(slice="category=Men > Tops"), row(slice="category=Men / Tops", value=0.7)]
    names = metric_names(rows)
    search = metric_names([row() | {"task": "query_item"}, row("mrr", 0, model="bm25") | {"task": "query_item"}, row("ndcg", 10) | {"task": "item_item"}])
    assert {"query_hit_rate_at_10", "bm25/query_mrr", "ndcg_at_10"} <= set(search) and "hit_rate_at_10" not in search
    assert {"hit_rate_at_10", "hit_rate_at_10_ci_low", "frozen_image/mrr", "category/Men _ Tops/hit_rate_at_10"} <= set(names)
    assert len(names) == 8 and set(names.values()) == {0.4, 0.5, 0.6, 0.7}


def test_a_long_slice_is_cut_and_keeps_the_metric_behind_it():
    from mlflow.utils.validation import _validate_metric_name

    long = "Möbel > " * 60
    values = {f"category={long}{end}": float(n) for n, end in enumerate(("a", "b", "\u201cc\u201d 👟"))}
    rows = [row("in_category_hit_rate", 100, slice=s, model=m, value=v) for s, v in values.items() for m in ("frozen_concat", "0123456789abcdef")]
    names = metric_names(rows)
    assert len(names) == 6 and sorted(names.values()) == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    for name in names:
        _validate_metric_name(name)
        assert name.startswith(("category/Möbel", "frozen_concat/category/Möbel")) and name.endswith("/in_category_hit_rate_at_100")


@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=8, unique=True))
def test_every_slice_has_a_name_that_mlflow_accepts(values):
    from mlflow.utils.validation import _validate_metric_name

    rows = [row(slice=f"category={v}", value=float(n)) for n, v in enumerate(values)]
    names = metric_names(rows)
    assert sorted(names.values()) == [r["value"] for r in rows]
    for name in names:
        _validate_metric_name(name)
