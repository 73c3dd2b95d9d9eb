"""The engine against a bare torch loop: same encoder, same pictures, same cores, both from files to vectors.

    python benchmarks/engine.py CATALOG_FOLDER [--encoder default] [--items 256] [--rounds 5] [--json OUT.json]

The bare loop is what one would write in a notebook: for each batch read, decode, preprocess, encode. Rounds alternate, so
that whatever else the machine does falls on both; the figure is the ratio within a round, with its lowest and highest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tgq.encoder.engine import EmbeddingEngine, EngineOptions
from tgq.encoder.images import decode_image
from tgq.encoder.model import TGQFormer
from tgq.encoder.text import metadata_text, normalise


def items_of(folder: Path, n: int) -> list[dict]:
    """The first `n` rows with distinct pictures, so that neither side gains by encoding a picture once."""
    table = pq.read_table(
        folder / "catalog.parquet", columns=["item_id", "title", "brand", "category", "image"]
    )
    seen, items = set(), []
    for row in table.to_pylist():
        if row["image"] and row["image"] not in seen and len(items) < n:
            seen.add(row["image"])
            items.append({**row, "image_uri": str(folder / row.pop("image"))})
    return [
        {
            "item_id": item["item_id"],
            "image_uri": item["image_uri"],
            "metadata_text": metadata_text(item["title"], item["brand"], item["category"], None),
            "encoder_title": normalise(item["title"]),
        }
        for item in items
    ]


def read(uri: str) -> bytes:
    return Path(uri).read_bytes()


def bare_loop(encoder: TGQFormer, items: list[dict], batch: int) -> np.ndarray:
    vectors = []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        size = encoder.vision.input_size
        images = [decode_image(read(item["image_uri"]), target=size) for item in part]
        pixels = torch.stack([encoder.vision.preprocess(image) for image in images])
        texts = [item["metadata_text"] for item in part]
        titles = [item["encoder_title"] for item in part]
        vectors.append(encoder.encode(pixels, torch.arange(len(part)), texts, titles).embedding)
    return torch.cat(vectors).numpy()


def through_engine(engine: EmbeddingEngine, items: list[dict]) -> tuple[np.ndarray, float, float]:
    batches = pa.Table.from_pylist(items).to_batches(max_chunksize=256)
    out = pa.Table.from_batches(engine.run(batches))
    vectors = np.array(out.column("embedding").to_pylist(), dtype=np.float32)
    return vectors, *(float(np.sum(out.column(name))) for name in ("decode_wait_s", "model_s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode-threads", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    encoder = TGQFormer.from_pretrained(asked.encoder, device=asked.device)
    engine = EmbeddingEngine(encoder, read, EngineOptions(decode_threads=asked.decode_threads))
    items = items_of(asked.catalog, asked.items)
    bare_loop(encoder, items[:16], 16)
    through_engine(engine, items[:16])

    rounds = []
    for number in range(asked.rounds):
        taken = {}
        for name in ("bare", "engine") if number % 2 == 0 else ("engine", "bare"):
            began = time.perf_counter()
            if name == "bare":
                bare = bare_loop(encoder, items, engine.batch_rows)
            else:
                vectors, wait, model = through_engine(engine, items)
            taken[name] = time.perf_counter() - began
        apart = float(np.abs(bare - vectors).max())
        assert apart < 1e-4, f"the two differ by {apart}"
        print(f"round {number + 1}: {taken}", file=sys.stderr)
        rounds.append(
            {"bare": len(items) / taken["bare"], "engine": len(items) / taken["engine"],
             "ratio": taken["bare"] / taken["engine"], "wait_share": wait / taken["engine"]}
        )  # fmt: skip

    print(
        f"{len(items)} pictures of {asked.catalog.name}, {cores} cores, batches of {engine.batch_rows}, {asked.device}"
    )
    print(f"{'':12}{'median':>10}{'lowest':>10}{'highest':>10}")
    for name in ("bare", "engine", "ratio", "wait_share"):
        values = [found[name] for found in rounds]
        unit = " items/s" if name in ("bare", "engine") else ""
        print(f"{name:12}{statistics.median(values):10.2f}{min(values):10.2f}{max(values):10.2f}{unit}")
    if asked.json:
        asked.json.write_text(
            json.dumps({"catalog": asked.catalog.name, "cores": cores, "rounds": rounds}, indent=1)
        )


if __name__ == "__main__":
    main()
