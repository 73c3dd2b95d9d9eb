"""The night in MLflow: one run with parameters, Delta versions, metrics, report, verdict and, once published, the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import functions as F

from tgq.config import flat
from tgq.pipeline.night import Night, git_commit
from tgq.tracking import Tracker, metric_names, open_tracker


def open_journal(night: Night) -> Tracker:
    """The night's MLflow run, found again when the night is taken up.

    Raises:
        TrackingError: MLflow does not answer; better now than after hours of work.
    """
    tracker = open_tracker(night.settings.tracking, night.warehouse.root)
    tracker.start(night.run_id, {"git_commit": git_commit(), "catalog": night.settings.catalog.path}, night.started_at)
    return tracker


def write_journal(night: Night, tracker: Tracker, summary: Mapping[str, Any], report: str) -> None:
    """Everything about a night that ended, published or refused. Trouble with MLflow is said, and loses no night."""
    tracker.log_params(flat(night.settings))
    for step in summary["steps"].values():
        tracker.log_versions(step["versions_read"] or {}, step["versions_written"] or {})
    rows = night.warehouse.read("retrieval_metrics").where(F.col("run_id") == night.run_id)
    tracker.log_metrics(metric_names(row.asDict() for row in rows.collect()))  # slices x metrics, whatever the catalog's size
    counts = {f"rows/{name}": float(n) for name, n in (summary["rows"] or {}).items() if n is not None}
    seconds = {f"seconds/{name}": float(step["seconds"]) for name, step in summary["steps"].items()}
    tracker.log_metrics(counts | seconds)
    tracker.log_json(summary, "summary.json")
    tracker.log_artifact(report)
    tracker.log_artifact(night.warehouse.path("reports", night.run_id, "data_docs"), "data_docs")
    tracker.log_tags({"published": summary["published"], "model_version": summary["model_version"]})
    if summary["published"]:
        tracker.publish_encoder(night.model_folder, summary["model_version"])
    tracker.finish()
    for problem in tracker.problems:
        night.progress.say(f"MLflow: {problem}")
