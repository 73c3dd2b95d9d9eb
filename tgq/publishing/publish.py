"""Publishing: if the gate passed the night, neighbours, shards and the current view switch to tonight's generation.

The manifest is replaced last. Until then `current_embeddings`, `tgq search` and the comparisons of the next night use the previous
generation. If the step is killed and run again, each part finds its own work done.
"""

from __future__ import annotations

from tgq.errors import UsageError
from tgq.index import generations, neighbors, staging
from tgq.publishing.verdict import read_verdict, refusal
from tgq.publishing.views import define_views
from tgq.retrieval import manifest
from tgq.run.night import Night, StepResult
from tgq.storage.warehouse import Warehouse


def publish(night: Night) -> StepResult:
    """Publish the staged results of this run.

    Raises:
        GateError: the gate refused, and nothing was touched.
        LockedError: this process has lost its lease of the warehouse.
        UsageError: a step of this run is missing, or was run again on another pool than the gate judged.
    """
    verdict = read_verdict(night)
    if refused := refusal(verdict):
        raise refused
    shards = staging.staged_index(night)
    if len({verdict["pool"], shards["pool"], neighbors.staged_neighbors(night)["pool"]}) > 1:
        found = f"shards, neighbours and verdict of run {night.run_id} are of different pools"
        raise UsageError(found, "run index, neighbors and evaluate of this run again, with nothing in between")
    warehouse = night.warehouse
    night.lock.need()
    neighbors.publish_neighbors(night)
    tables = {name: shards["versions"][name] for name in ("catalog_items", "item_embeddings")}  # the versions that the gate judged
    versions = tables | warehouse.versions("item_neighbors")
    published = generations.publish_index(night, versions)
    if warehouse.in_metastore:  # the views of a folder are of the session that reads them
        define_views(night.spark, warehouse)
    return StepResult(
        versions_read=versions,
        versions_written=warehouse.versions("index_shards", "item_neighbors"),
        figures={
            "generation": published.generation, "shards": len(published.shards),
            "manifest": warehouse.path(manifest.manifest_path(published.generation)),
        },
    )


def rollback(warehouse: Warehouse, to: str | None = None) -> str:
    """Publish an earlier generation again: shards, neighbours and the current view together. Returns its name.

    Raises:
        WarehouseError: there is no such generation, or its files are gone.
    """
    generation = generations.rollback(warehouse, to).generation
    if warehouse.in_metastore:
        define_views(warehouse.spark, warehouse)
    return generation
