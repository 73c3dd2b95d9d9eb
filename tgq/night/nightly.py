"""The night: its steps in order, their figures, the verdict, and what is told to MLflow and to people."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import functions as F

from tgq.catalog.ingest import ingest
from tgq.catalog.validation import validate_catalog
from tgq.embedding.embed import embed, need_model
from tgq.embedding.validation import validate_embeddings
from tgq.errors import AccountingError, GateError, TgqError
from tgq.evaluation.evaluate import evaluate
from tgq.night.report import write_report
from tgq.night.run_log import log_failure, open_journal, write_journal
from tgq.publishing.index import build_index
from tgq.publishing.neighbors import build_neighbors
from tgq.publishing.publish import publish
from tgq.publishing.verdict import read_verdict, refusal
from tgq.registry.tracking import Tracker
from tgq.run.night import RUN_STEP, Night, StepResult
from tgq.run.records import record, run_step
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder

STEPS: dict[str, Callable[[Night], StepResult]] = {
    "ingest": ingest,
    "validate_catalog": validate_catalog,
    "embed": embed,
    "validate_embeddings": validate_embeddings,
    "index": build_index,
    "neighbors": build_neighbors,
    "evaluate": evaluate,
    "publish": publish,
}
COUNTS = ("rows_in", "embedded", "unchanged", "quarantined", "inactive")


class Nightly:
    """Runs steps of one night and keeps their figures; `summary()` is what the command prints and writes."""

    def __init__(self, night: Night):
        self.night = night
        self.report: str | None = None
        self.mlflow_run: str | None = None
        self._figures: dict[str, Any] | None = None  # of the tables as they are; None after a step has changed them

    def run(self, names: Sequence[str]) -> None:
        """Run the named steps in order. The whole night ends with its report, also when the gate refuses it.

        Raises:
            GateError: the gate refused; everything but publishing was done.
            AccountingError: a source row is neither embedded, unchanged nor quarantined; nothing was published.
            TgqError: a step failed; what follows it was not touched.
        """
        refused: GateError | None = None
        whole = list(names) == list(STEPS)
        if whole:
            need_model(self.night)
        tracker = open_journal(self.night) if whole or "report" in names else None
        self.mlflow_run = tracker.run if tracker else None
        try:
            for name in names:
                if name == "report":
                    continue
                self.night.progress.say(name.replace("_", " "))
                if name == "publish":
                    account(self.summary())
                self._figures = None
                try:
                    run_step(self.night, name, STEPS[name])
                except GateError as e:
                    refused = e
                    break
            if list(names) == ["evaluate"]:
                refused = refusal(read_verdict(self.night))
            if tracker:
                self._close(tracker)
        except Exception as e:
            if tracker and whole:
                self._fail(tracker, e)
            raise
        if refused:
            raise refused

    def _close(self, tracker: Tracker) -> None:
        """Report and journal the run, and end it where it came to its end: a look at a broken run leaves it to be taken up."""
        night, self._figures = self.night, None
        summary = self.summary()
        self.report = write_report(night, summary)
        write_journal(night, tracker, self.summary())
        refused = summary["gate"] is not None and not summary["gate"]["passed"]
        if summary["published"] or refused:
            finish(night, "done" if summary["published"] else "refused", self.summary())
            remove_folder(night.staging())

    def _fail(self, tracker: Tracker, error: Exception) -> None:
        text = str(error) if isinstance(error, TgqError) else f"{type(error).__name__}: {str(error)[:500]}"
        with contextlib.suppress(Exception):  # the first error is the one to show
            finish(self.night, "failed", {"error": text})
            log_failure(self.night, tracker, text)

    def summary(self) -> dict[str, Any]:
        """The run's figures, from the tables: the same however many processes had a part in it."""
        if self._figures is None:
            self._figures = summary_of(self.night)
        return self._figures | {"report": self.report, "mlflow_run": self.mlflow_run}


def finish(night: Night, status: str, figures: Mapping[str, Any]) -> None:
    """Write the run's own row."""
    rows = figures.get("rows") or {}
    result = StepResult(
        rows_in=rows.get("in"), rows_out=rows.get("embedded"), embedded=rows.get("embedded"), unchanged=rows.get("unchanged"),
        quarantined=rows.get("quarantined"), inactive=rows.get("inactive"),
        figures={k: v for k, v in figures.items() if k not in ("steps", "metrics")}
        | {"catalog": night.settings.catalog.path, "encoder": night.settings.encoder.path},
    )  # fmt: skip
    record(night, RUN_STEP, status, night.started_at, datetime.now(timezone.utc), result)


