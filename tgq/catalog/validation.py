"""The two validation steps: is the catalog sound enough to embed, are the embeddings sound enough to search?

Each suite rests on one summary query. The catalog's reads no picture and no vector; the embeddings' reads every vector once,
through Spark's native `vector_norm` (4 times the speed of a higher-order function). Results lie under `reports/<run_id>/`:
`validation/<suite>.json` and `data_docs/<suite>.html`.

Critical is what makes everything after it wrong. What only makes a night worse is a warning: whether worse is too bad is the
gate's to say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tgq.catalog.expectations import Expect, Verdict, judge
from tgq.encoder.model import EncoderConfig
from tgq.errors import ValidationError
from tgq.registry.champion import local_folder
from tgq.registry.loading import versions_of
from tgq.run.night import Night, StepResult
from tgq.storage.files import Files
from tgq.storage.warehouse import sql_string

NORM_TOLERANCE = 1e-3  # float32 unit vectors are within 1e-6; half precision on the way would show as 5e-4

CATALOG = (
    Expect("active_items", "the catalog has items", low=1),
    Expect("duplicate_ids", "an item has one row", 0, 0),
    Expect("blank_ids", "every item has an id", 0, 0),
    Expect("missing_content_hashes", "every item's content is known, or changes would be missed", 0, 0),
    Expect("empty_items", "every active item has a picture or a text", 0, 0),
    Expect("unaccounted_rows", "every source row became an item or went to quarantine", 0, 0),
    Expect("quarantined_share", "few rows of the snapshot are unusable", high=0.2, severity="warning"),
    Expect("vanished_share", "few items left the catalog since the night before", high=0.2, severity="warning"),
    Expect("untitled_share", "most active items have a title", high=0.5, severity="warning"),
    Expect("uncategorised_share", "most active items have a category", high=0.5, severity="warning"),
    Expect("pictureless_share", "most active items have a picture", high=0.5, severity="warning"),
)


def embedding_suite(minimum_coverage: float) -> tuple[Expect, ...]:
    """What is expected of the embeddings under the night's model."""
    return (
        Expect("embeddings", "the model has embeddings", low=1),
        Expect("null_vectors", "every row has a vector without holes", 0, 0),
        Expect("wrong_width", "every vector has the encoder's width", 0, 0),
        Expect("non_finite", "every number is finite", 0, 0),
        Expect("norm_min", "every vector is of unit length", 1 - NORM_TOLERANCE, 1 + NORM_TOLERANCE),
        Expect("norm_max", "every vector is of unit length", 1 - NORM_TOLERANCE, 1 + NORM_TOLERANCE),
        Expect("duplicate_keys", "(item_id, model_version) is unique", 0, 0),
        Expect("covered_items", "active items have an embedding of their present content", low=1),
        Expect("coverage", "nearly all active items have an embedding of their present content", minimum_coverage, 1, "warning"),
        Expect("mean_cosine", "two random items are told apart: the space has not collapsed", high=0.95, severity="warning"),
        Expect("gates_out_of_range", "both gates lie in (0, 2)", 0, 0, "warning"),
        Expect("agreement_out_of_range", "the image-title agreement is a cosine", 0, 0, "warning"),
    )


def validate_catalog(night: Night) -> StepResult:
    """Judge `catalog_items` after ingest.

    Raises:
        ValidationError: a critical expectation failed; nothing was embedded. The results are written all the same.
    """
    figures = catalog_figures(night)
    verdict = judge("catalog", CATALOG, figures)
    return _conclude(night, "catalog", figures, verdict, ("catalog_items", "quarantine"), figures["items"])


def validate_embeddings(night: Night) -> StepResult:
    """Judge `item_embeddings` under the night's model.

    Raises:
        ValidationError: a critical expectation failed; no shard, neighbour or metric was made of these vectors.
    """
    model_version, _ = versions_of(night.model_folder)
    figures = embedding_figures(night, model_version, EncoderConfig.read(Path(local_folder(night.model_folder))).dim)
    verdict = judge("embeddings", embedding_suite(night.settings.gate.floors.get("coverage", 0.9)), figures)
    return _conclude(night, "embeddings", figures, verdict, ("catalog_items", "item_embeddings"), figures["embeddings"])


