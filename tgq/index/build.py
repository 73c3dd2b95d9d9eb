"""FAISS shards per category: built on the executors, or carried over if nothing changed.

A category's shards are rebuilt only if its members, the model or the index settings changed. The key of a shard is a hash of
all that it is built from. If the published manifest has a shard with the same key, its file is used again. If nothing changed at all,
the whole list is taken over (`carrying`).

Cost: one pass over the ids of the catalog, to find what changed; then the vectors of the changed shards. A task builds one shard at
a time, so a worker needs memory for one shard (`index.max_shard_items` vectors, twice while it is built). The driver gets a row per shard.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.index import carrying
from tgq.index.generations import published_shards
from tgq.index.pool import MAIN, Pool, list_matrix, pool_members
from tgq.index.staging import staged_shards
from tgq.metrics.shard_recall import draw_sample, verify_shard
from tgq.retrieval.factory import choose_factory
from tgq.retrieval.shards import ShardFile, assign_shards, build_shard, members_digest, n_shards, write_shard
from tgq.run.job_progress import job_progress
from tgq.run.night import Night, StepResult
from tgq.settings.sections import IndexSettings
from tgq.storage import artifacts

FORMAT = 1  # to be raised when the same members and settings give another file
SEED = 0
MEMBERS = "category string, shard int, of int, n_items long, members string"
BUILT = "record string, seconds double"


@dataclass(frozen=True)
class Wanted:
    """A shard of tonight's generation."""

    category: str
    shard: int
    of: int  # shards of this category
    n_items: int
    factory: str
    key: str


def build_index(night: Night) -> StepResult:
    """Build the shards that changed, verify them, and stage the list of all shards. Nothing is published.

    Raises:
        ConfigError: no index type fits the memory budget.
        WarehouseError: a written file differs from the shard that was built.
    """
    clock, settings = time.perf_counter(), night.settings.index
    pool = carrying.find_pool(night)
    published, key = published_shards(night.warehouse), carrying.index_key(night, pool, FORMAT)
    planned = clock
    shards = carrying.carried_shards(night, key)
    if shards is None:
        wanted = wanted_shards(night, pool)
        candidates = [*published, *(staged_shards(night) or ())]  # staged: this step ran before in this night
        known = {file.members_digest: file for file in candidates if carrying.is_there(night, file)}
        planned = time.perf_counter()
        missing = [shard for shard in wanted if shard.key not in known]
        known |= {file.members_digest: file for file in (_build(night, pool, missing, settings) if missing else ())}
        shards = [known[shard.key] for shard in wanted]
    carrying.keep(night, key, pool, shards)
    artifacts.write_json(
        night.staging("index", "manifest.json"),
        {"model_version": pool.model_version, "versions": pool.versions, "pool": pool.digest, "shards": [asdict(file) for file in shards]},
    )
    before = {file.members_digest for file in published}
    built = [file for file in shards if file.members_digest not in before]
    places = {(file.category, file.shard) for file in shards}
    recalls = [file.recall_at_k for file in shards if file.recall_at_k is not None]
    return StepResult(
        rows_in=pool.rows, rows_out=sum(file.n_items for file in shards), versions_read=pool.versions,
        figures={
            "shards": len(shards), "built": len(built), "carried": len(shards) - len(built),
            "removed": len({(file.category, file.shard) for file in published} - places),
            "bytes": sum(file.bytes for file in shards), "bytes_built": sum(file.bytes for file in built),
            "recall_at_k_min": min(recalls, default=None), "recall_at_k_mean": float(np.mean(recalls)) if recalls else None,
            "plan_seconds": round(planned - clock, 2), "build_seconds": round(time.perf_counter() - planned, 2),
        },
    )  # fmt: skip


