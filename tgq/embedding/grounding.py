"""Visual grounding in the embed step: which pictures a detector is asked about, what it found earlier, and what becomes of it.

`content_hash` of an item covers the version of its crop, so the ingest step decides which items are embedded again. The table
`item_grounding` has what was found, so a detector runs once for each picture and phrase, as long as it and its settings stay the same.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.embedding.plan import Plan
from tgq.grounding.box import FAILED, NO_PHRASE
from tgq.grounding.policy import Policy
from tgq.run.night import Night

TABLE = "item_grounding"


def with_grounding(night: Night, waiting: DataFrame, policy: Policy) -> DataFrame:
    """Pending items with the columns GROUNDING of the plan: what a detector is asked for, the version of the crop, and what was found earlier for both.

    `replaces` is true for items that have a row in `item_grounding` too. Items of one picture and version share what was found. Cost: two
    scans of the table, which has no pictures.
    """

    def asked(category, metadata):  # Spark takes type hints for those of a pandas function
        phrase = policy.phrase(category, metadata)
        return phrase, policy.version(phrase)

    rows = waiting.withColumn("asked", F.when(F.col("image_hash").isNotNull(), F.udf(asked, "phrase string, version string")("category", "metadata_text")))
    rows = rows.withColumns({"phrase": F.col("asked.phrase"), "detector_version": F.col("asked.version")}).drop("asked")
    table = night.warehouse.read(TABLE)
    found = table.where(F.col("detector_version").isNotNull() & ~F.col("reason").eqNullSafe(FAILED))
    found = found.select("image_hash", "detector_version", F.struct("box", "score").alias("known")).dropDuplicates(["image_hash", "detector_version"])
    have = table.select("item_id", F.lit(True).alias("has_grounding"))
    rows = rows.join(found, ["image_hash", "detector_version"], "left").join(have, "item_id", "left")
    return rows.withColumn("replaces", F.col("replaces") | F.coalesce("has_grounding", F.lit(False))).drop("has_grounding")


def picture_key(items: DataFrame) -> Column:
    """The key of an item's picture in the feature cache: its hash, or one of hash and version if a detector is asked which part is embedded."""
    return crop_key() if "detector_version" in items.columns else F.col("image_hash")


def crop_key() -> Column:
    """`picture_key` from the columns `image_hash` and `detector_version`."""
    version = F.col("detector_version")
    return F.when(version.isNull(), F.col("image_hash")).otherwise(F.sha2(F.concat_ws("|", "image_hash", version), 256))


def commit_grounding(night: Night, plan: Plan, good: DataFrame, number: int, replaces: bool) -> None:
    """Commit what was decided about the pictures of embedded items, before their embeddings.

    Args:
        good: staged rows of embedded items, with `run_id`.
        number: of the first slice.
        replaces: rows of items may be replaced; otherwise they are appended.
    """
    rows = good.where(F.col("kept_whole").isNotNull() & F.col("image_hash").isNotNull())
    rows = rows.withColumns({"reason": F.col("whole_reason"), "detail": F.col("whole_detail")}).select(*night.warehouse.read(TABLE).columns)
    if replaces:
        night.warehouse.upsert(rows, TABLE, ("item_id",))
    else:
        night.warehouse.append(rows, TABLE, transaction=(f"tgq-grounding-{plan.attempt}", number))


def grounding_figures(night: Night, model_version: str, policy: Policy) -> dict[str, Any]:
    """The detector and what became of the pictures of all embedded items: `cropped`, and `kept_whole` by reason. From one aggregation.

    A picture without a row was embedded before grounding was on, and had no phrase.
    """
    items = night.warehouse.read("catalog_items").where("is_active AND image_hash IS NOT NULL").select("item_id", "content_hash")
    vectors = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version).select("item_id", "content_hash")
    rows = night.warehouse.read(TABLE).select("item_id", "content_hash", "kept_whole", "reason")
    joined = items.join(vectors, ["item_id", "content_hash"], "left_semi").join(rows, ["item_id", "content_hash"], "left")
    reason = F.when(F.col("kept_whole").isNull(), NO_PHRASE).otherwise(F.col("reason"))
    counts = {row["reason"]: row["count"] for row in joined.groupBy(reason.alias("reason")).count().collect()}  # one row a reason
    cropped = counts.pop(None, 0)
    whole = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    return {"detector": policy.described, "cropped": cropped, "kept_whole": whole}
