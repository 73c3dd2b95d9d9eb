"""The MLflow run of a night: parameters, Delta versions, metrics, report, verdict and, once published, the encoder.

The alias `champion` names the encoder of the next night. `tgq promote` and `tgq rollback-model` move it together with the
warehouse's champion pointer. A night moves it only if nothing was ever promoted, or if its own encoder is still the champion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgq.messages import masked
from tgq.registry.champion import local_folder, read_history
from tgq.registry.loading import query_version_of
from tgq.registry.selection import named_folder
from tgq.registry.tracking import Tracker, metric_names, open_tracker
from tgq.run.night import RUN_STEP, Night
from tgq.run.records import git_commit
from tgq.settings.load import redacted
from tgq.storage.files import Files


def open_run_log(night: Night) -> Tracker:
    """Start the night's MLflow run, or continue the one of an interrupted night. Those of failed nights are ended, if these could not do it.

    Raises:
        TrackingError: MLflow does not answer. It is asked first, so that no hours of work are lost.
    """
    tracker = open_tracker(night.settings.tracking, night.warehouse.root)
    catalog = night.settings.catalog.path
    tracker.start(night.run_id, {"git_commit": git_commit(), "catalog": catalog and masked(catalog)}, night.started_at)
    failed = night.warehouse.rows("pipeline_runs", {"step": RUN_STEP, "status": "failed"}, "run_id")
    tracker.end_failed({row["run_id"] for row in failed})
    return tracker


def log_reports(night: Night, tracker: Tracker) -> None:
    """Log the report, the Data Docs and the validation results of the run as artifacts."""
    store = Files(night.warehouse.path("reports"))
    for folder in ("", "/data_docs", "/validation"):
        for name in store.list(night.run_id + folder):
            if name.endswith((".html", ".json")):
                tracker.log_text(store.read(f"{night.run_id}{folder}/{name}").decode(), f"{folder}/{name}".lstrip("/"))


def log_failure(night: Night, tracker: Tracker, error: str) -> None:
    """Log the error and the validation results of a failed night, and end its run."""
    tracker.log_tags({"error": error})
    log_reports(night, tracker)
    tracker.finish("FAILED")


def embeds_next(night: Night) -> bool:
    """Whether the next night uses the encoder of this one: no, if it was replaced or rolled back since the night began."""
    root = night.warehouse.root
    history = read_history(root)
    return not history.promotions or night.model_folder == named_folder(history.reference(root))


def write_run_log(night: Night, tracker: Tracker, summary: Mapping[str, Any]) -> None:
    """Log a finished night, published or refused. Problems with MLflow are reported and do not fail the night."""
    tracker.log_params(redacted(night.settings))
    for step in summary["steps"].values():
        tracker.log_versions(step["versions_read"] or {}, step["versions_written"] or {})
    rows = night.warehouse.rows("retrieval_metrics", {"run_id": night.run_id})  # slices x metrics: does not grow with the catalog
    tracker.log_metrics(metric_names(sorted(rows, key=lambda row: (row["model_version"], row["slice"], row["metric"], row["k"]))))
    counts = {f"rows/{name}": float(n) for name, n in (summary["rows"] or {}).items() if n is not None}
    seconds = {f"seconds/{name}": float(step["seconds"]) for name, step in summary["steps"].items()}
    change = (summary["gate"] or {}).get("catalog_change") or {}
    shares = {f"catalog_change/{name}": value for name, value in change.items() if name.endswith("_share")}
    tracker.log_metrics(counts | seconds | shares)
    tracker.log_json(summary, "summary.json")
    log_reports(night, tracker)
    tracker.log_tags({"published": summary["published"], "model_version": summary["model_version"]})
    if change.get("accepted"):
        tracker.log_tags({"catalog_change_accepted": "; ".join(change["accepted"])})
    if summary["published"]:
        queries = query_version_of(night.model_folder) or ""
        tracker.publish_encoder(local_folder(night.model_folder), summary["model_version"], champion := embeds_next(night), queries)
        tracker.publish_query_tower(local_folder(night.model_folder), queries, champion)
    tracker.finish()
    for problem in tracker.problems:
        night.progress.say(f"MLflow: {problem}")
