"""The choice of a shard's FAISS index type by its size and the memory budget."""

import math
import re

from tgq.errors import ConfigError

FLAT_ITEMS = 10_000  # a shard with at most so many items gets a flat index
POINTS_PER_LIST = 39  # with fewer training points per centroid k-means is unreliable (FAISS's own rule)


def choose_factory(n: int, dim: int, memory_budget_bytes: int) -> str:
    """The FAISS factory string for n vectors of width `dim`. The table in tgq.retrieval.shards explains the choice.

    Raises:
        ConfigError: even the smallest index type exceeds the budget.
    """
    if n <= FLAT_ITEMS and 4 * dim * n <= memory_budget_bytes:
        return "Flat"
    lists = max(1, min(round(4 * math.sqrt(n)), n // POINTS_PER_LIST))
    centroids = (4 * dim + 24) * lists + 4096
    # Product quantisation splits the width into equal parts. Fast-scan lists are padded to a multiple of 32 codes.
    pieces = next(m for m in range(max(1, dim // 2), 0, -1) if dim % m == 0)
    code = math.ceil(pieces / 2)
    table = [
        ("HNSW32,Flat", (4 * dim + 276) * n),
        (f"IVF{lists},Flat", (4 * dim + 8) * n + centroids),
        (f"IVF{lists},SQ8", (dim + 8) * n + centroids),
        (f"IVF{lists},PQ{pieces}x4fs", (code + 8) * n + centroids + 32 * code * lists + 64 * dim),
    ]
    for factory, size in table:
        if size <= memory_budget_bytes:
            return factory
    raise ConfigError(
        f"a shard of {n:,} items needs {table[-1][1]:,} bytes even when compressed, "
        f"and the budget is {memory_budget_bytes:,}",
        "raise the memory budget or lower the number of items per shard",
    )


def trainable_factory(factory: str, n: int) -> str:
    """The factory string with as many IVF lists as n points can train; Flat if they are too few for IVF or PQ."""
    match = re.fullmatch(r"IVF(\d+),(.+)", factory)
    if not match:
        return factory
    lists = min(int(match[1]), n // POINTS_PER_LIST)
    if lists < 2 or (match[2].startswith("PQ") and n < POINTS_PER_LIST * 16):
        return "Flat"
    return f"IVF{lists},{match[2]}"
