"""The embed step: items whose (content_hash, model_version) has no embedding yet get one, slice by slice.

A slice is planned by bytes, encoded by one fused worker function per task (fetch, decode, preprocess, encode), staged as
Parquet and then committed to Delta. What is committed is never planned again, so a killed run goes on where it stopped and
ends with the same tables. Cost grows with the number of pending items; the plan reads keys and hashes of the whole catalog,
never its vectors or pictures.
"""

from __future__ import annotations

import time
from dataclasses import replace

from pyspark.sql import functions as F

from tgq.catalog.location import folder_of
from tgq.embedding.accounting import account, carry_quarantine
from tgq.embedding.feature_cache import keep, make_room, mark_kept, room_left
from tgq.embedding.meter import Meter
from tgq.embedding.plan import pending, write_plan
from tgq.embedding.slices import commit_slice, encode_slice, staged
from tgq.embedding.worker import EmbedWorker
from tgq.registry.loading import towers_of
from tgq.run.night import Night, StepResult
from tgq.storage.artifacts import remove_folder


def need_model(night: Night) -> tuple[str, str]:
    """(model version, tower version) of the night's encoder; a whole night asks before it begins.

    Raises:
        ModelError: no encoder folder, no weights, or weights of another configuration.
        DeviceError: a GPU was asked for and is absent; on a cluster the first task says so.
    """
    from tgq.inference.device import choose_device
    from tgq.registry.loading import versions_of

    if (night.spark.sparkContext.master or "").startswith("local"):
        choose_device(night.settings.encoder.device)
    return versions_of(night.model_folder)


def embed(night: Night) -> StepResult:
    """Embed what is new or changed, and account for every active item.

    Raises:
        AccountingError: an active item is neither embedded, unchanged nor quarantined.
        ModelError, DeviceError: before any task starts.
    """
    settings, warehouse = night.settings, night.warehouse
    model_version, tower_version = need_model(night)
    read = warehouse.versions("catalog_items", "item_embeddings")
    carry_quarantine(night, model_version)

    waiting = pending(night, model_version, tower_version).join(
        warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == "embed")), "item_id", "left_anti"
    )
    towers = towers_of(night.model_folder)
    plan = write_plan(night, mark_kept(night, waiting, towers))
    clock, measured = time.perf_counter(), Meter(night)
    night.progress.start("embed", sum(s.items for s in plan.slices))
    worker = EmbedWorker.of(settings, night.model_folder, folder_of(night.spark, settings.catalog))
    room, told = make_room(night, towers) if plan.slices else 0, 0
    for part in plan.slices:
        encode_slice(night, plan, part, replace(worker, keep=room > 0), towers, measured)
        if room > 0 and measured.counters.fresh.value > told:
            told = measured.counters.fresh.value
            keep(night, staged(night, plan, part), towers, (f"tgq-features-{plan.attempt}", part.number))
            room = room_left(night)
        commit_slice(night, plan, part, model_version, tower_version)
    night.progress.finish()
    remove_folder(night.staging("embed"))
    return account(night, plan, model_version, read, measured, time.perf_counter() - clock)
