"""The item-to-item product: the exact top K of every item over the whole pool.

A task takes a range of query rows and streams every block of the pool past them, so a task holds its queries, one block and
the K best; the driver holds the blocks' names. The work grows with the square of the pool: 2 * N * N * D flops, about 9 TFLOP
for 134,000 items of 256 numbers, spread evenly over the tasks. A pool that is the published one is not searched again.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tgq.embedding.executor.daemon import preloaded
from tgq.errors import UsageError
from tgq.index.carrying import find_pool
from tgq.index.pool import IMAGE_CODE, MAIN, Pool, excluded_code, gather_items, read_block, read_blocks, write_pool
from tgq.retrieval.exact import Exclude, search_blocks
from tgq.retrieval.product import MUCH, operations
from tgq.run.job_progress import job_progress
from tgq.run.night import Night, StepResult
from tgq.storage import artifacts
from tgq.storage.warehouse import Warehouse

SCHEMA = "item_id string, model_version string, rank int, neighbor_id string, score float"
LEAST_ROWS = 256  # fewest queries of a task
FORMAT = 2  # to be raised when the same pool and options give other rows


def build_neighbors(night: Night) -> StepResult:
    """Search the pool and stage the neighbours as Parquet, unless the table already holds the result of the same search."""
    clock = time.perf_counter()
    pool, options = find_pool(night), night.settings.neighbors
    key = search_key(pool, options.k, excluded_code(options))
    staged = _staged(night)
    if staged is None or staged["key"] != key:
        carried = table_key(night.warehouse) == key
        if not carried:
            _search(night, write_pool(night))
        staged = {"key": key, "carried": carried, "model_version": pool.model_version, "pool": pool.digest}
        artifacts.write_json(night.staging("neighbors.json"), staged)
    rows = night.warehouse.read("item_neighbors") if staged["carried"] else night.spark.read.parquet(night.staging("neighbors"))
    return StepResult(
        rows_in=pool.rows, rows_out=rows.count(), versions_read=pool.versions,
        figures={"carried": staged["carried"], "k": options.k, "pool_size": pool.rows, "model_version": pool.model_version,
                 "search_seconds": round(time.perf_counter() - clock, 2)},
    )  # fmt: skip


def publish_neighbors(night: Night) -> None:
    """Replace all rows of `item_neighbors` by the staged ones, in one commit whose metadata holds the key of the search.

    Nothing is written if the table already holds the result of this search.
    """
    staged = staged_neighbors(night)
    if table_key(night.warehouse) == staged["key"]:
        return
    if staged["carried"]:  # another run replaced the table since
        _search(night, write_pool(night))
    frame = night.spark.read.parquet(night.staging("neighbors"))
    night.warehouse.overwrite(frame, "item_neighbors", staged["key"])


def staged_neighbors(night: Night) -> dict:
    """What the neighbors step staged, and the digest of the pool that it searched.

    Raises:
        UsageError: nothing is staged.
    """
    staged = _staged(night)
    if staged is None:
        raise UsageError(f"run {night.run_id} has no staged neighbours", "run the neighbors step of this run first")
    return staged


def search_key(pool: Pool, k: int, code: str | None) -> str:
    """Key of a search, 16 hex digits: a hash of all that decides the neighbours."""
    parts = [FORMAT, pool.model_version, pool.digest, k, code]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def table_key(warehouse: Warehouse) -> str | None:
    """Key of the search whose result `item_neighbors` holds."""
    return warehouse.note_of("item_neighbors")


def _staged(night: Night) -> dict | None:
    path = night.staging("neighbors.json")
    return artifacts.read_json(path) if artifacts.exists(path) else None


def query_ranges(pool: Pool, parallelism: int) -> list[tuple[int, int, int]]:
    """(block, first row, last row + 1), about three for each core, none larger than a block."""
    size = max(LEAST_ROWS, math.ceil(pool.rows / (3 * parallelism)))
    ranges = []
    for number, block in enumerate(pool.blocks):
        parts = math.ceil(block.rows / size)
        bounds = [block.rows * i // parts for i in range(parts + 1)]
        ranges += [(number, *pair) for pair in zip(bounds, bounds[1:], strict=False)]
    return ranges


def _search(night: Night, pool: Pool) -> None:
    options = night.settings.neighbors
    code = excluded_code(options)
    ranges = query_ranges(pool, night.spark.sparkContext.defaultParallelism)
    tasks = night.spark.range(0, len(ranges), 1, max(1, len(ranges)))
    with job_progress(night, "neighbors", pool.rows) as done:

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch["id"].to_pylist():
                    block, first, last = ranges[number]
                    yield from neighbor_rows(pool, block, slice(first, last), options.k, code)
                    done.add(last - first)

        with preloaded(night.spark.sparkContext, operations(pool.rows, pool.rows, pool.widths.get(MAIN, 0)) >= MUCH):
            found = tasks.mapInArrow(run, SCHEMA)
        found.write.mode("overwrite").parquet(night.staging("neighbors"))


def neighbor_rows(pool: Pool, number: int, rows: slice, k: int, code: str | None) -> list[pa.RecordBatch]:
    """The neighbours of some rows of one block, as rows of `item_neighbors`. Items of the same `code` (`excluded_code`) are none."""
    own = read_block(pool, pool.blocks[number], code=code or IMAGE_CODE)
    assert own.images is not None  # a pool block has them
    exclude = Exclude(own.positions[rows], own.images[rows] if code else None)
    scores, found = search_blocks(own.vectors[rows], read_blocks(pool, code=code or IMAGE_CODE), k, exclude)
    query, rank = np.nonzero(found >= 0)
    found_positions, which = np.unique(found[query, rank], return_inverse=True)
    names = gather_items(pool, ("item_id",), found_positions)["item_id"]
    own_names = gather_items(pool, ("item_id",), own.positions[rows])["item_id"]
    table = pa.table(
        {
            "item_id": own_names.take(pa.array(query)),
            "model_version": pa.array([pool.model_version]).take(pa.array(np.zeros(len(query), np.int64))),
            "rank": pa.array((rank + 1).astype(np.int32)),
            "neighbor_id": names.take(pa.array(which)),
            "score": pa.array(scores[query, rank]),
        }
    )
    return table.to_batches(max_chunksize=50_000)
