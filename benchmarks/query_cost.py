"""What search queries cost a night: the step `evaluate` with and without them, and their exact scoring beside one call of FAISS.

    python benchmarks/query_cost.py [--items 2000] [--queries 1000] [--rounds 5] [--pool 1000000] [--asked 10000] [--dim 384] [--k 100] [--out FILE]

Step: two warehouses of the same text-only items, under the bundled encoder with a query tower over its own text checkpoint; one has queries with ten
judged items each. A round runs the step in both, in the same session, so Spark, its workers and the models are warm, as they are in a night that
has embedded. The first round is not counted. Seconds are of the wall clock and of the CPUs: this process, the JVM and its Python workers.

Scoring: `--asked` queries with ten judged items each rank a pool of `--pool` vectors exactly, as a task of the step does, and `faiss.knn` finds `--k`
items for the same vectors. The queries' vectors are given, so only ranking is compared. Its cost depends on where the judged items with a gain rank:
`near` has them in the query's cluster, `random` anywhere, as for an encoder that knows nothing. Both run on one core, because the step runs a task on
each. `--pool 0` leaves this part out, `--rounds 0` the other.

The goal is less than 3 s more for 1,000 queries over 2,000 items on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import pyarrow as pa
import torch
from exact_steps import CLUSTER, clustered, write_vectors
from pyspark.sql import functions as F
from text_catalog import WORDS, write_text_catalog

from tgq.catalog.ingest import ingest
from tgq.encoder.config import EncoderConfig
from tgq.encoder.model import DEFAULT_ENCODER
from tgq.evaluation.evaluate import evaluate
from tgq.evaluation.search.scoring import SearchScoring
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import MAIN, Pool, PoolBlock
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry.loading import versions_of
from tgq.run.night import Night
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.spark.session import open_session
from tgq.storage import artifacts

JUDGED = 10  # items of a query
POOL_BLOCK = 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=1_000_000, help="vectors of the second part; 0: without it")
    parser.add_argument("--asked", type=int, default=10_000, help="queries of the second part")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, default=100, help="items that FAISS finds for a query")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "query_cost.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        result = {"step": step_rounds(Path(scratch), args.items, args.queries, args.rounds)} if args.rounds else {}
        if args.pool:
            result["scoring"] = scoring_round(Path(scratch) / "pool", args.pool, args.asked, args.dim, args.k)
    machine = {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "faiss": faiss.__version__, "load": os.getloadavg()[0]}
    options = {key: value for key, value in vars(args).items() if key != "out"}
    args.out.write_text(json.dumps({"options": options, **machine, **result}, indent=1) + "\n")


def step_rounds(scratch: Path, items: int, queries: int, rounds: int) -> list[dict[str, float]]:
    """Seconds of the step in each round, of clock and CPUs, with and without search queries."""
    encoder = encoder_with_tower(scratch / "encoder")
    catalog = write_text_catalog(scratch / "catalog", items)
    stores = {name: scratch / name for name in ("without", "with")}
    places = {"warehouse.path": stores["without"], "catalog.path": catalog, "encoder.path": encoder}
    sets = [f"{key}={json.dumps(str(value))}" for key, value in places.items()] + ["tracking.enabled=false"]
    spark = open_session(load_settings(["local"], sets, {}).settings)
    settings = {name: load_settings(["local"], [*sets, f"warehouse.path={json.dumps(str(place))}"], {}).settings for name, place in stores.items()}
    night = open_night(spark, settings["without"], "fill")
    ingest(night)
    write_vectors(night, clustered(items, 768), scratch / "vectors.parquet")
    write_features(night, clustered(items, 384))
    shutil.copytree(stores["without"], stores["with"])
    write_searches(open_night(spark, settings["with"], "fill-queries"), items, queries)
    found = []
    for number in range(rounds + 1):
        taken: dict[str, float] = {}
        for name in stores:
            night = open_night(spark, settings[name], f"round-{number}")
            clock, cpu = time.perf_counter(), cpu_seconds()
            evaluate(night)
            taken |= {f"{name}, clock": round(time.perf_counter() - clock, 2), f"{name}, cpu": round(cpu_seconds() - cpu, 2)}
        taken |= {f"more, {kind}": round(taken[f"with, {kind}"] - taken[f"without, {kind}"], 2) for kind in ("clock", "cpu")}
        print(json.dumps(taken), flush=True)
        found += [taken] if number else []
    spark.stop()
    print(f"\n{queries:,} queries over {items:,} items, {len(os.sched_getaffinity(0))} cores: seconds of the step `evaluate`\n")
    print("| | clock, median [lowest, highest] | CPUs, median [lowest, highest] |\n|---|---|---|")
    for name in ("without", "with", "more"):
        cells = [[r[f"{name}, {kind}"] for r in found] for kind in ("clock", "cpu")]
        print(f"| {name} | " + " | ".join(f"{statistics.median(c):.1f} [{min(c):.1f}, {max(c):.1f}]" for c in cells) + " |")
    return found


def encoder_with_tower(folder: Path) -> Path:
    """The bundled encoder with a query tower over the same text checkpoint, whose map is random; its vectors cost as much as a trained one's."""
    shutil.copytree(DEFAULT_ENCODER, folder)
    config = EncoderConfig.read(folder)
    torch.manual_seed(0)
    QueryTower(QueryTowerConfig(versions_of(str(folder))[0], config.dim, text=config.text)).save(folder / FOLDER)
    return folder


