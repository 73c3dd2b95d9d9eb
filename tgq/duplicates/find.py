"""Clusters of near-duplicate pictures, from their perceptual hashes: the table `picture_clusters`.

Pictures are linked whose hashes differ in at most `duplicates.max_distance` bits and whose colours in at most `duplicates.max_colour_difference` levels,
and a cluster is what links connect. Pictures of equal hash and colour are one here, so however many there are, they are compared once. The others are
compared within buckets (`bands`), which Spark spreads over its tasks.

Cost, for n distinct pairs of hash and colour and a distance of d: a shuffle of (d + 1) * n rows of 32 bytes, and n * n * (d + 1) / 2**(64 / (d + 1) + 1)
comparisons of about 1 ns, if the bits are independent; a million at d = 6: 7 * 10**9. Hashes of real pictures are not independent, so buckets differ in
size. One of more than LARGE rows is cut again by the bits that its band leaves. One task then holds all links, about 200 bytes each, and finds what they
connect; there are fewer links than near pairs, because a bucket of m rows gives at most m - 1. The driver gets counts.
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
    clock, options = time.perf_counter(), night.settings.duplicates
    limits = options.max_distance, options.max_colour_difference
    pictures = active_pictures(night)
    row = _digest(pictures)
    figures: dict[str, Any] = {name: row[name] for name in ("pictures", "unknown", "plain")}
    key = hashlib.sha256(json.dumps([FORMAT, limits, row["pictures"], str(row["sum"]), row["xor"]]).encode()).hexdigest()[:16]
    carried = night.warehouse.note_of(TABLE) == key
    if not carried:
        folder = night.staging("duplicates")
        known = pictures.where(F.col("perceptual_hash") != PLAIN)  # leaves out null too
        known.write.mode("overwrite").parquet(f"{folder}/pictures")
        known = night.spark.read.parquet(f"{folder}/pictures")
        codes = known.select(F.col("perceptual_hash").alias("hash"), "colour").distinct()
        linked(codes, row["pictures"], limits).write.mode("overwrite").parquet(f"{folder}/links")
        rows = clusters(known, connected(night.spark.read.parquet(f"{folder}/links"))).withColumn("run_id", F.lit(night.run_id))
        night.warehouse.overwrite(rows.select(*night.warehouse.read(TABLE).columns), TABLE, key)
        artifacts.remove_folder(folder)
    made = night.warehouse.read(TABLE).agg(F.count_distinct("canonical_hash"), F.count("*"), F.coalesce(F.max("pictures"), F.lit(0))).collect()[0]
    figures |= dict(zip(("clusters", "in_clusters", "largest"), made, strict=True))
    return figures | {"max_distance": limits[0], "max_colour_difference": limits[1], "carried": carried, "seconds": round(time.perf_counter() - clock, 2)}


def active_pictures(night: Night) -> DataFrame:
    """`image_hash` of every picture of an active item, each once, and its `perceptual_hash` and `colour`, null if they are unknown."""
    items = night.warehouse.read("catalog_items").where("is_active AND image_hash IS NOT NULL").select("image_hash").distinct()
    return items.join(night.warehouse.read(HASHES).select("image_hash", "perceptual_hash", "colour"), "image_hash", "left")


def linked(codes: DataFrame, n: int, limits: tuple[int, int], large: int = LARGE) -> DataFrame:
    """Links between pairs of hash and colour, `a`, `a_colour`, `b`, `b_colour`. They connect what all near pairs connect.

    Args:
        codes: columns `hash` and `colour`, each pair once. It is read several times.
        n: about how many there are; decides how finely they are cut, and the number of tasks.
        limits: the largest distance of hashes, and the largest difference of colours.
        large: rows of a bucket that is cut again.
    """
    most, width, key = limits[0], useful_width(n), ("place", "cut", "value")
    masks = bands(most, width=width)
    cuts = [bands(most, ~int(mask), width) for mask in masks]
    place = F.posexplode(F.array(*(F.col("hash").bitwiseAND(F.lit(int(mask))) for mask in masks))).alias("place", "value")
    rows = codes.select("hash", "colour", place).withColumn("cut", F.lit(UNCUT))
    sizes = rows.groupBy("place", "value").count().where("count > 1").select("place", "value", (F.col("count") > large).alias("large"))
    rows = rows.join(sizes, ["place", "value"])
    finer = F.array(*(F.array(*(F.col("hash").bitwiseAND(F.lit(int(mask | inner))) for inner in cut)) for mask, cut in zip(masks, cuts, strict=True)))
    again = rows.where("large").select("place", "hash", "colour", F.posexplode(finer[F.col("place")]).alias("cut", "value"))
    buckets = rows.where("NOT large").select(*key, "hash", "colour").unionByName(again)
    tasks = max(4 * codes.sparkSession.sparkContext.defaultParallelism, (most + 1) * n // TASK_ROWS)
    ordered = buckets.repartition(tasks, *key).sortWithinPartitions(*key, "hash", "colour")

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for at, inner, found in _buckets(batches):
            hashes, colours = found
            a, b = links(hashes, colours, limits, (masks, at), None if inner == UNCUT else (cuts[at], inner)).T
            if len(a):
                yield pa.RecordBatch.from_pydict({"a": hashes[a], "a_colour": colours[a], "b": hashes[b], "b_colour": colours[b]})

    return ordered.mapInArrow(run, "a long, a_colour long, b long, b_colour long")


def _buckets(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, int, np.ndarray]]:
    """(place, cut, hashes and colours int64 [2, n]) of each bucket of two or more, from batches in which the rows of a bucket are adjacent."""
    held = np.zeros((0, 5), np.int64)
    for batch in batches:
        names = ("place", "cut", "value", "hash", "colour")
        rows = np.stack([batch[name].to_numpy(zero_copy_only=False).astype(np.int64) for name in names], axis=1)
        held = np.concatenate([held, rows])
        starts = np.flatnonzero((held[1:, :3] != held[:-1, :3]).any(axis=1)) + 1
        yield from _whole(np.split(held, starts)[:-1])
        held = held[starts[-1]:] if len(starts) else held
    yield from _whole([held])


def _whole(parts: list[np.ndarray]) -> Iterator[tuple[int, int, np.ndarray]]:
    return ((int(part[0, 0]), int(part[0, 1]), np.ascontiguousarray(part[:, 3:].T)) for part in parts if len(part) > 1)


def connected(pairs: DataFrame) -> DataFrame:
    """`hash` and `colour` of everything that is linked, and `root` and `root_colour`, the least that links connect it with.

    In one task, which holds all links.
    """

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [np.stack([column.to_numpy() for column in batch.columns], axis=1) for batch in batches if batch.num_rows]
        if parts:
            codes, ends = np.unique(np.concatenate(parts).reshape(-1, 2), axis=0, return_inverse=True)
            ends = ends.reshape(-1, 2)
            graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(codes), len(codes)))
            _, number = connected_components(graph.tocsr(), directed=False)
            _, least = np.unique(number, return_index=True)  # codes ascend, so the first of a component is its least
            found = np.concatenate([codes, codes[least[number]]], axis=1)
            yield pa.RecordBatch.from_arrays([pa.array(column) for column in found.T], names=["hash", "colour", "root", "root_colour"])

    return pairs.repartition(1).mapInArrow(run, "hash long, colour long, root long, root_colour long")


def clusters(pictures: DataFrame, roots: DataFrame) -> DataFrame:
    """The rows of `picture_clusters` without `run_id`: pictures that share hash and colour, or that links connect. The canonical picture of a cluster is
    the one with the least `image_hash`, which does not depend on the order of rows or nights.

    Args:
        pictures: `image_hash`, each once, `perceptual_hash` and `colour`.
        roots: of `connected`.
    """
    named = pictures.join(roots.withColumnRenamed("hash", "perceptual_hash"), ["perceptual_hash", "colour"], "left")
    root = F.struct(F.coalesce("root", "perceptual_hash").alias("hash"), F.coalesce("root_colour", "colour").alias("colour"))
    named = named.select("image_hash", "perceptual_hash", root.alias("root"))
    first = F.min(F.struct("image_hash", "perceptual_hash"))
    whole = named.groupBy("root").agg(first.alias("first"), F.count("*").alias("pictures")).where("pictures > 1")
    differ = F.bit_count(F.col("perceptual_hash").bitwiseXOR(F.col("first.perceptual_hash")))
    return named.join(whole, "root").select(
        "image_hash", F.col("first.image_hash").alias("canonical_hash"), differ.cast("int").alias("distance"), F.col("pictures").cast("long").alias("pictures")
    )


def _digest(pictures: DataFrame) -> Any:
    """One row: counts, and two sums that change with any picture or hash."""
    known = F.col("perceptual_hash").isNotNull()
    code = F.when(known, F.xxhash64("image_hash", "perceptual_hash", "colour"))
    return pictures.agg(
        F.count_if(known).alias("pictures"), F.count_if(~known).alias("unknown"), F.count_if(F.col("perceptual_hash") == PLAIN).alias("plain"),
        F.sum(code.cast("decimal(20,0)")).alias("sum"), F.bit_xor(code).alias("xor"),
    ).collect()[0]  # fmt: skip