def summary_of(night: Night) -> dict[str, Any]:
    """Everything that `--summary` writes; a line per step and per overall metric, so its size does not grow with the catalog."""
    recorded = night.warehouse.read("pipeline_runs").where((F.col("run_id") == night.run_id) & (F.col("step") != RUN_STEP))
    steps: dict[str, dict[str, Any]] = {}
    for row in recorded.orderBy("started_at").collect():
        detail = json.loads(row["detail"])
        steps[row["step"]] = {
            "status": row["status"], "seconds": detail.pop("seconds", None), "rows_in": row["rows_in"],
            "embedded": detail.pop("embedded", None), "unchanged": row["rows_skipped"], "quarantined": row["rows_quarantined"],
            "inactive": detail.pop("inactive", None), "versions_read": row["versions_read"],
            "versions_written": row["versions_written"], "figures": detail,
        }  # fmt: skip
    gate = steps.get("evaluate", {}).get("figures", {}).get("gate")
    return {
        "run_id": night.run_id,
        "model_version": steps.get("embed", {}).get("figures", {}).get("model_version"),
        "published": steps.get("publish", {}).get("status") == "done",
        "gate": gate,
        "rows": totals(steps),
        "steps": steps,
        "metrics": metrics_of(night),
        "manifest": steps.get("publish", {}).get("figures", {}).get("manifest"),
    }


def totals(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, int | None] | None:
    """Source rows by where they ended: in = embedded + unchanged + quarantined."""
    if any(steps.get(name, {}).get("status") != "done" for name in ("ingest", "embed")):
        return None
    taken, done = steps["ingest"], steps["embed"]["figures"]["snapshot"]
    return {
        "in": taken["rows_in"],
        "embedded": done["embedded"],
        "unchanged": done["unchanged"],
        "quarantined": taken["quarantined"] + done["quarantined"],
        "inactive": taken["inactive"],
    }


def account(summary: Mapping[str, Any]) -> None:
    """Hold the night to its promise that nothing is lost.

    Raises:
        AccountingError: rows in are not embedded + unchanged + quarantined.
    """
    rows = summary["rows"]
    if rows and rows["in"] != rows["embedded"] + rows["unchanged"] + rows["quarantined"]:
        raise AccountingError(
            f"{rows['in']} rows in, but {rows['embedded']} embedded + {rows['unchanged']} unchanged + {rows['quarantined']} quarantined",
            "keep the warehouse for inspection and run the night again",
        )


def metrics_of(night: Night) -> dict[str, dict[str, Any]]:
    """Overall metrics by system (encoder, frozen_image, ...) and name (hit_rate@10)."""
    rows = night.warehouse.read("retrieval_metrics").where((F.col("run_id") == night.run_id) & (F.col("slice") == "all")).collect()
    systems: dict[str, dict[str, Any]] = {}
    order = {name: n for n, name in enumerate(("hit_rate", "mrr", "ndcg", "map", "recall", "in_category_hit_rate", "ann_recall", "coverage"))}
    for row in sorted(rows, key=lambda r: (r["model_version"].startswith("frozen_"), r["model_version"], order.get(r["metric"], 99), r["k"])):
        system = row["model_version"] if row["model_version"].startswith("frozen_") else "encoder"
        name = f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]
        systems.setdefault(system, {})[name] = {c: row[c] for c in ("value", "ci_low", "ci_high", "n_queries", "pool_size")}
    return systems


def rehearse(settings: Settings) -> Iterator[str]:
    """What a night would find, a line each; nothing is written."""
    from tgq.catalog.source import read_source
    from tgq.storage.session import open_session

    spark = open_session(settings)
    try:
        source = read_source(spark, settings.catalog)
        rows = source.count()
        yield f"catalog: {rows} rows in {settings.catalog.path}, fields {', '.join(source.columns)}"
        yield f"would run: {', '.join(STEPS)}, report; warehouse {settings.warehouse.path}"
    finally:
        spark.stop()