def write_features(night: Night, texts: np.ndarray) -> None:
    """Write the frozen text features of the items, in the order of their ids; none have pictures."""
    rows = [(f"item-{i:09d}", bytearray(row.astype("<f2").tobytes())) for i, row in enumerate(texts)]
    items = night.warehouse.read("catalog_items").select("item_id", "content_hash")
    frame = night.spark.createDataFrame(rows, "item_id string, text_features binary").join(items, "item_id")
    append(night, frame.withColumns({"tower_version": F.lit(versions_of(night.model_folder)[1]), "run_id": F.lit(night.run_id)}), "item_features")


def write_searches(night: Night, items: int, queries: int) -> None:
    """Write queries of two to five words, each with JUDGED random items of grades 0 to 3."""
    rng = np.random.default_rng(0)
    texts = [" ".join([*rng.choice(WORDS, rng.integers(1, 5)), f"no {n}"]) for n in range(queries)]
    asked = [(f"query-{n}", text, text, "test", "human", float(1 + n % 50), night.run_id) for n, text in enumerate(texts)]
    judged = [
        (f"query-{n}", f"item-{i:09d}", float(grade), 1.0, "judgments", night.run_id)
        for n in range(queries) for i, grade in zip(rng.choice(items, JUDGED, replace=False), rng.integers(0, 4, JUDGED), strict=True)
    ]  # fmt: skip
    schema = "query_id string, text string, normalised_text string, split string, source string, popularity double, run_id string"
    append(night, night.spark.createDataFrame(asked, schema), "relevance_queries")
    schema = "query_id string, item_id string, grade double, weight double, source string, run_id string"
    append(night, night.spark.createDataFrame(judged, schema), "query_judgments")


def append(night: Night, rows: Any, table: str) -> None:
    schema = night.warehouse.read(table).schema
    columns = [(F.col(f.name) if f.name in rows.columns else F.lit(None)).cast(f.dataType).alias(f.name) for f in schema]
    night.warehouse.append(rows.select(*columns), table)


def cpu_seconds() -> float:
    """Seconds of the CPUs that this process, the JVM and its Python workers have had, those that ended among them."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:  # its time is then its parent's
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@dataclass(frozen=True)
class Given(QueryEncoder):
    """An encoder whose vectors are given: query n has the text "n"."""

    rows: np.ndarray

    def vectors(self, kind: str, texts: Any) -> np.ndarray:
        return self.rows[[int(text) for text in texts]]


def scoring_round(folder: Path, pool_size: int, asked: int, dim: int, k: int) -> dict[str, float]:
    """Seconds of exact scoring and of `faiss.knn` for the same queries and pool, on one core each, and their ratios."""
    from threadpoolctl import threadpool_limits

    vectors = clustered(pool_size, dim)
    rng = np.random.default_rng(1)
    near = rng.integers(pool_size, size=asked)
    queries = vectors[near] + 0.5 * rng.standard_normal((asked, dim), dtype=np.float32) / np.float32(dim**0.5)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    blocks = []
    for start in range(0, pool_size, POOL_BLOCK):
        part = vectors[start : start + POOL_BLOCK]
        blocks.append(PoolBlock(f"{start:08d}", start, len(part)))
        artifacts.write_table(f"{folder}/{start:08d}.{MAIN}.arrow", pa.table({MAIN: artifacts.matrix_column(part)}))
        codes = pa.array(np.zeros(len(part), np.uint64))
        artifacts.write_table(f"{folder}/{start:08d}.items.arrow", pa.table({"image_code": codes, "category_code": codes.cast(pa.int64())}))
    pool = Pool(str(folder), "model", "tower", {}, POOL_BLOCK, pool_size, pool_size, {MAIN: dim}, "", tuple(blocks))
    faiss.omp_set_num_threads(1)
    taken: dict[str, float] = {}
    with threadpool_limits(1):
        for kind in ("near", "random"):
            first = near // CLUSTER * CLUSTER if kind == "near" else rng.integers(pool_size - CLUSTER, size=asked)
            table = searches(np.minimum(first, pool_size - CLUSTER)[:, None] + rng.permuted(np.tile(np.arange(CLUSTER), (asked, 1)), axis=1)[:, :JUDGED])
            scoring = SearchScoring(pool, (MAIN,), (1, 10, 100), Given("", "cpu", "float32", queries))
            clock = time.perf_counter()
            assert sum(batch.num_rows for batch in scoring.run(iter(table.to_batches(max_chunksize=256)))) == asked
            taken[kind] = time.perf_counter() - clock
        clock = time.perf_counter()
        faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        taken["faiss"] = time.perf_counter() - clock
    taken |= {f"ratio, {kind}": taken[kind] / taken["faiss"] for kind in ("near", "random")}
    print(f"\n{asked:,} queries over {pool_size:,} x {dim}: " + ", ".join(f"{name} {value:.2f}" for name, value in taken.items()))
    return {name: round(value, 3) for name, value in taken.items()}


def searches(judged: np.ndarray) -> pa.Table:
    """Queries whose judged items, all with a gain, are those at these positions, int64 [Q, J]."""
    asked = len(judged)
    kind = pa.list_(pa.struct([("position", pa.int64()), ("gain", pa.float64()), ("relevant", pa.bool_())]))
    positives = [[{"position": at, "gain": 1.0, "relevant": True} for at in sorted(row)] for row in judged.tolist()]
    return pa.table({
        "query_id": [str(n) for n in range(asked)], "text": [str(n) for n in range(asked)], "group_key": np.arange(asked),
        "memberships": [["all"]] * asked, "positives": pa.array(positives, kind),
        "ignored": pa.array([[]] * asked, pa.list_(pa.struct([("position", pa.int64())]))),
    })  # fmt: skip


if __name__ == "__main__":
    main()
