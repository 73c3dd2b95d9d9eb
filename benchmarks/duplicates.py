"""What it costs to find near-duplicate pictures from their hashes, through Spark and Delta: seconds by number of pictures, kind of hashes and distance.

    python benchmarks/duplicates.py [--pictures 10000 100000 1000000] [--distance 6] [--out FILE]

Three kinds of hashes. `random`: independent bits. `correlated`: bits that depend on 16 hidden numbers, as those of pictures of one shop depend on a
few layouts. `skewed`: a tenth of the pictures share one hash (a placeholder) and a fifth differ in 24 bits only; the others are correlated. In all of
them a tenth of the pictures are copies, up to 4 bits away from another one, and all colours are equal, so that none keeps pictures apart. A session is warm:
a small case is run before. `again` is the time of a search that finds nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq.duplicates.find import find_duplicates
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.spark.session import open_session
from tgq.storage.warehouse import Warehouse

KINDS = ("random", "correlated", "skewed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--distance", type=int, nargs="+", default=[6])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "duplicates.json")
    args = parser.parse_args()
    spark, rows = open_session(load_settings(["local"], ["spark.sized_for=large"], {}).settings), []
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        measure(spark, Path(scratch) / "warm", "random", 1000, args.distance[:1])
        for n in args.pictures:
            for kind in args.kinds:
                for row in measure(spark, Path(scratch) / f"{kind}-{n}", kind, n, args.distance):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "load": round(os.getloadavg()[0], 1)}
                    args.out.write_text(json.dumps({**machine, "runs": rows}, indent=1) + "\n")
    spark.stop()
    columns = ("pictures", "kind", "distance", "seconds", "again", "clusters", "in_clusters", "largest")
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(f"{row[c]:,}" if isinstance(row[c], int) else str(row[c]) for c in columns) + " |")


def measure(spark: SparkSession, folder: Path, kind: str, n: int, distances: list[int]) -> list[dict]:
    """Seconds of a first search for each distance, and of a search that finds nothing changed."""
    rows = []
    for distance in distances:
        sets = [f"warehouse.path={folder}", "duplicates.enabled=true", f"duplicates.max_distance={distance}"]
        night = open_night(spark, load_settings(["local"], sets, {}).settings, f"run-{distance}")
        if not rows:
            fill(night.warehouse, spark, folder.parent / f"{folder.name}.parquet", hashes(kind, n))
        first, again = find_duplicates(night), find_duplicates(night)
        assert again["carried"] and not first["carried"]
        found = {name: first[name] for name in ("clusters", "in_clusters", "largest", "seconds")}
        rows.append({"pictures": n, "kind": kind, "distance": distance, **found, "again": again["seconds"]})
    return rows


def hashes(kind: str, n: int) -> np.ndarray:
    """int64 [n]."""
    rng = np.random.default_rng(n)
    if kind == "random":
        found = rng.integers(0, 2**64, n, dtype=np.uint64)
    else:
        weights = rng.standard_normal((16, 64), dtype=np.float32)
        levels = rng.standard_normal((n, 16), dtype=np.float32) @ weights + 2 * rng.standard_normal((n, 64), dtype=np.float32)
        found = np.packbits(levels > np.median(levels, axis=1, keepdims=True), axis=1).view(">u8")[:, 0].astype(np.uint64)
    if kind == "skewed":
        few = n // 5
        free = sum(1 << int(bit) for bit in rng.choice(64, 24, replace=False))
        found[:few] = rng.integers(0, 2**64, few, dtype=np.uint64) & np.uint64(free)
        found[few : few + n // 10] = found[0]
    copies = found[n // 2 : n // 2 + n // 10].copy()
    for _ in range(4):
        copies ^= np.uint64(1) << rng.integers(0, 64, len(copies)).astype(np.uint64)
    found[n - len(copies) :] = copies
    return found.view(np.int64)


def fill(warehouse: Warehouse, spark: SparkSession, file: Path, codes: np.ndarray) -> None:
    """An item for each picture, and the pictures' hashes."""
    pq.write_table(pa.table({"id": np.arange(len(codes)), "perceptual_hash": codes}), file)
    rows = spark.read.parquet(str(file)).withColumn("image_hash", F.sha2(F.col("id").cast("string"), 256)).withColumn("run_id", F.lit("fill"))
    rows = rows.withColumns({"colour": F.lit(0x808080), "item_id": F.col("id").cast("string"), "content_hash": F.col("image_hash"), "is_active": F.lit(True)})
    for table in ("catalog_items", "picture_hashes"):
        warehouse.append(as_rows(rows, warehouse.read(table)), table)


def as_rows(rows: DataFrame, table: DataFrame) -> DataFrame:
    """The columns of a table, null where the rows lack them."""
    return rows.select(*((F.col(f.name) if f.name in rows.columns else F.lit(None)).cast(f.dataType).alias(f.name) for f in table.schema))


if __name__ == "__main__":
    main()
