"""Catalogs of drawn rows without pictures, for measurements of everything but the towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

WORDS = np.array("red blue green black white grey shoe shirt bag watch mug lamp sofa cotton wool leather men women kids sport home new".split())
PART = 100_000  # rows per file


def write_text_catalog(folder: Path, items: int, changed: float = 0.0, seed: int = 0, generation: int = 0) -> Path:
    """Write a catalog of `items` rows: title, brand, category of two levels, colour, and groups of two.

    Args:
        changed: share of the rows whose titles differ between two generations: half of it gets a new title, half its old one back.
        generation: which version of the catalog.
    """
    folder.mkdir(parents=True, exist_ok=True)
    period = round(2 / changed) if changed else 0
    for part, start in enumerate(range(0, items, PART)):
        rows = np.arange(start, min(start + PART, items))
        rng = np.random.default_rng((seed, part))
        drawn = WORDS[rng.integers(len(WORDS), size=(len(rows), 5))]
        titles = pc.binary_join_element_wise(*(pa.array(column) for column in drawn.T), pa.array([f"no {i}" for i in rows]), " ")
        if period:
            again = pa.array((rows * 7919 + generation) % period == 0)
            titles = pc.if_else(again, pc.binary_join_element_wise(titles, pa.scalar(f"edition {generation}"), " "), titles)
        leaf = rng.integers(40, size=len(rows))
        pq.write_table(
            pa.table({
                "item_id": [f"item-{i:09d}" for i in rows], "title": titles, "brand": [f"brand {b}" for b in rng.integers(200, size=len(rows))],
                "category": [f"top {n % 8} > leaf {n}" for n in leaf], "group_id": [f"group-{i // 2}" for i in rows],
                "attributes": pa.array([[("color", c)] for c in drawn[:, 0]], pa.map_(pa.string(), pa.string())),
            }),
            folder / f"part-{part:05d}.parquet",
        )  # fmt: skip
    return folder
