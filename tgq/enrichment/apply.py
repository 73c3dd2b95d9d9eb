"""Writes to `catalog_items` what the encoder reads of each item after enrichment. Rows that have it already are not written.

Cost: a join of the catalog's texts and hashes with the refined titles and the generated attributes; the rest grows with the items that change.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.enriched import DERIVED, GENERATED, REFINED, write_enriched
from tgq.catalog.fields import content_hash, encoder_texts
from tgq.enrichment.attributes.generate import TABLE, active_items
from tgq.enrichment.attributes.plan import AttributePlan
from tgq.enrichment.texts import refined_from
from tgq.enrichment.titles.plan import RefinerPlan
from tgq.registry.grounding import policy_of
from tgq.run.night import Night

STAGE = "enriched"
MAP = "map<string,string>"
TYPES = {GENERATED: (MAP, pa.map_(pa.string(), pa.string()))}


def titles_of(night: Night, version: str | None) -> DataFrame:
    """The refined titles of a refiner by `item_id` and the hash `refined_from`; none for None."""
    rows = night.warehouse.read("item_texts").where((F.col("refiner_version") == version) & (F.col("verdict") == "refined") if version else F.lit(False))
    return rows.select("item_id", F.col("text_hash").alias("refined_from"), F.col("title").alias("wanted"))


def attributes_of(night: Night, version: str | None) -> DataFrame:
    """The generated attributes of a source by `item_id`, `text_hash` and `seen_hash`, a map sorted by key; none for None."""
    rows = night.warehouse.read(TABLE).where((F.col("source_version") == version) & (F.col("verdict") == "said") if version else F.lit(False))
    listed = F.map_from_entries(F.array_sort(F.collect_list(F.struct("key", "value")))).alias("wanted_attributes")
    return rows.groupBy("item_id", "text_hash", F.col("image_hash").alias("seen_hash")).agg(listed)


def apply_enrichment(night: Night, refiner: str | None, source: str | None, plan: AttributePlan | None) -> None:
    """Make refined titles and generated attributes what the encoder reads; items without any have their own texts again.

    refiner, source: their versions; None if titles are not refined, or attributes not generated, any more.
    """
    items = active_items(night, plan).withColumn("refined_from", refined_from(RefinerPlan.of(night.settings).sees_pictures))
    joined = items.join(titles_of(night, refiner), ["item_id", "refined_from"], "left").alias("i")
    found = attributes_of(night, source).alias("a")
    same = [F.col(f"i.{name}").eqNullSafe(F.col(f"a.{name}")) for name in ("item_id", "text_hash", "seen_hash")]
    joined = joined.join(found, same[0] & same[1] & same[2], "left").select("i.*", "a.wanted_attributes")
    # maps are not comparable in Spark, but both are sorted by key
    other = ~F.to_json("wanted_attributes").eqNullSafe(F.to_json(GENERATED))
    changed = joined.where(~F.col("wanted").eqNullSafe(F.col(REFINED)) | other)
    source_hash = F.coalesce("source_hash", "content_hash").alias("source_hash")
    columns = ("item_id", "title", "brand", "category", "attributes", "image_hash", "wanted", "wanted_attributes", source_hash)
    metadata, folder = night.settings.metadata, night.staging(STAGE)
    grounding = policy_of(night.settings.enrich.grounding, night.model_folder)

    def compose(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            out = []
            for row in batch.to_pylist():
                generated = None if row["wanted_attributes"] is None else dict(row["wanted_attributes"])
                row["attributes"] = dict(row["attributes"] or ()) | (generated or {})  # they are of keys without a value
                row["title"] = row["title"] if row["wanted"] is None else row["wanted"]
                text, title = encoder_texts(row, metadata)
                crop = grounding.crop(row["category"], text) if grounding and row["image_hash"] else None
                hashed = content_hash(row["image_hash"], text, title, crop)
                listed = None if generated is None else list(generated.items())
                out.append((row["item_id"], text, title, hashed, row["wanted"], listed, row["source_hash"]))
            if out:
                kinds = [TYPES.get(name, ("string", pa.string()))[1] for name in names]
                columns = zip(zip(*out, strict=True), kinds, strict=True)
                yield pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in columns], names)

    names = ("item_id", *DERIVED)
    schema = ", ".join(f"{name} {TYPES.get(name, ('string', pa.string()))[0]}" for name in names)
    changed.select(*columns).mapInArrow(compose, schema).write.mode("overwrite").parquet(folder)
    rows = night.spark.read.schema(schema).parquet(folder)
    if not rows.isEmpty():
        write_enriched(night.warehouse, rows)
