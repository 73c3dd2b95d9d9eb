"""Clusters of near-duplicate pictures, from their perceptual hashes: the table `picture_clusters`.

Pictures whose hashes differ in at most `duplicates.max_distance` bits are linked, and a cluster is what links connect. Equal hashes are one hash
here, so however many pictures share one, it is compared once. The others are compared within buckets (`bands`), which Spark spreads over its tasks.

Cost, for n distinct hashes and a distance of d: a shuffle of (d + 1) * n rows of 24 bytes, and n * n * (d + 1) / 2**(64 / (d + 1) + 1) comparisons of
about 1 ns, if the bits are independent; a million hashes at d = 6: 7 * 10**9. Hashes of real pictures are not, so buckets differ in size. One of more
than LARGE hashes is cut again by the bits that its band leaves. One task then holds all links, about 100 bytes each, and finds what they
connect; there are fewer links than near pairs, because a bucket of m hashes gives at most m - 1. The driver gets counts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tgq.duplicates.bands import bands, links, useful_width
from tgq.duplicates.hashes import TABLE as HASHES
from tgq.images.phash import PLAIN
from tgq.run.night import Night
from tgq.storage import artifacts

TABLE = "picture_clusters"
FORMAT = 1  # to be raised when the same hashes and settings give other clusters
LARGE = 50_000  # hashes of a bucket that is cut again; to compare them takes about a second
TASK_ROWS = 500_000  # of the rows that are shuffled into buckets
UNCUT = -1


def find_duplicates(night: Night) -> dict[str, Any]:
    """Write the clusters of the active items' pictures, unless the table already holds those of the same hashes.

    Returns:
        figures: `pictures` that have a hash, those whose hash is `unknown` because they were not decoded since hashing was turned on, `plain` ones
        without structure, `clusters`, the pictures `in_clusters`, the `largest` cluster, whether all is `carried`, and `seconds`.
    """
    clock, most = time.perf_counter(), night.settings.duplicates.max_distance
    pictures = active_pictures(night)
    row = _digest(pictures)
    figures: dict[str, Any] = {name: row[name] for name in ("pictures", "unknown", "plain")}
    key = hashlib.sha256(json.dumps([FORMAT, most, row["pictures"], str(row["sum"]), row["xor"]]).encode()).hexdigest()[:16]
    carried = night.warehouse.note_of(TABLE) == key
    if not carried:
        folder = night.staging("duplicates")
        known = pictures.where(F.col("perceptual_hash") != PLAIN)  # leaves out null too
        known.write.mode("overwrite").parquet(f"{folder}/pictures")
        known = night.spark.read.parquet(f"{folder}/pictures")
        hashes = known.select(F.col("perceptual_hash").alias("hash")).distinct()
        linked(hashes, row["pictures"], most).write.mode("overwrite").parquet(f"{folder}/links")
        rows = clusters(known, connected(night.spark.read.parquet(f"{folder}/links"))).withColumn("run_id", F.lit(night.run_id))
        night.warehouse.overwrite(rows.select(*night.warehouse.read(TABLE).columns), TABLE, key)
        artifacts.remove_folder(folder)
    made = night.warehouse.read(TABLE).agg(F.count_distinct("canonical_hash"), F.count("*"), F.coalesce(F.max("pictures"), F.lit(0))).collect()[0]
    figures |= dict(zip(("clusters", "in_clusters", "largest"), made, strict=True))
    return figures | {"max_distance": most, "carried": carried, "seconds": round(time.perf_counter() - clock, 2)}


def active_pictures(night: Night) -> DataFrame:
    """`image_hash` of every picture of an active item, each once, and its `perceptual_hash`, null if it is unknown."""
    items = night.warehouse.read("catalog_items").where("is_active AND image_hash IS NOT NULL").select("image_hash").distinct()
    return items.join(night.warehouse.read(HASHES).select("image_hash", "perceptual_hash"), "image_hash", "left")


def linked(hashes: DataFrame, n: int, most: int, large: int = LARGE) -> DataFrame:
    """Links `a`, `b` between hashes that differ in at most `most` bits; they connect what all such pairs connect.

    Args:
        hashes: column `hash`, distinct. It is read several times.
        n: about how many there are; decides how finely they are cut, and the number of tasks.
        large: hashes of a bucket that is cut again.
    """
    width = useful_width(n)
    masks = bands(most, width=width)
    cuts = [bands(most, ~int(mask), width) for mask in masks]
    place, value = F.posexplode(F.array(*(F.col("hash").bitwiseAND(F.lit(int(mask))) for mask in masks))).alias("place", "value"), F.col("value")
    rows = hashes.select("hash", place).withColumn("cut", F.lit(UNCUT))
    sizes = rows.groupBy("place", "value").count().where("count > 1").select("place", "value", (F.col("count") > large).alias("large"))
    rows = rows.join(sizes, ["place", "value"])
    finer = F.array(*(F.array(*(F.col("hash").bitwiseAND(F.lit(int(mask | inner))) for inner in cut)) for mask, cut in zip(masks, cuts, strict=True)))
    again = rows.where("large").select("place", "hash", F.posexplode(finer[F.col("place")]).alias("cut", "value"))
    buckets = rows.where("NOT large").select("place", "cut", value, "hash").unionByName(again.select("place", "cut", value, "hash"))
    tasks = max(4 * hashes.sparkSession.sparkContext.defaultParallelism, (most + 1) * n // TASK_ROWS)
    ordered = buckets.repartition(tasks, "place", "cut", "value").sortWithinPartitions("place", "cut", "value", "hash")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for (at, inner), found in _buckets(batches):
            pairs = links(found, most, (masks, at), None if inner == UNCUT else (cuts[at], inner))
            if len(pairs):
                yield pa.RecordBatch.from_pydict({"a": pairs[:, 0], "b": pairs[:, 1]})

    return ordered.mapInArrow(run, "a long, b long")


def _buckets(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """((place, cut), hashes) of each bucket of two or more, from batches in which the rows of a bucket are adjacent."""
    held = np.zeros((0, 4), np.int64)
    for batch in batches:
        rows = np.stack([batch[name].to_numpy(zero_copy_only=False).astype(np.int64) for name in ("place", "cut", "value", "hash")], axis=1)
        held = np.concatenate([held, rows])
        starts = np.flatnonzero((held[1:, :3] != held[:-1, :3]).any(axis=1)) + 1
        yield from _whole(np.split(held, starts)[:-1])
        held = held[starts[-1]:] if len(starts) else held
    yield from _whole([held])


def _whole(parts: list[np.ndarray]) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    return (((int(part[0, 0]), int(part[0, 1])), np.ascontiguousarray(part[:, 3])) for part in parts if len(part) > 1)


def connected(pairs: DataFrame) -> DataFrame:
    """`hash` of every linked hash, and `root`, the least hash that links connect it with. In one task, which holds all links."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [np.stack([batch["a"].to_numpy(), batch["b"].to_numpy()], axis=1) for batch in batches if batch.num_rows]
        if parts:
            hashes, ends = np.unique(np.concatenate(parts), return_inverse=True)
            ends = ends.reshape(-1, 2)
            graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(hashes), len(hashes)))
            _, number = connected_components(graph.tocsr(), directed=False)
            _, least = np.unique(number, return_index=True)  # hashes ascend, so the first of a component is its least
            yield pa.RecordBatch.from_pydict({"hash": hashes, "root": hashes[least[number]]})

    return pairs.repartition(1).mapInArrow(run, "hash long, root long")


