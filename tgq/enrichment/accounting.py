"""Counts of an enrich step, from the tables, so that a continued run reports those of an uninterrupted one; and what an earlier night counted."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import functions as F

from tgq.catalog.enriched import GENERATED, REFINED
from tgq.enrichment.attributes.generate import TABLE, active_items
from tgq.enrichment.attributes.plan import AttributePlan
from tgq.enrichment.texts import refined_from, with_readable_texts
from tgq.enrichment.titles.plan import RefinerPlan
from tgq.run.night import Night

STEP = "enrich"
VERDICTS = ("refined", "kept", "refused", "failed")
ANSWERS = ("said", "silent", "refused", "failed")
READ = ("catalog_items", "item_texts", TABLE)


def counts_of(night: Night, version: str | None) -> dict[str, Any]:
    """Active items by verdict: refined, kept, refused, failed, waiting (not asked yet) and untitled, which sum up to `active`.

    Also `reasons` of refused and failed, `applied` (items that the encoder reads under a refined title), and of this run alone `new` items,
    `rounds` and `tokens`. Cost: one aggregation over the keys and texts of the active items.
    """
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    items = items.withColumn("text_hash", refined_from(RefinerPlan.of(night.settings).sees_pictures))
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


def attribute_counts_of(night: Night, plan: AttributePlan | None, version: str | None) -> dict[str, Any]:
    """Active items: `complete` (they lack no attribute of their schema), `asked` and `waiting` (not asked yet), which sum up to `active`.

    Of the asked attributes: said, silent, refused and failed, `by_key` those that are said, `reasons` of refused and failed. Also `applied` (items with
    generated attributes that the encoder reads), and of this run alone `new` items and `tokens`. Cost: two aggregations over the active items.
    """
    items = active_items(night, plan).select("item_id", "text_hash", "seen_hash", (F.size("asked") > 0).alias("lacks"), GENERATED)
    rows = night.warehouse.read(TABLE).where(F.col("source_version") == version if version else F.lit(False)).alias("r")
    items = items.alias("i")
    same = [F.col(f"i.{a}").eqNullSafe(F.col(f"r.{b}")) for a, b in (("item_id", "item_id"), ("text_hash", "text_hash"), ("seen_hash", "image_hash"))]
    joined = items.join(rows, same[0] & same[1] & same[2], "left").withColumn("new", F.col("r.run_id") == night.run_id)
    per_item = joined.groupBy("i.item_id").agg(
        F.first("lacks").alias("lacks"), F.count("r.key").alias("answers"), F.bool_or("new").alias("new"), F.first(F.col(GENERATED).isNotNull()).alias("has"),
        F.sum(F.when(F.col("new"), F.col("r.tokens"))).alias("tokens"),
    )  # fmt: skip
    asked = F.col("answers") > 0
    [total] = per_item.agg(
        F.count("*").alias("active"), F.count_if(asked).alias("asked"), F.count_if(F.col("lacks") & ~asked).alias("waiting"),
        F.count_if("new").alias("new"), F.count_if("has").alias("applied"), F.coalesce(F.sum("tokens"), F.lit(0)).alias("tokens"),
    ).collect()  # fmt: skip
    counts = total.asDict()
    answers = joined.where(F.col("r.key").isNotNull()).groupBy("r.key", "r.verdict", "r.reason").count().collect()  # a row for each key and reason
    counts["complete"] = counts["active"] - counts["asked"] - counts["waiting"]
    counts |= {name: sum(row["count"] for row in answers if row["verdict"] == name) for name in ANSWERS}
    counts["by_key"] = dict(sorted((row["key"], row["count"]) for row in answers if row["verdict"] == "said"))
    reasons: dict[str, int] = {}
    for row in answers:
        if row["reason"]:
            name = f"{row['verdict']}.{row['reason']}"
            reasons[name] = reasons.get(name, 0) + row["count"]
    return counts | {"reasons": dict(sorted(reasons.items()))}


def key_of(night: Night, refiner: str | None, source: str | None) -> dict[str, Any]:
    """All that decides what an enrich step would do now."""
    versions = {"version": refiner, "source_version": source}
    return {**versions, "metadata": night.settings.metadata.model_dump(mode="json"), **night.warehouse.versions(*READ)}


def last_figures(night: Night) -> dict[str, Any]:
    """The figures of the last enrich step that was done; empty if there was none. Cost: a few records."""
    rows = night.warehouse.rows("pipeline_runs", {"step": STEP, "status": "done"}, "run_id", "started_at", "detail")
    last = max(rows, key=lambda row: row["started_at"], default=None)
    return {} if last is None else {"run_id": last["run_id"], **json.loads(last["detail"])}


def enriched_items(night: Night) -> int:
    """Active items of which the encoder reads something else than the shop wrote. Cost: a scan of three columns."""
    either = F.col(REFINED).isNotNull() | F.col(GENERATED).isNotNull()
    return night.warehouse.read("catalog_items").where("is_active").where(either).count()


def asked_items(night: Night) -> int:
    """Active items that the run has worked on. Cost: a scan of the ids of this run in both tables."""
    done = [night.warehouse.read(table).where(F.col("run_id") == night.run_id).select("item_id") for table in READ[1:]]
    return night.warehouse.read("catalog_items").where("is_active").join(done[0].unionByName(done[1]), "item_id", "left_semi").count()
