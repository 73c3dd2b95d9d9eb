"""The towers' step: have what they say of items kept, without embedding them. Training reads it, a later night too."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.location import folder_of
from tgq.embedding.feature_cache import keep, kept_bytes, make_room, mark_kept, room_left, with_kept
from tgq.embedding.meter import Meter
from tgq.embedding.plan import write_plan
from tgq.embedding.slices import encode_slice, staged
from tgq.embedding.worker import EmbedWorker
from tgq.errors import WarehouseError
from tgq.registry.loading import towers_of
from tgq.run.night import Night
from tgq.storage.artifacts import remove_folder


def run_towers(night: Night, model_folder: str, items: DataFrame) -> int:
    """Run the towers of an encoder folder over those `catalog_items` rows of which they have not spoken; how many that were.

    Cost: the towers, once per picture and text, on the executors. A picture that cannot be read is left out; the night
    quarantines it with its reason.

    Raises:
        WarehouseError: `features.max_gb` is full.
    """
    towers = towers_of(model_folder)
    known = with_kept(night, items.select("item_id", "image_hash", "metadata_text", "encoder_title"), towers)
    silent = (F.col("image_hash").isNotNull() & F.col("image_tokens").isNull()) | ((F.length("metadata_text") > 0) & F.col("text_tokens").isNull())
    waiting = items.join(known.where(silent).select("item_id"), "item_id", "left_semi").withColumn("replaces", F.lit(False))
    plan = write_plan(night, mark_kept(night, waiting, towers))
    if not plan.slices:
        return 0
    total, kept = sum(part.items for part in plan.slices), set(kept_bytes(night))
    if kept and towers.vision not in kept:
        night.progress.say(f"{night.warehouse.root} keeps what other towers saw, nothing of this encoder's: its own run over {total} items now")
    room, measured = make_room(night, towers), Meter(night)
    worker = replace(EmbedWorker.of(night.settings, model_folder, folder_of(night.spark, night.settings.catalog)), keep=True)
    night.progress.start("towers", total)
    for part in plan.slices:
        if room <= 0:
            raise WarehouseError(f"the feature cache is full at features.max_gb={night.settings.features.max_gb:g}", "raise it")
        encode_slice(night, plan, part, worker, towers, measured)
        keep(night, staged(night, plan, part), towers, (f"tgq-towers-{plan.attempt}", part.number))
        room = room_left(night)
    night.progress.finish()
    remove_folder(night.staging("embed"))
    return total
