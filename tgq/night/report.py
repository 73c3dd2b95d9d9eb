"""The report step: what the page shows, read from tables and this run's staging in a handful of bounded queries.

Nothing that grows with the catalog reaches the driver: every query aggregates or has a limit. At most
5 * strips * (1 + strip_neighbors) pictures, and with grounding a dozen more, are fetched and shrunk, on threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgq.night import report_examples as examples
from tgq.night import report_figures as figures
from tgq.night.report_crops import crops_section
from tgq.night.report_search import search_section
from tgq.report.data import ENCODER, Report
from tgq.report.page import render
from tgq.run.night import Night
from tgq.storage.files import Files


def write_report(night: Night, summary: Mapping[str, Any]) -> str:
    """Write `reports/<run_id>/report.html`, and the same page as `reports/latest.html`. Returns the first one's path.

    summary: the run's figures, as `tgq nightly --summary` writes them. All else comes from the tables, so the report of an
        earlier run can be made again; its neighbours are then those that are published now.
    """
    page = render(collect(night, summary)).encode()
    folder = Files(night.warehouse.path("reports"))
    folder.write(f"{night.run_id}/report.html", page)
    folder.write("latest.html", page)
    return night.warehouse.path("reports", night.run_id, "report.html")


def collect(night: Night, summary: Mapping[str, Any]) -> Report:
    """Everything the page shows."""
    steps = {name: dict(step) for name, step in summary["steps"].items()}
    gate = summary.get("gate") or {}
    systems = figures.systems_of(summary.get("metrics") or {})
    headline = figures.headline_metric(night.settings)
    embedded = steps.get("embed", {}).get("figures") or {}
    pictures = examples.Pictures(night)
    shards = figures.largest_shards(night, steps)
    counts, quarantined = examples.quarantined_inputs(night, pictures)
    slices = figures.slice_rows(night, headline)
    return Report(
        run_id=night.run_id,
        started=night.started_at,
        status=figures.run_status(summary, gate, steps),
        reasons=[*gate.get("reasons", ()), *figures.step_errors(steps)],
        notes=[*(f"Gate: {note}" for note in gate.get("notes", ())), *figures.validation_notes(steps), *figures.enrichment_notes(steps)],
        rows=summary.get("rows"),
        catalog_change=gate.get("catalog_change"),
        steps=[figures.step_row(name, step) for name, step in steps.items()],
        items_per_s=embedded.get("items_per_s"),
        wait_share=embedded.get("decode_wait_share"),
        coverage=systems[ENCODER]["coverage"].value if "coverage" in systems.get(ENCODER, {}) else None,
        headline=headline,
        level=night.settings.evaluate.level,
        systems=systems,
        differences=figures.baseline_differences(steps, headline),
        trend=figures.nightly_trend(night, headline, bool(summary.get("published"))),
        slices=slices,
        search=search_section(night, summary, pictures),
        crops=crops_section(night, summary, pictures),
        histograms=figures.value_histograms(night, summary.get("model_version")),
        shards=shards[:figures.SHARDS],
        shards_left_out=len(shards[figures.SHARDS:]),
        strips=examples.example_strips(night, pictures),
        quarantine_counts=counts,
        quarantined=quarantined,
        versions=figures.table_versions(steps),
        facts=figures.run_facts(night, summary),
        settings=figures.changed_settings(night.settings),
    )
