"""Validation of the embeddings before anything is built from them: counts, norms, coverage, collapse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tgq.encoder.config import EncoderConfig
from tgq.registry.champion import local_folder
from tgq.registry.loading import versions_of
from tgq.run.night import Night, StepResult
from tgq.storage.warehouse import sql_string
from tgq.validation.catalog import write_results
from tgq.validation.expectations import Expect, judge

NORM_TOLERANCE = 1e-3  # float32 unit vectors are within 1e-6; half precision on the way would show as 5e-4


def embedding_suite(minimum_coverage: float) -> tuple[Expect, ...]:
    """The expectations on the embeddings of one model."""
    return (
        Expect("embeddings", "the model has embeddings", low=1),
        Expect("null_vectors", "every row has a vector without nulls", 0, 0),
        Expect("wrong_width", "every vector has the encoder's width", 0, 0),
        Expect("non_finite", "every number is finite", 0, 0),
        Expect("norm_min", "every vector has unit length", 1 - NORM_TOLERANCE, 1 + NORM_TOLERANCE),
        Expect("norm_max", "every vector has unit length", 1 - NORM_TOLERANCE, 1 + NORM_TOLERANCE),
        Expect("duplicate_keys", "(item_id, model_version) is unique", 0, 0),
        Expect("covered_items", "active items have an embedding of their present content", low=1),
        Expect("coverage", "nearly all active items have an embedding of their present content", minimum_coverage, 1, "warning"),
        Expect("mean_cosine", "random items have different vectors: the space has not collapsed", high=0.95, severity="warning"),
        Expect("gates_out_of_range", "both gates are in (0, 2)", 0, 0, "warning"),
        Expect("agreement_out_of_range", "the image-title agreement is a cosine", 0, 0, "warning"),
    )


def validate_embeddings(night: Night) -> StepResult:
    """Validate the rows of `item_embeddings` of the run's model.

    Raises:
        ValidationError: a critical expectation failed.
    """
    model_version, _ = versions_of(night.model_folder)
    figures = embedding_figures(night, model_version, EncoderConfig.read(Path(local_folder(night.model_folder))).dim)
    verdict = judge("embeddings", embedding_suite(night.settings.gate.floors.get("coverage", 0.9)), figures)
    return write_results(night, "embeddings", figures, verdict, ("catalog_items", "item_embeddings"), figures["embeddings"])


def embedding_figures(night: Night, model_version: str, width: int) -> dict[str, Any]:
    """Counts, norms and coverage of one model's embeddings. `mean_cosine` is |mean vector|^2, the mean cosine over all pairs."""
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
    return found.collect()[0].asDict()
