"""The step `validate_catalog`, and how the results of a validation suite are written.

The suite checks figures of one SQL query, which reads no picture and no vector. Results are written to `reports/<run_id>/`:
`validation/<suite>.json` and `data_docs/<suite>.html`.

An expectation is critical if later steps would give wrong results without it. If they would only give worse results, it is a
warning, and the gate decides.
"""

from __future__ import annotations

import json
from typing import Any

from tgq.errors import ValidationError
from tgq.run.night import Night, StepResult
from tgq.storage.files import Files
from tgq.storage.warehouse import sql_string
from tgq.validation.expectations import Expect, Verdict, judge

CATALOG = (
    Expect("active_items", "the catalog has active items", low=1),
    Expect("duplicate_ids", "an item has one row", 0, 0),
    Expect("blank_ids", "every item has an id", 0, 0),
    Expect("missing_content_hashes", "every item has a content hash, by which changes are detected", 0, 0),
    Expect("empty_items", "every active item has a picture or a text", 0, 0),
    Expect("unaccounted_rows", "every source row became an item or went to quarantine", 0, 0),
    Expect("quarantined_share", "few rows of the snapshot are unusable", high=0.2, severity="warning"),
    Expect("vanished_share", "few items left the catalog since the night before", high=0.2, severity="warning"),
    Expect("untitled_share", "most active items have a title", high=0.5, severity="warning"),
    Expect("uncategorised_share", "most active items have a category", high=0.5, severity="warning"),
    Expect("pictureless_share", "most active items have a picture", high=0.5, severity="warning"),
)

COUNTS = ("items", "active_items", "blank_ids", "missing_content_hashes", "empty_items", "untitled", "uncategorised", "pictureless")


def validate_catalog(night: Night) -> StepResult:
    """Check `catalog_items` after ingest.

    Raises:
        ValidationError: a critical expectation failed, so nothing was embedded. The results are written.
    """
    figures = catalog_figures(night)
    verdict = judge("catalog", CATALOG, figures)
    return write_results(night, "catalog", figures, verdict, ("catalog_items", "quarantine"), figures["items"])


def catalog_figures(night: Night) -> dict[str, Any]:
    """Counts and shares over `catalog_items` and this run's quarantine; shares are of active items unless named otherwise."""
    table, run = night.warehouse.qualified, sql_string(night.run_id)
    ingested = night.warehouse.rows("pipeline_runs", {"run_id": night.run_id, "step": "ingest", "status": "done"}, "rows_in", "detail")
    rows_in, vanished = (ingested[0]["rows_in"], json.loads(ingested[0]["detail"]).get("newly_inactive")) if ingested else (None, None)
    found = night.spark.sql(f"""
        WITH refused AS (
          SELECT item_id, count(*) AS refused FROM {table('quarantine')} WHERE run_id = {run} AND stage = 'ingest' GROUP BY item_id
        ), items AS (
          SELECT
            item_id,
            count(*) AS items,
            count_if(is_active) AS active_items,
            count_if(trim(item_id) = '') AS blank_ids,
            count_if(coalesce(content_hash, '') = '') AS missing_content_hashes,
            count_if(is_active AND image_hash IS NULL AND trim(concat_ws('', metadata_text, encoder_title)) = '') AS empty_items,
            count_if(is_active AND coalesce(trim(title), '') = '') AS untitled,
            count_if(is_active AND coalesce(trim(category), '') = '') AS uncategorised,
            count_if(is_active AND image_hash IS NULL) AS pictureless
          FROM {table('catalog_items')} GROUP BY item_id
        ), figures AS (
          SELECT
            {", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in COUNTS)},
            coalesce(sum(active_items) FILTER (WHERE refused IS NULL), 0) AS seen,
            count_if(items > 1) AS duplicate_ids,
            coalesce(sum(refused), 0) AS quarantined,
            CAST({"NULL" if rows_in is None else int(rows_in)} AS BIGINT) AS rows_in,
            CAST({"NULL" if vanished is None else int(vanished)} AS BIGINT) AS vanished
          FROM items FULL JOIN refused USING (item_id)
        )
        SELECT *,
          coalesce(abs(rows_in - seen - quarantined), 0) AS unaccounted_rows,
          coalesce(try_divide(quarantined, seen + quarantined), 0) AS quarantined_share,
          coalesce(try_divide(vanished, active_items + vanished), 0) AS vanished_share,
          coalesce(try_divide(untitled, active_items), 0) AS untitled_share,
          coalesce(try_divide(uncategorised, active_items), 0) AS uncategorised_share,
          coalesce(try_divide(pictureless, active_items), 0) AS pictureless_share
        FROM figures""")
    return found.collect()[0].asDict()


def write_results(
    night: Night, suite: str, figures: dict[str, Any], verdict: Verdict, tables: tuple[str, ...], rows: int
) -> StepResult:
    """Write a suite's results to the run's reports, and print failed expectations.

    Raises:
        ValidationError: a critical expectation failed.
    """
    folder = Files(night.warehouse.path("reports", night.run_id))
    folder.write(f"validation/{suite}.json", json.dumps({"figures": figures, "result": verdict.result}, indent=1, default=str).encode())
    folder.write(f"data_docs/{suite}.html", verdict.page.encode())
    page = night.warehouse.path("reports", night.run_id, "data_docs", f"{suite}.html")
    critical, warnings = verdict.failed("critical"), verdict.failed("warning")
    for outcome in (*critical, *warnings):
        night.progress.say(f"{outcome.expect.severity}: {outcome}")
    if critical:
        more = f" (and {len(critical) - 1} more)" if len(critical) > 1 else ""
        raise ValidationError(f"{suite}: {critical[0]}{more}", f"see {page}; nothing after this step was touched")
    return StepResult(
        rows_in=rows,
        versions_read=night.warehouse.versions(*tables),
        figures={
            **figures, "expectations": len(verdict.outcomes), "warnings": [str(w) for w in warnings], "data_docs": page,
        },
    )  # fmt: skip
