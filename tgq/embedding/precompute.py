"""Fills the feature cache without embedding. Training reads it, and so do later runs."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.reading.location import folder_of
from tgq.embedding.executor.worker import EmbedWorker
from tgq.embedding.feature_cache import cache_features, cached_bytes, free_space, mark_cached, shrink_cache, with_cached_features
from tgq.embedding.meter import Meter
from tgq.embedding.plan import PARTS, Grouping, write_plan
from tgq.embedding.slices import encode_slices, staged
from tgq.errors import WarehouseError
from tgq.registry.loading import towers_of
from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder


def run_towers(night: Night, model_folder: str, items: DataFrame) -> int:
    """Run the towers of an encoder folder over the `catalog_items` rows whose features are not cached, and cache them.

    Cost: the towers, once per picture and text, on the executors. An unreadable picture is left out; the embed step quarantines
    its item.

    Returns the number of items that the towers ran over.

    Raises:
        WarehouseError: the cache is full.
    """
    towers = towers_of(model_folder)
    known = with_cached_features(night, items.select("item_id", "image_hash", "metadata_text", "encoder_title"), towers)
    missing = (F.col("image_hash").isNotNull() & F.col("image_tokens").isNull()) | ((F.length("metadata_text") > 0) & F.col("text_tokens").isNull())
    waiting = items.join(known.where(missing).select("item_id"), "item_id", "left_semi").withColumn("replaces", F.lit(False))
    plan = write_plan(night, *mark_cached(night, waiting, towers))
    if not plan.slices:
        return 0
    total, fingerprints = sum(part.items for part in plan.slices), set(cached_bytes(night))
    if fingerprints and towers.vision not in fingerprints:
        night.progress.say(f"the feature cache of {night.warehouse.root} is of other towers; this encoder's towers run over {total} items")
    space, meter = shrink_cache(night, towers), Meter(night)
    worker = replace(EmbedWorker.of(night.settings, model_folder, folder_of(night.spark, night.settings.catalog)), output_tower_features=True)
    grouping = Grouping(PARTS, 1, night.spark.sparkContext.defaultParallelism)
    night.progress.start("towers", total)
    for part in plan.slices:
        if space <= 0:
            raise WarehouseError(f"the feature cache is full at features.max_gb={night.settings.features.max_gb:g}", "raise features.max_gb")
        encode_slices(night, plan, [part], worker, towers, meter, grouping)
        cache_features(night, staged(night, plan, [part]), towers, (f"tgq-towers-{plan.attempt}", part.number))
        space = free_space(night)
    night.progress.finish()
    remove_folder(night.staging("embed"))
    return total
