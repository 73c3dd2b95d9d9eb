"""The embed step: embeds every active item whose (content_hash, model_version) has no embedding, slice by slice.

A batch of slices is encoded by one Spark job (fetch, decode, preprocess, encode), staged as Parquet and committed to Delta while the
next batch is encoded. A batch is about a minute of work, so that commits take a small share of the cores. Committed items are no longer
pending, so a killed run continues where it stopped and ends with the same tables. The cost grows with the number of pending items. The
plan reads keys and hashes of the whole catalog, but no vectors or pictures.
"""

from __future__ import annotations

import time
from dataclasses import replace

from tgq.catalog.reading.location import folder_of
from tgq.duplicates.find import TABLE as CLUSTERS
from tgq.duplicates.find import find_duplicates
from tgq.duplicates.hashes import TABLE as HASHES
from tgq.duplicates.hashes import with_wanted
from tgq.embedding.accounting import account, carry_quarantine, quarantined_by
from tgq.embedding.committer import Committer
from tgq.embedding.executor.daemon import start_workers
from tgq.embedding.executor.worker import EmbedWorker
from tgq.embedding.feature_cache import mark_cached, shrink_cache
from tgq.embedding.grounding import grounding_figures, with_grounding
from tgq.embedding.meter import Meter
from tgq.embedding.plan import Grouping, next_batch, pending, write_plan
from tgq.embedding.slices import encode_slices
from tgq.registry.grounding import policy_of
from tgq.registry.loading import need_query_tower, towers_of, versions_of
from tgq.run.night import Night, StepResult
from tgq.storage.artifacts import remove_folder

BATCH_S, MOST_BATCH_S = 60.0, 240.0  # seconds of encoding per commit
COMMIT_SHARE = 0.03  # a batch grows until its commit takes no larger share of it


def need_model(night: Night) -> tuple[str, str]:
    """(model version, tower version) of the run's encoder. Called before the first step, so that a broken model stops the run early.

    Raises:
        ModelError: the encoder folder or its weights are missing, or the weights do not fit the configuration; or so with its query tower, or
            that is for another model's item embeddings; or the detector of `enrich.grounding` is missing.
        ConfigError: the phrases of `enrich.grounding` cannot be used.
        DeviceError: the GPU that the settings demand is absent. On a cluster the first task raises it instead.
    """
    device = night.settings.encoder.device
    if device not in ("auto", "cpu") and (night.spark.sparkContext.master or "").startswith("local"):
        from tgq.inference.device import choose_device

        choose_device(device)
    need_query_tower(night.model_folder)
    policy_of(night.settings.enrich.grounding, night.model_folder)
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

    waiting, refused = pending(night, model_version, tower_version), quarantined_by(night, "embed")
    if refused is not None:
        waiting = waiting.join(refused, "item_id", "left_anti")
    grounding = policy_of(settings.enrich.grounding, night.model_folder)
    if grounding:
        waiting = with_grounding(night, waiting, grounding)
    towers = towers_of(night.model_folder)
    marked, counts = mark_cached(night, waiting, towers)
    if settings.duplicates.enabled:
        marked = with_wanted(night, marked)
    if sum(counts.values()):
        start_workers(night.spark)  # their imports take as long as the plan; a whole night has started them after ingest
    plan = write_plan(night, marked, counts)
    clock, meter = time.perf_counter(), Meter(night)
    night.progress.start("embed", sum(s.items for s in plan.slices))
    worker = replace(EmbedWorker.of(settings, night.model_folder, folder_of(night.spark, settings.catalog)), grounding=grounding)
    left, items_per_s = plan.slices, None
    with Committer(night, plan, towers, shrink_cache(night, towers) if left else 0) as committer:
        while left:
            seconds = 0 if settings.embed.slice_items else min(max(BATCH_S, committer.seconds / COMMIT_SHARE), MOST_BATCH_S)
            batch, began = next_batch(left, items_per_s, seconds), time.perf_counter()
            grouping = Grouping.of(items_per_s, night.spark.sparkContext.defaultParallelism, settings.embed.task_items)
            encoded = encode_slices(night, plan, batch, replace(worker, output_tower_features=committer.space > 0), towers, meter, grouping)
            items_per_s = sum(part.items for part in batch) / (time.perf_counter() - began)
            committer.put(encoded)
            left = left[len(batch):]
    night.progress.finish()
    remove_folder(night.staging("embed"))
    done = account(night, plan, model_version, read, meter, time.perf_counter() - clock)
    if grounding:
        done.figures["grounding"] = grounding_figures(night, model_version, grounding)
        done.versions_written = {**done.versions_written, **warehouse.versions("item_grounding")}
    if settings.duplicates.enabled:
        done.figures["duplicates"] = find_duplicates(night)
        done.versions_written = {**done.versions_written, **warehouse.versions(HASHES, CLUSTERS)}
    return done
