"""Search in shards by product type, each the index that `choose_factory` gives it, beside one flat index of all items.

    python benchmarks/shards.py [--items 120000] [--dim 256] [--types 4 16] [--rounds 3]

The vectors are clustered, and a type is a part of the clusters, but a tenth of the items has a type at random, as where a shop files items wrongly.
Recall@10 is against exact search: `of the type` among the items of the query's type, `of the catalog` among all, of which a search in one shard cannot
find those of other types. Latency is of one query at a time, on one core, median and 95th percentile over 1,000 queries; queries a second are of one call
for all queries of a type. The flat index answers for the whole catalog, `flat, type alone` for the items of the type, by FAISS's selector.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from index import K, clustered

from tgq.metrics.shard_recall import draw_sample, tune_search
from tgq.retrieval.exact import as_matrix
from tgq.retrieval.factory import choose_factory
from tgq.retrieval.shards import build_shard

QUERIES = 1000
STRAYS = 0.1  # share of the items with a type at random
TARGET = 0.95  # of `index.recall_target`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=120_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--types", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "shards.json")
    args = parser.parse_args()
    faiss.omp_set_num_threads(1)
    vectors = as_matrix(clustered(args.items, args.dim), "vectors")
    queries = np.random.default_rng(1).permutation(args.items)[:QUERIES]
    flat = faiss.IndexFlatIP(args.dim)
    flat.add(vectors)
    true = flat.search(vectors[queries], K)[1]
    record: dict[str, Any] = {"items": args.items, "dim": args.dim, "recall_target": TARGET, "queries": QUERIES, "strays": STRAYS, "threads": 1, "types": {}}
    for types in args.types:
        record["types"][types] = measured(vectors, queries, flat, true, types, args.rounds)
        print(types, json.dumps(record["types"][types], indent=1), flush=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")


def measured(vectors: np.ndarray, queries: np.ndarray, flat: faiss.Index, true: np.ndarray, types: int, rounds: int) -> dict[str, Any]:
    """Recall and speed of all three ways, for so many types of equal size."""
    n = len(vectors)
    draw = np.random.default_rng(2)
    kind = np.where(draw.random(n) < STRAYS, draw.integers(0, types, n), np.arange(n) // 25 % types)  # clusters are 25 items in a row
    rows = [np.flatnonzero(kind == t) for t in range(types)]
    shards, factories, built = [], [], 0.0
    for own in rows:
        ids = np.array([f"item-{i:09d}" for i in own], dtype=object)
        part = np.ascontiguousarray(vectors[own])
        began = time.perf_counter()
        shard, used = build_shard(part, ids, choose_factory(len(own), vectors.shape[1], 2**32), 0)
        search, _ = tune_search(shard.index, draw_sample(part, ids, K), TARGET)
        for name, value in search.items():
            faiss.ParameterSpace().set_index_parameter(shard.index, name, value)
        built += time.perf_counter() - began
        order = np.array([int(one.removeprefix("item-")) for one in shard.ids.tolist()])
        shards.append((shard.index, order))
        factories.append(used)
    selectors = [faiss.SearchParameters(sel=faiss.IDSelectorBatch(own)) for own in rows]

    def in_shard(at: np.ndarray) -> np.ndarray:
        index, order = shards[kind[at[0]]]
        return order[index.search(vectors[at], K)[1]]

    def in_type(at: np.ndarray) -> np.ndarray:
        return flat.search(vectors[at], K, params=selectors[kind[at[0]]])[1]

    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "shards": in_shard, "flat": lambda at: flat.search(vectors[at], K)[1], "flat, type alone": in_type,
    }  # fmt: skip
    groups = [queries[kind[queries] == t] for t in range(types)]
    asked = np.concatenate(groups)
    near = {name: np.concatenate([way(group) for group in groups]) for name, way in ways.items()}
    place = np.argsort(queries, kind="stable")
    whole = true[place[np.searchsorted(queries[place], asked)]]
    found: dict[str, Any] = {"index": sorted(set(factories)), "build_s": round(built, 1)}
    for name, way in ways.items():
        singles, calls = [], []
        for _ in range(rounds):
            for at in queries:
                began = time.perf_counter()
                way(np.array([at]))
                singles.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            for group in groups:
                way(group)
            calls.append(len(queries) / (time.perf_counter() - began))
        found[name] = {
            "recall_of_the_type": overlap(near[name], near["flat, type alone"]), "recall_of_the_catalog": overlap(near[name], whole),
            "latency_ms": round(statistics.median(singles), 3), "latency_p95_ms": round(float(np.percentile(singles, 95)), 3),
            "queries_per_s": [round(min(calls)), round(max(calls))],
        }  # fmt: skip
    return found


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    """The mean share of the true neighbours `[Q, K]` that are found."""
    return round(float(np.mean([np.isin(a, b).mean() for a, b in zip(true, found, strict=True)])), 4)


if __name__ == "__main__":
    main()
