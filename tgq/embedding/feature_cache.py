"""The feature cache: what the frozen towers said, so that a new connector embeds a catalog without asking them again.

A picture is kept under its hash and the vision tower's fingerprint, an item's texts likewise: some 40 kB a picture and 6 to 26 kB a text
with the default towers. Reading is a join, so it costs a scan of what is kept; a night that wants but little of it is faster
with the towers, and asks them. Nobody reads a catalog's cache in a loop that forgets: what does not fit the budget is simply not kept, for
dropping the oldest would drop, night after night, what is wanted next.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.registry.loading import Towers
from tgq.run.night import Night

WORTHWHILE = 0.05  # share of the kept pictures that must be wanted before they are read
IMAGE = {"image_tokens": "tokens", "image_features": "pooled"}  # the engine's column: ours
TEXT = {"text_tokens": "tokens", "text_mask": "mask", "text_features": "pooled", "title_features": "title"}


def text_key() -> Column:
    """`source_hash` of an item's texts; null where it has no metadata text."""
    texts = F.concat_ws("\0", "metadata_text", F.coalesce("encoder_title", F.lit("")))
    return F.when(F.length("metadata_text") > 0, F.sha2(texts, 256))


def mark_kept(night: Night, items: DataFrame, towers: Towers) -> DataFrame:
    """Adds `light`: this item needs no vision tower, for its picture is kept or it has none.

    Cost: the keys of what is kept, never its tokens.
    """
    if not night.settings.features.max_gb:
        return items.withColumn("light", F.lit(False))
    kept = _of(night, towers.vision).select(F.col("source_hash").alias("image_hash"), F.lit(True).alias("kept"))
    wanted = items.select("image_hash").distinct().join(kept, "image_hash", "left_semi").count()
    if wanted < WORTHWHILE * kept.count() or not wanted:
        return items.withColumn("light", F.lit(False))
    pictured = F.col("image_uri").isNotNull() | F.col("image_bytes").isNotNull()
    return items.join(kept, "image_hash", "left").withColumn("light", F.coalesce("kept", F.lit(False)) | ~pictured).drop("kept")


def with_kept(night: Night, items: DataFrame, towers: Towers) -> DataFrame:
    """Adds the engine's columns of kept features, null where nothing is kept. Cost: one scan of both towers' rows."""
    images = _of(night, towers.vision).select(F.col("source_hash").alias("image_hash"), *(F.col(o).alias(e) for e, o in IMAGE.items()))
    texts = _of(night, towers.text).select(F.col("source_hash").alias("text_hash"), *(F.col(o).alias(e) for e, o in TEXT.items()))
    return items.join(images, "image_hash", "left").withColumn("text_hash", text_key()).join(texts, "text_hash", "left").drop("text_hash")


def keep(night: Night, rows: DataFrame, towers: Towers, transaction: tuple[str, int]) -> None:
    """Append what the engine gave out with its rows (and the items' own `image_hash` and texts), each picture and text once."""
    table, name = night.warehouse, "tower_features"
    parts = []
    for key, fingerprint, columns in ((F.col("image_hash"), towers.vision, IMAGE), (text_key(), towers.text, TEXT)):
        part = rows.where(F.col(next(iter(columns))).isNotNull()).select(key.alias("source_hash"), *columns)
        part = part.where("source_hash IS NOT NULL").dropDuplicates(["source_hash"]).withColumnsRenamed(columns)
        part = part.withColumn("fingerprint", F.lit(fingerprint))
        parts.append(part.join(_of(night, fingerprint).select("source_hash"), "source_hash", "left_anti"))
    new = parts[0].unionByName(parts[1], allowMissingColumns=True)
    size = sum((F.coalesce(F.length(c), F.lit(0)) for c in ("tokens", "mask", "pooled", "title")), F.lit(0))
    new = new.withColumns({"bytes": size.cast("int"), "run_id": F.lit(night.run_id)})
    table.append(new.select(*table.read(name).columns), name, transaction)


def kept_bytes(night: Night) -> dict[str, int]:
    """Bytes that are kept, by tower."""
    sizes = night.warehouse.read("tower_features").groupBy("fingerprint").agg(F.sum(F.col("bytes").cast("long")).alias("bytes"))
    return {row["fingerprint"]: row["bytes"] for row in sizes.collect()}  # a few towers


def room_left(night: Night) -> int:
    """Bytes that may still be kept."""
    return int(night.settings.features.max_gb * 2**30) - sum(kept_bytes(night).values())


def make_room(night: Night, towers: Towers) -> int:
    """Bytes that may still be kept under `features.max_gb`.

    Over the budget, the towers that no longer run make way first, then pictures and texts that no active item has, then (for
    the budget itself was lowered) an even share of the rest. Cost: nothing within the budget; beyond, it rewrites what is kept.
    """
    budget = int(night.settings.features.max_gb * 2**30)
    table = night.warehouse.qualified("tower_features")
    spark, used = night.spark, kept_bytes(night)
    if sum(used.values()) <= budget:
        return budget - sum(used.values())
    night.progress.say(f"kept features take {sum(used.values()) / 2**30:.1f} GB of {night.settings.features.max_gb:g}: making room")
    mine = f"'{towers.vision}', '{towers.text}'"  # hex digits
    spark.sql(f"DELETE FROM {table} WHERE fingerprint NOT IN ({mine})")
    if sum(kept_bytes(night).values()) > budget:
        items = night.warehouse.read("catalog_items").where("is_active")
        for fingerprint, key in ((towers.vision, F.col("image_hash")), (towers.text, text_key())):
            items.select(key.alias("source_hash")).where("source_hash IS NOT NULL").distinct().createOrReplaceTempView("tgq_wanted")
            merge = f"MERGE INTO {table} t USING tgq_wanted s ON t.fingerprint = '{fingerprint}' AND t.source_hash = s.source_hash"
            spark.sql(f"{merge} WHEN NOT MATCHED BY SOURCE AND t.fingerprint = '{fingerprint}' THEN DELETE")
        spark.catalog.dropTempView("tgq_wanted")
    if (size := sum(kept_bytes(night).values())) > budget:
        edge = f"{int(budget / size * 0.98 * 2**32):08x}"  # hashes are even, so a share of them is a share of the bytes
        spark.sql(f"DELETE FROM {table} WHERE substr(source_hash, 1, 8) >= '{edge}'")
    spark.sql(f"VACUUM {table}")
    return max(0, room_left(night))


def _of(night: Night, fingerprint: str) -> DataFrame:
    return night.warehouse.read("tower_features").where(F.col("fingerprint") == fingerprint)