def catalog_figures(night: Night) -> dict[str, Any]:
    """Counts and shares over `catalog_items` and this run's quarantine; shares are of active items unless named otherwise."""
    table, run = night.warehouse.qualified, sql_string(night.run_id)
    ingest = f"FROM {table('pipeline_runs')} WHERE run_id = {run} AND step = 'ingest' AND status = 'done'"
    found = night.spark.sql(f"""
        WITH refused AS (
          SELECT item_id FROM {table('quarantine')} WHERE run_id = {run} AND stage = 'ingest'
        ), items AS (
          SELECT
            count(*) AS items,
            count_if(is_active) AS active_items,
            count_if(trim(item_id) = '') AS blank_ids,
            count_if(coalesce(content_hash, '') = '') AS missing_content_hashes,
            count_if(is_active AND image_hash IS NULL AND trim(concat_ws('', metadata_text, encoder_title)) = '') AS empty_items,
            count_if(is_active AND coalesce(trim(title), '') = '') AS untitled,
            count_if(is_active AND coalesce(trim(category), '') = '') AS uncategorised,
            count_if(is_active AND image_hash IS NULL) AS pictureless,
            count_if(is_active) - (SELECT count(*) FROM {table('catalog_items')} WHERE is_active AND item_id IN (SELECT item_id FROM refused)) AS seen
          FROM {table('catalog_items')}
        ), figures AS (
          SELECT *,
            (SELECT count(*) FROM (SELECT item_id FROM {table('catalog_items')} GROUP BY item_id HAVING count(*) > 1)) AS duplicate_ids,
            (SELECT count(*) FROM {table('quarantine')} WHERE run_id = {run} AND stage = 'ingest') AS quarantined,
            (SELECT max(rows_in) {ingest}) AS rows_in,
            (SELECT max(CAST(get_json_object(detail, '$.newly_inactive') AS BIGINT)) {ingest}) AS vanished
          FROM items
        )
        SELECT *,
          coalesce(abs(rows_in - seen - quarantined), 0) AS unaccounted_rows,
          coalesce(try_divide(quarantined, seen + quarantined), 0) AS quarantined_share,
          coalesce(try_divide(vanished, active_items + vanished), 0) AS vanished_share,
          coalesce(try_divide(untitled, active_items), 0) AS untitled_share,
          coalesce(try_divide(uncategorised, active_items), 0) AS uncategorised_share,
          coalesce(try_divide(pictureless, active_items), 0) AS pictureless_share
        FROM figures""")
    return found.first().asDict()


def embedding_figures(night: Night, model_version: str, width: int) -> dict[str, Any]:
    """Counts, norms and coverage of one model's embeddings. `mean_cosine` is |mean vector|^2: the mean over all pairs."""
    table, model = night.warehouse.qualified, sql_string(model_version)
    found = night.spark.sql(f"""
        WITH vectors AS (
          SELECT
            embedding, gate_metadata, gate_exploratory, agreement,
            size(embedding) = {int(width)} AS right_width,
            vector_norm(embedding, 2F) AS norm  -- null where the vector or a number in it is null
          FROM {table('item_embeddings')} WHERE model_version = {model}
        ), judged AS (
          SELECT *, norm < 'Infinity' AS finite FROM vectors  -- NaN is above infinity here
        ), summed AS (
          SELECT
            count(*) AS embeddings,
            count_if(norm IS NULL) AS null_vectors,
            count_if(NOT right_width) AS wrong_width,
            count_if(NOT finite) AS non_finite,
            CAST(min(norm) FILTER (WHERE finite) AS DOUBLE) AS norm_min,
            CAST(max(norm) FILTER (WHERE finite) AS DOUBLE) AS norm_max,
            vector_avg(CASE WHEN finite AND right_width THEN embedding END) AS mean_vector,
            count_if(NOT (gate_metadata > 0 AND gate_metadata < 2 AND gate_exploratory > 0 AND gate_exploratory < 2))
              AS gates_out_of_range,
            count_if(abs(agreement) > 1.001 AND NOT isnan(agreement)) AS agreement_out_of_range
          FROM judged
        ), keys AS (
          SELECT item_id, content_hash, count(*) OVER (PARTITION BY item_id) AS times
          FROM {table('item_embeddings')} WHERE model_version = {model}
        ), covered AS (
          SELECT
            count(DISTINCT i.item_id) AS active_items,
            count(DISTINCT CASE WHEN k.item_id IS NOT NULL THEN i.item_id END) AS covered_items
          FROM {table('catalog_items')} i LEFT JOIN keys k ON i.item_id = k.item_id AND i.content_hash = k.content_hash
          WHERE i.is_active
        )
        SELECT summed.* EXCEPT (mean_vector), covered.*,
          CAST(vector_inner_product(mean_vector, mean_vector) AS DOUBLE) AS mean_cosine,
          (SELECT count(*) FROM keys WHERE times > 1) AS duplicate_keys,
          coalesce(try_divide(covered_items, active_items), 0) AS coverage
        FROM summed CROSS JOIN covered""")
    return found.first().asDict()


def _conclude(
    night: Night, suite: str, figures: dict[str, Any], verdict: Verdict, tables: tuple[str, ...], rows: int
) -> StepResult:
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
