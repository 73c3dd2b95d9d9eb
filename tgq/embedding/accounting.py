"""Accounting of the embed step: each active item is embedded, unchanged or quarantined. The counts come from the tables."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tgq.catalog.examine import UNKNOWN
from tgq.embedding.meter import Meter
from tgq.embedding.plan import Plan
from tgq.errors import AccountingError
from tgq.run.night import Night, StepResult

PERMANENT = ("truncated", "not_an_image", "decompression_bomb", "too_large", "no_image_and_no_text")  # reasons that no retry can change


def carry_quarantine(night: Night, model_version: str) -> None:
    """Quarantine items again, without reading them, if their picture was permanently broken and has not changed since.

    Items that have an embedding by now are left out, and so are items whose picture has no known version: it may have changed.
    """
    if night.settings.embed.retry_quarantined:
        return
    if not night.warehouse.has_rows("quarantine", {"stage": "embed", "reason": PERMANENT}):
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


def quarantined_by(night: Night, stage: str) -> DataFrame | None:
    """`item_id` of the items that a stage of this run has quarantined, each once; None if there are none, which needs no Spark job."""
    if not night.warehouse.has_rows("quarantine", {"run_id": night.run_id, "stage": stage}):
        return None
    rows = night.warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == stage))
    return rows.select("item_id").distinct()


def account(night: Night, plan: Plan, model_version: str, read: dict[str, int], meter: Meter, seconds: float) -> StepResult:
    """Count the items in the tables, so that a continued run reports the same counts as an uninterrupted one.

    Args:
        read: the Delta versions that were read.
        seconds: duration of the encoding.

    Raises:
        AccountingError: an active item is neither embedded, unchanged nor quarantined.
    """
    items = night.warehouse.read("catalog_items").where("is_active")
    vectors = (
        night.warehouse.read("item_embeddings")
        .where(F.col("model_version") == model_version)
        .select("item_id", "content_hash", F.col("run_id").alias("embedded_by"))
    )
    joined = items.join(vectors, ["item_id", "content_hash"], "left")
    # outdated: ingest quarantined the new row of such an item, so its last good version stays active
    for name, stage in (("refused", "embed"), ("outdated", "ingest")):
        found = quarantined_by(night, stage)
        joined = joined.withColumn(name, F.lit(False)) if found is None else joined.join(found.withColumn(name, F.lit(True)), "item_id", "left")
    in_snapshot = ~F.coalesce("outdated", F.lit(False))
    by_this_run = F.col("embedded_by") == night.run_id

    from_cache = sum(part.items for part in plan.slices if part.cached)

    def count(condition: Column, name: str) -> Column:
        return F.coalesce(F.sum(condition.cast("long")), F.lit(0)).alias(name)

    is_refused = F.coalesce("refused", F.lit(False))
    row = (
        joined.agg(
            F.count("*").alias("active"),
            count(by_this_run, "embedded"),
            count(by_this_run & in_snapshot, "embedded_in_snapshot"),
            count(F.col("embedded_by").isNotNull() & ~by_this_run, "unchanged"),
            count(F.col("embedded_by").isNotNull() & ~by_this_run & in_snapshot, "unchanged_in_snapshot"),
            count(is_refused & F.col("embedded_by").isNull(), "quarantined"),
            count(is_refused & F.col("embedded_by").isNull() & in_snapshot, "quarantined_in_snapshot"),
            count(in_snapshot, "snapshot"),
        )
        .collect()[0]
    )
    if row["active"] != row["embedded"] + row["unchanged"] + row["quarantined"]:
        raise AccountingError(
            f"embed: {row['active']} active items, but {row['embedded']} embedded + {row['unchanged']} unchanged + "
            f"{row['quarantined']} quarantined",
            "run the embed step again; if the error remains, report it and keep the warehouse",
        )
    counters = meter.counters
    busy = counters.wait_s.value + counters.model_s.value
    return StepResult(
        rows_in=row["active"], rows_out=row["embedded"], embedded=row["embedded"], unchanged=row["unchanged"],
        quarantined=row["quarantined"], versions_read=read,
        versions_written=night.warehouse.versions("item_embeddings", "item_features"),
        figures={
            "model_version": model_version,
            "snapshot": {k: row[f"{k}_in_snapshot"] for k in ("embedded", "unchanged", "quarantined")} | {"good": row["snapshot"]},
            "encoded_now": counters.rows.value,
            "from_kept_features": from_cache,
            "items_per_s": round(counters.rows.value / seconds, 2) if counters.rows.value else None,
            "decode_wait_share": round(counters.wait_s.value / busy, 4) if busy else None,
            "model_seconds": round(counters.model_s.value, 2),
        },
    )  # fmt: skip