def wanted_shards(night: Night, pool: Pool) -> list[Wanted]:
    """The shards of tonight's pool with their keys, sorted by category and number."""
    settings, most = night.settings.index, night.settings.index.max_shard_items

    def summarise(table: pa.Table) -> pa.Table:
        ids, contents = (np.array(table[name].to_pylist(), object) for name in ("item_id", "content"))
        count = n_shards(len(ids), most)
        numbers = assign_shards(ids, count)
        rows = [
            {"category": table["category"][0].as_py(), "shard": int(number), "of": count, "n_items": int((numbers == number).sum()),
             "members": members_digest(ids[numbers == number], contents[numbers == number])}
            for number in np.unique(numbers)
        ]  # fmt: skip
        types = {"category": pa.string(), "shard": pa.int32(), "of": pa.int32(), "n_items": pa.int64(), "members": pa.string()}
        return pa.Table.from_pylist(rows, pa.schema(list(types.items())))

    # titles are part of the shard's sidecar file, so a new title changes the key
    content = F.concat_ws(" ", "content_hash", F.sha2(F.to_json(F.struct("title", "brand")), 256))
    members = pool_members(night, pool.versions, pool.model_version).select("category", "item_id", content.alias("content"))
    rows = sorted(members.groupBy("category").applyInArrow(summarise, MEMBERS).collect(), key=lambda row: (row["category"], row["shard"]))
    total, width = sum(row["n_items"] for row in rows), pool.widths.get(MAIN, 0)
    wanted = []
    for row in rows:
        budget = int(settings.memory_budget_gb * 2**30 * row["n_items"] / total)  # all shards together fit the budget
        factory = settings.factory or choose_factory(row["n_items"], width, budget)
        parts = [FORMAT, pool.model_version, row["category"], row["shard"], row["members"], factory, settings.recall_target, settings.recall_k]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        wanted.append(Wanted(row["category"], row["shard"], row["of"], row["n_items"], factory, key))
    return wanted


def _build(night: Night, pool: Pool, missing: list[Wanted], settings: IndexSettings) -> list[ShardFile]:
    """Build, write and verify shards on the executors."""
    root, target, k = night.warehouse.root, settings.recall_target, settings.recall_k
    plan = {(shard.category, shard.shard): shard for shard in missing}
    members = with_shard(night, pool, missing)
    tasks = min(len(missing), 4 * night.spark.sparkContext.defaultParallelism)
    with job_progress(night, "index", sum(shard.n_items for shard in missing)) as done:

        def build(table: pa.Table) -> pa.Table:
            clock = time.perf_counter()
            ids = np.array(table["item_id"].to_pylist(), object)
            order = np.argsort(ids, kind="stable")
            ids, table = ids[order], table.take(pa.array(order))
            vectors = list_matrix(table[MAIN])
            shard = plan[table["category"][0].as_py(), table["shard"][0].as_py()]
            made, factory = build_shard(vectors, ids, shard.factory, SEED)
            file = write_shard(root, made, shard.category, shard.shard, factory, shard.key, table.select(["title", "brand"]))
            file = verify_shard(root, file, ids, draw_sample(vectors, ids, k, seed=SEED), target)
            done.add(len(ids))
            record = json.dumps(asdict(file))
            return pa.table({"record": [record], "seconds": [time.perf_counter() - clock]})

        rows = members.repartition(tasks, "category", "shard").groupBy("category", "shard").applyInArrow(build, BUILT).collect()
    return [ShardFile(**json.loads(row["record"])) for row in rows]


def with_shard(night: Night, pool: Pool, wanted: Sequence[Wanted]) -> DataFrame:
    """The members of some shards, with their vectors and the `shard` that each belongs to."""
    members = pool_members(night, pool.versions, pool.model_version).select("category", "item_id", "title", "brand", MAIN)
    plan = night.spark.createDataFrame([(w.category, w.shard, w.of) for w in wanted], "category string, shard int, of int")
    if all(w.of == 1 for w in wanted):
        return members.join(F.broadcast(plan), "category")

    @F.arrow_udf("int")  # type: ignore[call-overload]  # pyspark declares no decorator with the return type alone
    def number(item_id: pa.Array, of: pa.Array) -> pa.Array:
        counts = of.to_numpy()
        numbers = np.zeros(len(counts), np.int32)
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            numbers[rows] = assign_shards(item_id.take(pa.array(rows)).to_pylist(), int(count))
        return pa.array(numbers)

    split = members.join(F.broadcast(plan.select("category", "of").distinct()), "category")
    return split.withColumn("shard", number("item_id", "of")).join(F.broadcast(plan.drop("of")), ["category", "shard"], "left_semi")
