"""A whole night: its steps in order, then the report and the MLflow run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from tgq.catalog.reading.location import locate
from tgq.embedding.embed import embed, need_model
from tgq.embedding.executor.daemon import start_workers
from tgq.enrichment.enrich import described as enrichment
from tgq.enrichment.enrich import enrich, is_enabled, is_wanted, need_enrichment
from tgq.errors import GateError
from tgq.evaluation.evaluate import evaluate
from tgq.index.build import build_index
from tgq.index.neighbors import build_neighbors
from tgq.messages import masked
from tgq.night.ingestion import ingest, wants_queries
from tgq.night.report import write_report
from tgq.night.run_log import log_failure, open_run_log, write_run_log
from tgq.night.summary import check_accounting, summary_of
from tgq.publishing.publish import publish
from tgq.publishing.verdict import read_verdict, refusal
from tgq.queries.inputs import described, open_inputs
from tgq.registry.grounding import policy_of
from tgq.registry.selection import model_folder
from tgq.registry.tracking import Tracker, import_mlflow
from tgq.run.night import RUN_STEP, Night, StepResult
from tgq.run.records import error_line, record, run_step
from tgq.settings.sections import Settings
from tgq.spark.session import is_alive, open_session
from tgq.storage.artifacts import remove_folder
from tgq.validation.catalog import validate_catalog
from tgq.validation.embeddings import validate_embeddings
from tgq.validation.expectations import import_great_expectations

STEPS: dict[str, Callable[[Night], StepResult]] = {
    "ingest": ingest,
    "validate_catalog": validate_catalog,
    "enrich": enrich,
    "embed": embed,
    "validate_embeddings": validate_embeddings,
    "index": build_index,
    "neighbors": build_neighbors,
    "evaluate": evaluate,
    "publish": publish,
}


def imports_of(names: Sequence[str], settings: Settings) -> list[Callable[[], object]]:
    """What the named steps import and what takes seconds."""
    validates, tracks = any(name.startswith("validate") for name in names), list(names) == list(STEPS) or "report" in names
    return [*([import_great_expectations] if validates else []), *([import_mlflow] if tracks and settings.tracking.enabled else [])]


class Nightly:
    """Runs the steps of one night.

    Attributes:
        report: path of the report, once written.
        mlflow_run: id of the MLflow run, once started.
    """

    def __init__(self, night: Night):
        self.night = night
        self.report: str | None = None
        self.mlflow_run: str | None = None
        self._figures: dict[str, Any] | None = None  # cached summary; None once a step has changed the tables

    def run(self, names: Sequence[str]) -> None:
        """Run the named steps in order. A whole night ends with its report, also if the gate refuses to publish it.

        Raises:
            GateError: the gate refused; all steps but publishing are done.
            AccountingError: a source row is neither embedded, unchanged nor quarantined; nothing was published.
            TgqError: a step failed; later steps did not run.
        """
        refused: GateError | None = None
        whole = list(names) == list(STEPS)
        if whole:
            need_model(self.night)
            need_enrichment(self.night.settings)
        tracker = open_run_log(self.night) if whole or "report" in names else None
        self.mlflow_run = tracker.run if tracker else None
        try:
            for name in names:
                if name == "report":
                    continue
                if name == "enrich" and not is_wanted(self.night):
                    if not whole:
                        self.night.progress.say("nothing to enrich: enrich.text.refiner and enrich.attributes.source are none")
                    continue
                self.night.lock.need()
                self.night.progress.say(name.replace("_", " "))
                if name == "publish":
                    check_accounting(self.summary())
                self._figures = None
                try:
                    result = run_step(self.night, name, STEPS[name])
                except GateError as e:
                    refused = e
                    break
                if whole and name == "ingest" and result.figures["new"] + result.figures["changed"]:
                    start_workers(self.night.spark)
            if list(names) == ["evaluate"]:
                refused = refusal(read_verdict(self.night))
            if tracker:
                self._close(tracker)
        except Exception as e:
            if tracker and whole and is_alive(self.night.spark):  # without its JVM a run was interrupted: the next command continues it
                self._fail(tracker, e)
            raise
        if refused:
            raise refused

    def _close(self, tracker: Tracker) -> None:
        """Write the report and the MLflow run. Mark the run as ended if it was published or refused; otherwise it can still be continued."""
        night, self._figures = self.night, None
        summary = self.summary()
        self.report = write_report(night, summary)
        write_run_log(night, tracker, self.summary())
        refused = summary["gate"] is not None and not summary["gate"]["passed"]
        if summary["published"] or refused:
            finish(night, "done" if summary["published"] else "refused", self.summary())
            remove_folder(night.staging())

    def _fail(self, tracker: Tracker, error: Exception) -> None:
        text = error_line(error)
        with contextlib.suppress(Exception):  # the first error is the one to show
            finish(self.night, "failed", {"error": text})
            log_failure(self.night, tracker, text)

    def summary(self) -> dict[str, Any]:
        """The figures of the run, as the command prints them and `--summary` writes them."""
        if self._figures is None:
            self._figures = summary_of(self.night)
        return self._figures | {"report": self.report, "mlflow_run": self.mlflow_run}


def finish(night: Night, status: str, figures: Mapping[str, Any]) -> None:
    """Write the row of the run itself, with its final status."""
    rows = figures.get("rows") or {}
    result = StepResult(
        rows_in=rows.get("in"), rows_out=rows.get("embedded"), embedded=rows.get("embedded"), unchanged=rows.get("unchanged"),
        quarantined=rows.get("quarantined"), inactive=rows.get("inactive"),
        figures={k: v for k, v in figures.items() if k not in ("steps", "metrics", "query_metrics")}
        | {"catalog": night.settings.catalog.path and masked(night.settings.catalog.path), "encoder": night.settings.encoder.path},
    )  # fmt: skip
    record(night, RUN_STEP, status, night.started_at, datetime.now(timezone.utc), result)


def dry_run(settings: Settings) -> Iterator[str]:
    """Lines that say what a nightly run would read and which steps it would take. Nothing is written.

    Raises:
        ModelError, ConfigError: enrichment lacks something; see `need_enrichment`.
    """
    from tgq.catalog.preview import preview

    need_enrichment(settings)
    spark = open_session(settings)
    try:
        yield from preview(spark, settings)
        if wants_queries(settings):
            yield from described(open_inputs(spark, settings, locate(spark, settings.catalog)))
        yield from enrichment(settings)
        if grounding := policy_of(settings.enrich.grounding, model_folder(settings)):
            yield f"grounding: {grounding.described}"
        steps = [name for name in STEPS if name != "enrich" or is_enabled(settings)]
        yield f"steps: {', '.join(steps)}, report"
        yield f"warehouse: {settings.warehouse.path}"
    finally:
        spark.stop()