def clusters(pictures: DataFrame, roots: DataFrame) -> DataFrame:
    """The rows of `picture_clusters` without `run_id`: pictures that share a hash or whose hashes are connected. The canonical picture of a cluster is
    the one with the least `image_hash`, which does not depend on the order of rows or nights.

    Args:
        pictures: `image_hash`, each once, and `perceptual_hash`.
        roots: of `connected`.
    """
    named = pictures.join(roots.withColumnRenamed("hash", "perceptual_hash"), "perceptual_hash", "left")
    named = named.withColumn("root", F.coalesce("root", "perceptual_hash"))
    first = F.min(F.struct("image_hash", "perceptual_hash"))
    whole = named.groupBy("root").agg(first.alias("first"), F.count("*").alias("pictures")).where("pictures > 1")
    differ = F.bit_count(F.col("perceptual_hash").bitwiseXOR(F.col("first.perceptual_hash")))
    return named.join(whole, "root").select(
        "image_hash", F.col("first.image_hash").alias("canonical_hash"), differ.cast("int").alias("distance"), F.col("pictures").cast("long").alias("pictures")
    )


def _digest(pictures: DataFrame) -> Any:
    """One row: counts, and two sums that change with any picture or hash."""
    known = F.col("perceptual_hash").isNotNull()
    code = F.when(known, F.xxhash64("image_hash", "perceptual_hash"))
    return pictures.agg(
        F.count_if(known).alias("pictures"), F.count_if(~known).alias("unknown"), F.count_if(F.col("perceptual_hash") == PLAIN).alias("plain"),
        F.sum(code.cast("decimal(20,0)")).alias("sum"), F.bit_xor(code).alias("xor"),
    ).collect()[0]  # fmt: skip
