"""Counts of an enrich step, from the tables, so that a continued run reports those of an uninterrupted one; and what an earlier night counted."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import functions as F

from tgq.catalog.enriched import REFINED
from tgq.enrichment.texts import with_readable_texts
from tgq.run.night import Night

STEP = "enrich"
VERDICTS = ("refined", "kept", "refused", "failed")


def counts_of(night: Night, version: str | None) -> dict[str, Any]:
    """Active items by verdict: refined, kept, refused, failed, waiting (not asked yet) and untitled, which sum up to `active`.

    Also `reasons` of refused and failed, `applied` (items that the encoder reads under a refined title), and of this run alone `new` items,
    `rounds` and `tokens`. Cost: one aggregation over the keys and texts of the active items.
    """
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    known = night.warehouse.read("item_texts").where(F.col("refiner_version") == version if version else F.lit(False))
    known = known.select("item_id", "text_hash", "verdict", "reason", "rounds", "tokens", (F.col("run_id") == night.run_id).alias("new"))
    untitled = F.coalesce(F.length(F.trim("texts.title")), F.lit(0)) == 0
    verdict = F.coalesce("verdict", F.when(untitled, "untitled").otherwise("waiting"))
    joined = items.join(known, ["item_id", "text_hash"], "left").withColumn("outcome", verdict)
    rows = joined.groupBy("outcome", "reason").agg(
        F.count("*").alias("items"), F.count_if("new").alias("new"), F.sum(F.when(F.col("new"), F.col("rounds"))).alias("rounds"),
        F.sum(F.when(F.col("new"), F.col("tokens"))).alias("tokens"), F.count(REFINED).alias("applied"),
    ).collect()  # a row for each reason  # fmt: skip
    counts: dict[str, Any] = {name: sum(row["items"] for row in rows if row["outcome"] == name) for name in (*VERDICTS, "waiting", "untitled")}
    counts["active"] = sum(row["items"] for row in rows)
    counts["reasons"] = dict(sorted((f"{row['outcome']}.{row['reason']}", row["items"]) for row in rows if row["reason"]))
    return counts | {name: sum(row[name] or 0 for row in rows) for name in ("new", "rounds", "tokens", "applied")}


def key_of(night: Night, version: str | None) -> dict[str, Any]:
    """All that decides what an enrich step would do now."""
    return {"version": version, "metadata": night.settings.metadata.model_dump(mode="json"), **night.warehouse.versions("catalog_items", "item_texts")}


def last_figures(night: Night) -> dict[str, Any]:
    """The figures of the last enrich step that was done; empty if there was none. Cost: a few records."""
    rows = night.warehouse.rows("pipeline_runs", {"step": STEP, "status": "done"}, "run_id", "started_at", "detail")
    last = max(rows, key=lambda row: row["started_at"], default=None)
    return {} if last is None else {"run_id": last["run_id"], **json.loads(last["detail"])}
