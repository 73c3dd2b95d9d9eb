"""Writes to `catalog_items` what the encoder reads of each item after enrichment. Rows that have it already are not written.

Cost: a join of the catalog's texts and hashes with the refined titles; the rest grows with the items whose title changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.enriched import DERIVED, REFINED, write_enriched
from tgq.catalog.fields import content_hash, encoder_texts
from tgq.enrichment.texts import with_readable_texts
from tgq.registry.grounding import policy_of
from tgq.run.night import Night

STAGE = "enriched"


def titles_of(night: Night, version: str | None) -> DataFrame:
    """The refined titles of a refiner by `item_id` and `text_hash`; none for None."""
    rows = night.warehouse.read("item_texts").where((F.col("refiner_version") == version) & (F.col("verdict") == "refined") if version else F.lit(False))
    return rows.select("item_id", "text_hash", F.col("title").alias("wanted"))


def apply_titles(night: Night, version: str | None) -> None:
    """Make the refined titles of a refiner what the encoder reads; items without one have their own again.

    version: of the refiner; None if titles are not refined any more.
    """
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    joined = items.join(titles_of(night, version), ["item_id", "text_hash"], "left")
    changed = joined.where(~F.col("wanted").eqNullSafe(F.col(REFINED)))
    columns = ("item_id", "title", "brand", "category", "attributes", "image_hash", "wanted", F.coalesce("source_hash", "content_hash").alias("source_hash"))
    metadata, folder = night.settings.metadata, night.staging(STAGE)
    grounding = policy_of(night.settings.enrich.grounding, night.model_folder)

    def compose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            out = []
            for row in batch.to_pylist():
                row["attributes"] = dict(row["attributes"] or ())
                row["title"] = row["title"] if row["wanted"] is None else row["wanted"]
                text, title = encoder_texts(row, metadata)
                crop = grounding.crop(row["category"], text) if grounding and row["image_hash"] else None
                hashed = content_hash(row["image_hash"], text, title, crop)
                out.append((row["item_id"], text, title, hashed, row["wanted"], row["source_hash"]))
            if out:
                yield pa.RecordBatch.from_arrays([pa.array(column, pa.string()) for column in zip(*out, strict=True)], names)

    names = ("item_id", *DERIVED)
    schema = ", ".join(f"{name} string" for name in names)
    changed.select(*columns).mapInArrow(compose, schema).write.mode("overwrite").parquet(folder)
    rows = night.spark.read.schema(schema).parquet(folder)
    if not rows.isEmpty():
        write_enriched(night.warehouse, rows)
