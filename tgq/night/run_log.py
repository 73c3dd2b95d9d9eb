"""The night in MLflow: one run with parameters, Delta versions, metrics, report, verdict and, once published, the encoder.

The alias `champion` stands for what the next night embeds with. `tgq promote` and `tgq rollback-model` move it with the
warehouse's pointer; a night moves it only where nothing was ever promoted, or back to the champion that it embedded with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import functions as F

from tgq.registry.champion import local_folder, read_history
from tgq.registry.selection import named_folder
from tgq.registry.tracking import Tracker, metric_names, open_tracker
from tgq.run.night import Night
from tgq.run.records import git_commit
from tgq.settings.load import redacted
from tgq.storage.files import Files


def open_journal(night: Night) -> Tracker:
    """The night's MLflow run, found again when the night is taken up.

    Raises:
        TrackingError: MLflow does not answer; better now than after hours of work.
    """
    tracker = open_tracker(night.settings.tracking, night.warehouse.root)
    tracker.start(night.run_id, {"git_commit": git_commit(), "catalog": night.settings.catalog.path}, night.started_at)
    return tracker


def log_reports(night: Night, tracker: Tracker) -> None:
    """The run's pages (report, Data Docs, validation results) as artifacts, from wherever the warehouse is."""
    store = Files(night.warehouse.path("reports"))
    for folder in ("", "/data_docs", "/validation"):
        for name in store.list(night.run_id + folder):
            if name.endswith((".html", ".json")):
                tracker.log_text(store.read(f"{night.run_id}{folder}/{name}").decode(), f"{folder}/{name}".lstrip("/"))


def log_failure(night: Night, tracker: Tracker, error: str) -> None:
    """A night that failed: its error and what validation said, and the run's end."""
    tracker.log_tags({"error": error})
    log_reports(night, tracker)
    tracker.finish("FAILED")


def embeds_next(night: Night) -> bool:
    """Whether the next night embeds with this one's encoder: not where another was promoted, or this one rolled back, meanwhile."""
    root = night.warehouse.root
    history = read_history(root)
    return not history.promotions or night.model_folder == named_folder(history.reference(root))


def write_journal(night: Night, tracker: Tracker, summary: Mapping[str, Any]) -> None:
    """Everything about a night that ended, published or refused. Trouble with MLflow is said, and loses no night."""
    tracker.log_params(redacted(night.settings))
    for step in summary["steps"].values():
        tracker.log_versions(step["versions_read"] or {}, step["versions_written"] or {})
    rows = night.warehouse.read("retrieval_metrics").where(F.col("run_id") == night.run_id)
    tracker.log_metrics(metric_names(row.asDict() for row in rows.collect()))  # slices x metrics, whatever the catalog's size
    counts = {f"rows/{name}": float(n) for name, n in (summary["rows"] or {}).items() if n is not None}
    seconds = {f"seconds/{name}": float(step["seconds"]) for name, step in summary["steps"].items()}
    tracker.log_metrics(counts | seconds)
    tracker.log_json(summary, "summary.json")
    log_reports(night, tracker)
    tracker.log_tags({"published": summary["published"], "model_version": summary["model_version"]})
    if summary["published"]:
        tracker.publish_encoder(local_folder(night.model_folder), summary["model_version"], champion=embeds_next(night))
    tracker.finish()
    for problem in tracker.problems:
        night.progress.say(f"MLflow: {problem}")
