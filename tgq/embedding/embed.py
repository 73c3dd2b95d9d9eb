"""The embed step: embeds every active item whose (content_hash, model_version) has no embedding, slice by slice.

Each slice is encoded by one worker function (fetch, decode, preprocess, encode), staged as Parquet and committed to Delta.
Committed items are no longer pending, so a killed run continues where it stopped and ends with the same tables. The cost grows
with the number of pending items. The plan reads keys and hashes of the whole catalog, but no vectors or pictures.
"""

from __future__ import annotations

import time
from dataclasses import replace

from pyspark.sql import functions as F

from tgq.catalog.location import folder_of
from tgq.embedding.accounting import account, carry_quarantine
from tgq.embedding.feature_cache import cache_features, free_space, mark_cached, shrink_cache
from tgq.embedding.meter import Meter
from tgq.embedding.plan import pending, write_plan
from tgq.embedding.slices import commit_slice, encode_slice, staged
from tgq.embedding.worker import EmbedWorker
from tgq.registry.loading import towers_of
from tgq.run.night import Night, StepResult
from tgq.storage.artifacts import remove_folder


def need_model(night: Night) -> tuple[str, str]:
    """(model version, tower version) of the run's encoder. Called before the first step, so that a missing model stops the run early.

    Raises:
        ModelError: the encoder folder or its weights are missing, or the weights do not fit the configuration.
        DeviceError: the GPU that the settings demand is absent. On a cluster the first task raises it instead.
    """
    from tgq.inference.device import choose_device
    from tgq.registry.loading import versions_of

    if (night.spark.sparkContext.master or "").startswith("local"):
        choose_device(night.settings.encoder.device)
    return versions_of(night.model_folder)


def embed(night: Night) -> StepResult:
    """Embed new and changed items, and account for every active item.

    Raises:
        AccountingError: an active item is neither embedded, unchanged nor quarantined.
        ModelError, DeviceError: see `need_model`.
    """
    settings, warehouse = night.settings, night.warehouse
    model_version, tower_version = need_model(night)
    read = warehouse.versions("catalog_items", "item_embeddings")
    carry_quarantine(night, model_version)

    waiting = pending(night, model_version, tower_version).join(
        warehouse.read("quarantine").where((F.col("run_id") == night.run_id) & (F.col("stage") == "embed")), "item_id", "left_anti"
    )
    towers = towers_of(night.model_folder)
    plan = write_plan(night, mark_cached(night, waiting, towers))
    clock, meter = time.perf_counter(), Meter(night)
    night.progress.start("embed", sum(s.items for s in plan.slices))
    worker = EmbedWorker.of(settings, night.model_folder, folder_of(night.spark, settings.catalog))
    space, cached = shrink_cache(night, towers) if plan.slices else 0, 0
    for part in plan.slices:
        encode_slice(night, plan, part, replace(worker, output_tower_features=space > 0), towers, meter)
        if space > 0 and meter.counters.new_features.value > cached:
            cached = meter.counters.new_features.value
            cache_features(night, staged(night, plan, part), towers, (f"tgq-features-{plan.attempt}", part.number))
            space = free_space(night)
        commit_slice(night, plan, part, model_version, tower_version)
    night.progress.finish()
    remove_folder(night.staging("embed"))
    return account(night, plan, model_version, read, meter, time.perf_counter() - clock)
