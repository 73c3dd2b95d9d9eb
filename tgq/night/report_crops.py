"""The report's section about grounding: how many pictures were cropped, and some crops beside the pictures they are from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import functions as F

from tgq.grounding.box import ground
from tgq.night.report_examples import Pictures, caption
from tgq.report.data import Card, Crops
from tgq.run.night import Night

PAIRS = 12  # pictures that are shown beside their crops


def crops_section(night: Night, summary: Mapping[str, Any], pictures: Pictures) -> Crops | None:
    """The section; None for a night without grounding. Cost: one query with a limit, and PAIRS pictures."""
    figures = summary.get("grounding")
    if not figures:
        return None
    grounding = night.warehouse.read("item_grounding").where(~F.col("kept_whole")).select("item_id", "content_hash", "box", "score")
    items = night.warehouse.read("catalog_items").where("is_active")
    shown = grounding.join(items, ["item_id", "content_hash"]).orderBy(F.xxhash64("item_id", F.lit(night.run_id))).limit(PAIRS)
    rows = shown.select("item_id", "title", "brand", "category", "image_uri", "image_bytes", "box", "score").collect()
    crops = [ground(tuple(row["box"]), 1.0, 0.0, night.settings.enrich.grounding.margin).crop for row in rows]
    pairs = pictures.pairs([(row["image_uri"], row["image_bytes"], crop) for row, crop in zip(rows, crops, strict=True)])
    cards = [
        (Card(row["item_id"], row["title"] or "", caption(row), original), Card(row["item_id"], row["title"] or "", "crop", crop, row["score"]))
        for row, (original, crop) in zip(rows, pairs, strict=True)
    ]  # fmt: skip
    return Crops(figures["detector"], figures["cropped"], figures["kept_whole"], cards)
