"""Speed of exact top-K search on the full pool: tgq's block search and single FAISS calls, on the same vectors and cores.

    python benchmarks/search.py [--items 50000] [--queries 10000] [--dim 768] [--k 100] [--blocks 5]
    [--repeats 5] [--threads N]

Expected before the measurement: all variants multiply the same matrices. Block search also rescores and merges
K + 16 candidates per query and block, so it should reach 0.95 of a single call. It can be faster if numpy's BLAS is
faster than that of the FAISS wheel. Ranks of one positive per query should take about the same time.

The variants run in turn within each repetition, in alternating order, so that other load on the machine affects all
of them. A ratio above 1 means that block search is faster. A plain matmul of the same shape is the upper bound. The
vectors are clustered, because in isotropic noise all neighbours are equally far away.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path

PARSER = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
PARSER.add_argument("--items", type=int, default=50_000)
PARSER.add_argument("--queries", type=int, default=10_000)
PARSER.add_argument("--dim", type=int, default=768)
PARSER.add_argument("--k", type=int, default=100)
PARSER.add_argument("--blocks", type=int, default=5)
PARSER.add_argument("--repeats", type=int, default=5)
PARSER.add_argument("--threads", type=int, default=os.cpu_count())
PARSER.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "search.json")
OPTIONS = PARSER.parse_args()
for name in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
):  # read when the BLAS libraries are loaded
    os.environ[name] = str(OPTIONS.threads)
sys.path.insert(0, str(Path(__file__).parents[1]))

import faiss
import numpy as np

from tgq.metrics.ranks import Positives, count_above
from tgq.retrieval.exact import Block, Exclude, search_blocks
from tgq.retrieval.product import product_tiles


def clustered(n: int, dim: int, per_cluster: int = 25) -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, n // per_cluster), dim))
    x = (centres[np.arange(n) // per_cluster % len(centres)] + 0.7 * rng.standard_normal((n, dim))).astype(
        np.float32
    )
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def seconds(action) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    o = OPTIONS
    pool, queries = clustered(o.items, o.dim), clustered(o.items, o.dim)[: o.queries]
    places = np.arange(len(queries))
    edges = np.linspace(0, o.items, o.blocks + 1).astype(int)
    blocks = [Block(pool[a:b], np.arange(a, b)) for a, b in itertools.pairwise(edges)]
    partner = places ^ 1
    positives = Positives(np.arange(len(queries) + 1), partner, pool[partner])
    index = faiss.IndexFlatIP(o.dim)
    index.add(pool)
    sides = {
        "block search": lambda: search_blocks(queries, blocks, o.k, Exclude(places)),
        "faiss.knn": lambda: faiss.knn(queries, pool, o.k + 1, metric=faiss.METRIC_INNER_PRODUCT),
        "IndexFlatIP.search": lambda: index.search(queries, o.k + 1),
        "matmul only": lambda: [tile[0, 0] for a in range(0, len(queries), 4096)
                                for _, tile in product_tiles(queries[a : a + 4096], pool, 1024)],
        "ranks": lambda: count_above(queries, positives, blocks, Exclude(places)),
    }  # fmt: skip
    check(sides["block search"]()[1], index.search(queries[:500], o.k + 1)[1])
    times = {name: [] for name in sides}
    for repeat in range(o.repeats):
        for name in list(sides)[:: 1 if repeat % 2 == 0 else -1]:
            times[name].append(seconds(sides[name]))

    ratios = {
        f"{single} / block search": np.array(times[single]) / times["block search"]
        for single in ("faiss.knn", "IndexFlatIP.search")
    }
    ratios["matmul only / block search"] = np.array(times["matmul only"]) / times["block search"]
    ratios["matmul only / ranks"] = np.array(times["matmul only"]) / times["ranks"]
    gflop = 2 * len(queries) * o.items * o.dim / 1e9
    shape = f"{len(queries):,} queries x {o.items:,} items x {o.dim}"
    print(f"{shape}, K = {o.k}, {o.blocks} blocks, {o.threads} threads\n")
    print(f"{'':28}{'min':>10}{'median':>10}{'max':>10}{'queries/s':>12}{'GFLOP/s':>10}")
    for name, values in times.items():
        low, mid, high = np.quantile(values, [0, 0.5, 1])
        print(
            f"{name + ', s':28}{low:10.3f}{mid:10.3f}{high:10.3f}{len(queries) / mid:12,.0f}{gflop / mid:10.0f}"
        )
    for name, values in ratios.items():
        print(f"{name:28}" + "".join(f"{x:10.2f}" for x in np.quantile(values, [0, 0.5, 1])))

    o.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "options": {key: value for key, value in vars(o).items() if key != "out"},
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "numpy": np.__version__,
            "faiss": faiss.__version__,
            "faiss_options": faiss.get_compile_options().strip(),
        },
        "seconds": times,
        "ratios": {
            name: dict(zip(("min", "median", "max"), np.quantile(values, [0, 0.5, 1]), strict=True))
            for name, values in ratios.items()
        },
    }
    o.out.write_text(json.dumps(record, indent=1) + "\n")


def check(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Check that both found the same neighbours, apart from the query itself. Ties in the last bits may swap some."""
    same = np.mean(
        [len(set(a) & (set(b) - {i})) / len(a) for i, (a, b) in enumerate(zip(ours, theirs, strict=False))]
    )
    if same < 0.999:
        raise SystemExit(f"block search and FAISS agree on only {same:.2%} of the neighbours")


if __name__ == "__main__":
    main()
