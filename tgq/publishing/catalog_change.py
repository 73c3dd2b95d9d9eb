"""How far a night's catalog changed against that of the last published night: vanished and changed items, quarantined rows.

The published items are `catalog_items` at the Delta version that the published manifest names, so a refused night between the
two changes nothing: the next night is compared with what is published, not with what was refused.

Cost: one join of item ids and content hashes, no other column; none where the two versions are the same. The driver gets counts.
"""

from __future__ import annotations

import json

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.index.pool import Pool
from tgq.metrics.gate import CatalogChange
from tgq.retrieval.manifest import Manifest
from tgq.run.night import Night


def catalog_change(night: Night, pool: Pool, published: Manifest) -> CatalogChange | None:
    """Compare the night's active items and quarantined rows with those of a published run.

    Returns:
        None if the manifest names no version of `catalog_items`: there is nothing to compare with.
    """
    before, now = published.tables.get("catalog_items"), pool.versions["catalog_items"]
    if before is None:
        return None
    items, vanished, changed = (pool.active, 0, 0) if before == now else _compare(_active(night, before), _active(night, now))
    rows, last_rows = _rows(night, night.run_id), _rows(night, published.run_id)
    return CatalogChange(items, vanished, changed, *rows, *last_rows)


def _active(night: Night, version: int) -> DataFrame:
    return night.warehouse.read("catalog_items", version).where("is_active").select("item_id", "content_hash")


def _compare(before: DataFrame, now: DataFrame) -> tuple[int, int, int]:
    """(items before, those that vanished, those that remain with another content)."""
    joined = before.join(now.withColumnRenamed("content_hash", "content_now"), "item_id", "left")
    row = joined.agg(
        F.count("*").alias("items"),
        F.count_if(F.col("content_now").isNull()).alias("vanished"),
        F.count_if(F.col("content_now") != F.col("content_hash")).alias("changed"),
    ).collect()[0]  # fmt: skip
    return row["items"], row["vanished"], row["changed"]


def _rows(night: Night, run_id: str) -> tuple[int, int]:
    """(rows of the run's source, those quarantined at ingest or at embedding), from the record of its steps; 0 rows if there is none."""
    rows = night.warehouse.rows("pipeline_runs", {"run_id": run_id, "status": "done"}, "step", "rows_in", "rows_quarantined", "detail")
    steps = {row["step"]: row for row in rows}
    ingest, embed = steps.get("ingest"), steps.get("embed")
    if ingest is None or not ingest["rows_in"]:
        return 0, 0
    # the embed step's own count holds items of earlier snapshots too; that of this snapshot stands in its detail
    at_embedding = json.loads(embed["detail"])["snapshot"]["quarantined"] if embed else 0
    return ingest["rows_in"], (ingest["rows_quarantined"] or 0) + at_embedding
