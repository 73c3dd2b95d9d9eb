"""The feature cache: outputs of the frozen towers, in the table `tower_features`. A new connector embeds a catalog from it.

The key of a picture is its hash and the vision tower's fingerprint; where a detector was asked which part of it is embedded, the hash of
picture and crop (`tgq.embedding.grounding.picture_key`). The key of an item's texts is their hash and the text tower's fingerprint. Pictures
as parts of scenes, which training composes, have a fingerprint of their own (`PartsTower`). With the default towers a picture takes about
40 kB and a text 6 to 26 kB. A read scans the whole cache, so the towers run instead if a step needs only a small part of it. Features beyond
the budget are not cached: to evict the oldest would not help, because every embedding of the catalog reads all of them.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.embedding.grounding import TABLE as GROUNDING
from tgq.embedding.grounding import crop_key, picture_key
from tgq.registry.loading import Towers
from tgq.run.night import Night

MIN_SHARE = 0.05  # of the cached pictures; if fewer are needed, the cache is not read
IMAGE = {"image_tokens": "tokens", "image_features": "pooled"}  # the engine's column: the table's column
TEXT = {"text_tokens": "tokens", "text_mask": "mask", "text_features": "pooled", "title_features": "title"}


def text_key() -> Column:
    """`source_hash` of an item's texts; null if it has no metadata text."""
    texts = F.concat_ws("\0", "metadata_text", F.coalesce("encoder_title", F.lit("")))
    return F.when(F.length("metadata_text") > 0, F.sha2(texts, 256))


def mark_cached(night: Night, items: DataFrame, towers: Towers) -> tuple[DataFrame, dict[bool, int]]:
    """Add the column `cached`: the item's picture does not have to be read, because its features are cached or it has none. With grounding it
    must be known too what a detector found in it.

    All values are false if the cache is off or not worth reading. Cost: a count of the items and, if they may need so many of the cached
    pictures that it pays, one query over them and the cache's keys.

    Returns:
        the items, and how many of them are not cached (False) and cached (True).
    """
    has_picture = F.col("image_uri").isNotNull() | F.col("image_bytes").isNotNull()
    off = items.withColumn("cached", F.lit(False))
    total = items.agg(F.count("*").alias("items"), F.count_if(has_picture).alias("with_picture")).collect()[0]
    none = off, {False: total["items"]}
    if not night.settings.features.max_gb or not total["with_picture"] or not night.warehouse.has_rows("tower_features", {"fingerprint": towers.vision}):
        return none
    least = MIN_SHARE * _of(night, towers.vision).count()
    if total["with_picture"] < least:
        return none
    pictures = _of(night, towers.vision).select(F.col("source_hash").alias("picture_key"), F.lit(True).alias("found"))
    marked = items.withColumn("picture_key", picture_key(items)).join(pictures, "picture_key", "left").withColumn("found", F.coalesce("found", F.lit(False)))
    if "known" in items.columns:
        marked = marked.withColumn("found", F.col("found") & (F.col("detector_version").isNull() | F.col("known").isNotNull()))
    marked = marked.withColumn("cached", F.col("found") | ~has_picture)
    found = F.count_distinct(F.when(F.col("found"), F.col("picture_key")))
    rows = marked.groupBy("cached").agg(F.count("*").alias("items"), found.alias("pictures")).collect()
    needed, counts = sum(row["pictures"] for row in rows), {row["cached"]: row["items"] for row in rows}
    if not needed or needed < least:
        return none
    return marked.drop("found", "picture_key"), counts


def with_cached_features(night: Night, items: DataFrame, towers: Towers) -> DataFrame:
    """Add the cached features in the engine's columns; null if they are not cached. Cost: a scan of the rows of both towers."""
    images = _of(night, towers.vision).select(F.col("source_hash").alias("picture_key"), *(F.col(o).alias(e) for e, o in IMAGE.items()))
    texts = _of(night, towers.text).select(F.col("source_hash").alias("text_hash"), *(F.col(o).alias(e) for e, o in TEXT.items()))
    keyed = items.withColumns({"picture_key": picture_key(items), "text_hash": text_key()})
    return keyed.join(images, "picture_key", "left").join(texts, "text_hash", "left").drop("picture_key", "text_hash")


