"""The steps that search exactly, through Spark and Delta, beside one call of FAISS on the same vectors and cores.

    python benchmarks/exact_steps.py [--items 200000] [--queries 10000] [--dim 768] [--rounds 2] [--faiss-queries 20000] [--out FILE]

A warehouse is filled with text-only items in groups of two, whose clustered vectors are written to its table. A round runs the steps
`neighbors` (it writes the pool and searches every item in it) and `evaluate` (the queries' metrics with intervals), and `faiss.knn` for
`--faiss-queries` of the items. The time of `faiss.knn` is proportional to the queries, so the rest of it is computed.

Goals: `neighbors` takes at most 1.1 times as long as `faiss.knn` over all items, `evaluate` at most 1.3 times as long as over its queries.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F
from text_catalog import write_text_catalog

from tgq.catalog.ingest import ingest
from tgq.encoder.tiny import write_tiny_encoder
from tgq.evaluation.evaluate import evaluate
from tgq.index.neighbors import build_neighbors
from tgq.registry.loading import versions_of
from tgq.run.night import Night
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.spark.session import open_session

CLUSTER = 20  # items whose vectors are alike; the two items of a group are two of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=10_000, help="queries of the evaluate step, at most")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--k", type=int, default=50, help="neighbours of an item")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--faiss-queries", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exact_steps.json")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    faiss.omp_set_num_threads(cores)
    pool = clustered(args.items, args.dim)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        catalog, encoder = write_text_catalog(Path(scratch) / "catalog", args.items), write_tiny_encoder(Path(scratch) / "encoder")
        places = {"warehouse.path": Path(scratch) / "warehouse", "catalog.path": catalog, "encoder.path": encoder}
        sets = [f"{key}={json.dumps(str(value))}" for key, value in places.items()]
        sets += [f"neighbors.k={args.k}", f"evaluate.max_queries={args.queries}", "evaluate.baselines=false", "pairs.test_share=1.0"]
        settings = load_settings(["local"], sets, {}).settings
        spark = open_session(settings)
        night = open_night(spark, settings, "fill")
        ingest(night)
        write_vectors(night, pool, Path(scratch) / "vectors.parquet")
        few = min(args.faiss_queries, args.items)
        for number in range(args.rounds):
            night = open_night(spark, settings, f"round-{number}")
            taken = {"neighbors": seconds(lambda night=night: build_neighbors(night))}
            asked: list[int] = []
            taken["evaluate"] = seconds(lambda night=night, asked=asked: asked.append(evaluate(night).rows_in))
            taken["faiss, all"] = seconds(lambda: faiss.knn(pool[:few], pool, args.k + 1, metric=faiss.METRIC_INNER_PRODUCT)) * args.items / few
            taken["faiss, queries"] = taken["faiss, all"] * asked[0] / args.items
            rounds.append({name: round(value, 2) for name, value in taken.items()} | {"queries": asked[0]})
            print(json.dumps(rounds[-1]), flush=True)
        spark.stop()
    print(f"\n{args.items:,} items x {args.dim}, K = {args.k}, {cores} cores; a ratio of 1 means as fast as FAISS, less means faster\n")
    print("| step | seconds, median | of FAISS, median [lowest, highest] |\n|---|---|---|")
    for step, single in (("neighbors", "faiss, all"), ("evaluate", "faiss, queries")):
        ratios = [r[step] / r[single] for r in rounds]
        print(f"| {step} | {statistics.median(r[step] for r in rounds):.0f} | {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |")
    machine = {"cores": cores, "processor": platform.machine(), "faiss": faiss.__version__, "load": os.getloadavg()[0]}
    options = {key: value for key, value in vars(args).items() if key != "out"}
    args.out.write_text(json.dumps({"options": options, **machine, "rounds": rounds}, indent=1) + "\n")


def clustered(items: int, dim: int) -> np.ndarray:
    """Unit vectors `[items, dim]`, float32, in clusters of CLUSTER neighbouring rows."""
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((-(-items // CLUSTER), dim), dtype=np.float32), CLUSTER, axis=0)[:items]
    vectors += 0.7 * rng.standard_normal(vectors.shape, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_vectors(night: Night, pool: np.ndarray, file: Path) -> None:
    """Write the rows of `item_embeddings` with these vectors, in the order of the item ids."""
    ids = pa.array([f"item-{i:09d}" for i in range(len(pool))])
    pq.write_table(pa.table({"item_id": ids, "embedding": pa.FixedSizeListArray.from_arrays(pa.array(pool.ravel()), pool.shape[1])}), file)
    items = night.warehouse.read("catalog_items").select("item_id", "content_hash", "category")
    rows = night.spark.read.parquet(str(file)).join(items, "item_id")
    known = {"model_version": F.lit(versions_of(night.model_folder)[0]), "run_id": F.lit(night.run_id), "agreement": F.lit(float("nan"))}
    rows = rows.withColumns(known)
    schema = night.warehouse.read("item_embeddings").schema
    columns = [(F.col(f.name) if f.name in rows.columns else F.lit(None)).cast(f.dataType).alias(f.name) for f in schema]
    night.warehouse.append(rows.select(*columns), "item_embeddings")


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
