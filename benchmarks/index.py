"""Speed of building a shard, compared with autofaiss on the same clustered vectors, memory budget and cores, at the same recall.

    python benchmarks/index.py --peers PYTHON [--items 100000] [--dim 256] [--budget-gb 4] [--rounds 3]

autofaiss builds and tunes first. tgq then builds and tunes its search to the recall@10 that autofaiss's index has on 2,000 of the
vectors. Both times contain training, adding, tuning and writing the file; the start of Python does not count. Search speed stands beside
it: queries per second on all cores, with the parameters that each side chose.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from tgq.metrics.shard_recall import draw_sample, sample_recall, tune_search
from tgq.retrieval.exact import as_matrix
from tgq.retrieval.factory import choose_factory
from tgq.retrieval.shards import build_shard, write_shard

K, SAMPLE = 10, 2000


def clustered(n: int, dim: int, per_cluster: int = 25) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, n // per_cluster), dim))
    x = (centres[np.arange(n) // per_cluster % len(centres)] + 0.7 * rng.standard_normal((n, dim))).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="Python of the environment with benchmarks/peers/requirements.txt")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--budget-gb", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "index.json")
    args = parser.parse_args()
    cores, rounds = len(os.sched_getaffinity(0)), []
    vectors = as_matrix(clustered(args.items, args.dim), "vectors")
    ids = np.array([f"item-{i:09d}" for i in range(args.items)], dtype=object)
    sample = draw_sample(vectors, ids, K, SAMPLE)
    queries = vectors[np.random.default_rng(1).permutation(args.items)[:SAMPLE]]
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        np.save(f"{scratch}/vectors.npy", vectors)
        for _ in range(args.rounds):
            command = [args.peers, str(Path(__file__).parent / "peers" / "autofaiss_build.py"), f"{scratch}/vectors.npy", f"{scratch}/theirs.faiss",
                       f"{args.budget_gb:g}G", str(cores)]  # fmt: skip
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            theirs = faiss.read_index(f"{scratch}/theirs.faiss")
            recall = sample_recall(theirs, sample, {})
            began = time.perf_counter()
            factory = choose_factory(args.items, args.dim, round(args.budget_gb * 2**30))
            shard, used = build_shard(vectors, ids, factory, 0)
            search, _ = tune_search(shard.index, draw_sample(vectors, ids, K), recall)
            write_shard(f"{scratch}/warehouse", shard, "all", 0, used)
            seconds, ours = time.perf_counter() - began, sample_recall(shard.index, sample, search)
            rounds.append({
                "autofaiss": {"seconds": round(json.loads(printed.splitlines()[-1])["seconds"], 2), "recall": round(recall, 4),
                              "queries_per_s": round(_speed(theirs, queries)), "index": type(faiss.downcast_index(theirs)).__name__},
                "tgq": {"seconds": round(seconds, 2), "recall": round(ours, 4), "index": used, "search": search,
                        "queries_per_s": round(_speed(shard.index, queries))},
            })  # fmt: skip
            print(json.dumps(rounds[-1]), flush=True)
    ratios = [r["autofaiss"]["seconds"] / r["tgq"]["seconds"] for r in rounds]
    print(f"{args.items:,} x {args.dim}, {cores} cores: building is {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] times as fast")
    record = {"items": args.items, "dim": args.dim, "budget_gb": args.budget_gb, "cores": cores, "processor": platform.machine(), "rounds": rounds}
    args.out.write_text(json.dumps(record, indent=1) + "\n")


def _speed(index: faiss.Index, queries: np.ndarray) -> float:
    index.search(queries[:100], K)
    began = time.perf_counter()
    index.search(queries, K)
    return len(queries) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