def cache_features(night: Night, rows: DataFrame, towers: Towers, transaction: tuple[str, int]) -> None:
    """Append the features of pictures and texts that are not cached yet.

    Args:
        rows: the engine's output with the items' `image_hash` and texts, and with grounding `detector_version`.
        transaction: (application id, version) of the Delta commit, so that a repeated commit has no effect.
    """
    parts = []
    for key, fingerprint, columns in ((picture_key(rows), towers.vision, IMAGE), (text_key(), towers.text, TEXT)):
        part = rows.where(F.col(next(iter(columns))).isNotNull()).select(key.alias("source_hash"), *columns)
        part = part.where("source_hash IS NOT NULL").dropDuplicates(["source_hash"]).withColumnsRenamed(columns)
        part = part.withColumn("fingerprint", F.lit(fingerprint))
        parts.append(part.join(_of(night, fingerprint).select("source_hash"), "source_hash", "left_anti"))
    _append(night, parts[0].unionByName(parts[1], allowMissingColumns=True), transaction)


def cached_tokens(night: Night, fingerprint: str) -> DataFrame:
    """The cached tokens of pictures under one fingerprint: `source_hash` and `tokens`, packed."""
    return _of(night, fingerprint).select("source_hash", "tokens")


def cache_tokens(night: Night, rows: DataFrame, fingerprint: str, transaction: tuple[str, int]) -> None:
    """Append tokens of pictures that are not cached under this fingerprint.

    Args:
        rows: `source_hash`, each once, and `tokens`, packed.
        transaction: as in `cache_features`.
    """
    _append(night, rows.withColumn("fingerprint", F.lit(fingerprint)), transaction)


def cached_bytes(night: Night) -> dict[str, int]:
    """Bytes in the cache, by the tower's fingerprint."""
    return night.warehouse.sums("tower_features", "fingerprint", "bytes")  # a few towers


def free_space(night: Night) -> int:
    """Bytes left of `features.max_gb`."""
    return int(night.settings.features.max_gb * 2**30) - sum(cached_bytes(night).values())


def shrink_cache(night: Night, towers: Towers) -> int:
    """Delete features until the cache fits `features.max_gb`. Returns the bytes left.

    First go the features of other towers, then those of pictures and texts that no active item has, then a random share of the
    rest (needed only if the budget was lowered). Cost: nothing if the cache fits; otherwise it is rewritten.
    """
    budget = int(night.settings.features.max_gb * 2**30)
    table = night.warehouse.qualified("tower_features")
    spark, used = night.spark, cached_bytes(night)
    if sum(used.values()) <= budget:
        return budget - sum(used.values())
    night.progress.say(f"the feature cache has {sum(used.values()) / 2**30:.1f} GiB, more than features.max_gb={night.settings.features.max_gb:g}: deleting")
    current = f"'{towers.vision}', '{towers.text}'"  # hex digits
    spark.sql(f"DELETE FROM {table} WHERE fingerprint NOT IN ({current})")
    if sum(cached_bytes(night).values()) > budget:
        items = night.warehouse.read("catalog_items").where("is_active")
        crops = night.warehouse.read(GROUNDING).join(items, ["item_id", "content_hash"], "left_semi").select(crop_key().alias("source_hash"))
        pictures = items.select(F.col("image_hash").alias("source_hash")).unionByName(crops)
        for fingerprint, keys in ((towers.vision, pictures), (towers.text, items.select(text_key().alias("source_hash")))):
            keys.where("source_hash IS NOT NULL").distinct().createOrReplaceTempView("tgq_wanted")
            merge = f"MERGE INTO {table} t USING tgq_wanted s ON t.fingerprint = '{fingerprint}' AND t.source_hash = s.source_hash"
            spark.sql(f"{merge} WHEN NOT MATCHED BY SOURCE AND t.fingerprint = '{fingerprint}' THEN DELETE")
        spark.catalog.dropTempView("tgq_wanted")
    if (size := sum(cached_bytes(night).values())) > budget:
        limit = f"{int(budget / size * 0.98 * 2**32):08x}"  # hashes are uniform, so a share of them is a share of the bytes
        spark.sql(f"DELETE FROM {table} WHERE substr(source_hash, 1, 8) >= '{limit}'")
    spark.sql(f"VACUUM {table}")
    return max(0, free_space(night))


def _append(night: Night, rows: DataFrame, transaction: tuple[str, int]) -> None:
    """Append rows of `tower_features`. Columns that they lack are null."""
    table, name = night.warehouse, "tower_features"
    for column in ("tokens", "mask", "pooled", "title"):
        rows = rows if column in rows.columns else rows.withColumn(column, F.lit(None).cast("binary"))
    size = sum((F.coalesce(F.length(c), F.lit(0)) for c in ("tokens", "mask", "pooled", "title")), F.lit(0))
    rows = rows.withColumns({"bytes": size.cast("int"), "run_id": F.lit(night.run_id)})
    table.append(rows.select(*table.read(name).columns), name, transaction)


def _of(night: Night, fingerprint: str) -> DataFrame:
    return night.warehouse.read("tower_features").where(F.col("fingerprint") == fingerprint)
