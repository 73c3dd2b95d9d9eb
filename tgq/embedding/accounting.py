"""What became of every active item: embedded, unchanged or quarantined, counted from the tables."""

from __future__ import annotations

from pyspark.sql import Column, Window
from pyspark.sql import functions as F

from tgq.catalog.examine import UNKNOWN
from tgq.embedding.meter import Meter
from tgq.embedding.plan import Plan
from tgq.errors import AccountingError
from tgq.run.night import Night, StepResult

PERMANENT = ("truncated", "not_an_image", "decompression_bomb", "too_large", "no_image_and_no_text")  # whatever the model


def carry_quarantine(night: Night, model_version: str) -> None:
    """Items whose picture was found broken for good and has not changed since are quarantined again without a new try.

    Not those that have a vector by now, nor those whose picture's version is not known: it may have been mended.
    """
    if night.settings.embed.retry_quarantined:
        return
    earlier = night.warehouse.read("quarantine").where((F.col("stage") == "embed") & F.col("reason").isin(*PERMANENT))
    latest = Window.partitionBy("item_id").orderBy(F.desc("quarantined_at"))
    last = earlier.withColumn("n", F.row_number().over(latest)).where("n = 1").drop("n")
    done = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version)
    items = night.warehouse.read("catalog_items").where("is_active").where(~F.col("source_fingerprint").endswith(f":{UNKNOWN}"))
    items = items.join(done, ["item_id", "content_hash"], "left_anti").select("item_id", "source_fingerprint")
    again = last.join(items, ["item_id", "source_fingerprint"], "left_semi").withColumns(
        {"run_id": F.lit(night.run_id), "quarantined_at": F.current_timestamp()}
    )
    if again.limit(1).count():
        columns = night.warehouse.read("quarantine").columns
        night.warehouse.upsert(again.select(*columns), "quarantine", ("run_id", "stage", "item_id", "occurrence"))


def account(night: Night, plan: Plan, model_version: str, read: dict[str, int], measured: Meter, seconds: float) -> StepResult:
    """Derive the counts from the tables, so that a run taken up again shows those of an undisturbed one."""
    items = night.warehouse.read("catalog_items").where("is_active")
    vectors = (
        night.warehouse.read("item_embeddings")
        .where(F.col("model_version") == model_version)
        .select("item_id", "content_hash", F.col("run_id").alias("embedded_by"))
    )
    refused = (
        night.warehouse.read("quarantine")
        .where((F.col("run_id") == night.run_id) & (F.col("stage") == "embed"))
        .select("item_id", F.lit(True).alias("refused"))
    )
    # an active item is in the snapshot, unless its row there was refused and its last good version stands in
    kept = night.warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == "ingest"))
    kept = kept.select("item_id", F.lit(True).alias("kept")).distinct()
    in_snapshot = F.col("kept").isNull()
    mine = F.col("embedded_by") == night.run_id

    light = sum(part.items for part in plan.slices if part.light)

    def count(condition: Column, name: str) -> Column:
        return F.coalesce(F.sum(condition.cast("long")), F.lit(0)).alias(name)

    refused_ = F.coalesce("refused", F.lit(False))
    row = (
        items.join(vectors, ["item_id", "content_hash"], "left")
        .join(refused, "item_id", "left")
        .join(kept, "item_id", "left")
        .agg(
            F.count("*").alias("active"),
            count(mine, "embedded"),
            count(mine & in_snapshot, "embedded_in_snapshot"),
            count(F.col("embedded_by").isNotNull() & ~mine, "unchanged"),
            count(F.col("embedded_by").isNotNull() & ~mine & in_snapshot, "unchanged_in_snapshot"),
            count(refused_ & F.col("embedded_by").isNull(), "quarantined"),
            count(refused_ & F.col("embedded_by").isNull() & in_snapshot, "quarantined_in_snapshot"),
            count(in_snapshot, "snapshot"),
        )
        .collect()[0]
    )
    if row["active"] != row["embedded"] + row["unchanged"] + row["quarantined"]:
        raise AccountingError(
            f"embed: {row['active']} active items, but {row['embedded']} embedded + {row['unchanged']} unchanged + "
            f"{row['quarantined']} quarantined",
            "run the embed step again; if it stays, keep the warehouse for inspection",
        )
    counters = measured.counters
    busy = counters.wait_s.value + counters.model_s.value
    return StepResult(
        rows_in=row["active"], rows_out=row["embedded"], embedded=row["embedded"], unchanged=row["unchanged"],
        quarantined=row["quarantined"], versions_read=read,
        versions_written=night.warehouse.versions("item_embeddings", "item_features"),
        figures={
            "model_version": model_version,
            "snapshot": {k: row[f"{k}_in_snapshot"] for k in ("embedded", "unchanged", "quarantined")} | {"good": row["snapshot"]},
            "encoded_now": counters.rows.value,
            "from_kept_features": light,
            "items_per_s": round(counters.rows.value / seconds, 2) if counters.rows.value else None,
            "decode_wait_share": round(counters.wait_s.value / busy, 4) if busy else None,
            "model_seconds": round(counters.model_s.value, 2),
        },
    )  # fmt: skip
