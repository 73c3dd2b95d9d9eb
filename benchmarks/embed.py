"""Speed of the embed step, compared with a plain torch loop and a naive pandas_udf on the same encoder, items and cores.

    python benchmarks/embed.py CATALOG_FOLDER [--conf catalogs/demo] [--items 1000] [--rounds 3] [--out benchmarks/results/embed.json]

Three variants run in turn. Their order rotates, so that other load on the machine affects all of them:

- bare: one process with all cores in torch; reads, decodes, preprocesses and encodes batch by batch. No Spark, no tables.
- step: the embed step of the nightly run: plan, workers of one core each, staged files, two Delta tables with all columns.
- naive: a scalar pandas_udf over (path, metadata, title), with the model loaded once per worker.

Before the first round Spark is started, and Python workers have loaded the model. Expected before the measurement: the step reaches
0.8 of the bare loop; the rest goes to planning, four commits, and two processes on one memory bus. All variants encode every
picture. Items that share a picture are left out, because the step encodes a picture once.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from pyspark.sql import functions as F
from pyspark.sql.functions import pandas_udf

from tgq.catalog.ingest import ingest
from tgq.embedding.embed import embed
from tgq.encoder.model import TGQFormer
from tgq.images.decode import decode_image
from tgq.registry.loading import load_encoder
from tgq.run.night import Night
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.spark.session import open_session

BATCH = 32


def write_subset(catalog: Path, folder: Path, n: int) -> None:
    """Write the first n rows with distinct pictures as a new catalog, with links to the same picture files."""
    table = pq.read_table(catalog / "catalog.parquet")
    images = table["image"].to_pylist()
    first = {image: row for row, image in reversed(list(enumerate(images))) if image}
    table = table.take(sorted(first.values())[:n])
    folder.mkdir()
    pq.write_table(table, folder / "catalog.parquet")
    for name in {image.split("/")[0] for image in table["image"].to_pylist()}:
        (folder / name).symlink_to((catalog / name).resolve())


def encode(encoder: TGQFormer, pictures: list[bytes], metadata: list[str], titles: list[str]) -> np.ndarray:
    """A batch from bytes to vectors, without threads."""
    size = encoder.vision.input_size
    pixels = torch.stack([encoder.vision.preprocess(decode_image(data, target=size)) for data in pictures])
    return encoder.encode(pixels, torch.arange(len(pictures)), metadata, titles).embedding.numpy()


def bare_loop(encoder: TGQFormer, rows: list[dict]) -> np.ndarray:
    parts = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        pictures = [Path(row["image_uri"].removeprefix("file:")).read_bytes() for row in part]
        parts.append(encode(encoder, pictures, [row["metadata_text"] for row in part], [row["encoder_title"] for row in part]))
    return np.concatenate(parts)


def naive(night: Night, folder: str) -> Callable[[], np.ndarray]:
    @pandas_udf("array<float>")
    def vectors(uris: pd.Series, metadata: pd.Series, titles: pd.Series) -> pd.Series:
        encoder, found = load_encoder(folder, "cpu", "float32"), []
        for start in range(0, len(uris), BATCH):
            part = slice(start, start + BATCH)
            pictures = [Path(uri.removeprefix("file:")).read_bytes() for uri in uris[part]]
            found += list(encode(encoder, pictures, list(metadata[part]), list(titles[part])))
        return pd.Series(found)

    def run() -> np.ndarray:
        items = night.warehouse.read("catalog_items").repartition(night.spark.sparkContext.defaultParallelism)
        made = items.select("item_id", vectors("image_uri", "metadata_text", "encoder_title").alias("embedding"))
        made.write.mode("overwrite").parquet(night.staging("naive"))
        return table_vectors(night, night.spark.read.parquet(night.staging("naive")))

    return run


def step(night: Night) -> Callable[[], np.ndarray]:
    def run() -> np.ndarray:
        embed(night)
        return table_vectors(night, night.warehouse.read("item_embeddings"))

    return run


def table_vectors(night: Night, frame) -> np.ndarray:
    table = frame.select("item_id", F.col("embedding").cast("array<float>")).orderBy("item_id").toArrow()
    return np.stack(pc.list_flatten(table["embedding"]).to_numpy().reshape(len(table), -1)).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--conf", default="catalogs/demo")
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "embed.json")
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    scratch = Path(tempfile.mkdtemp(prefix="tgq-bench-"))
    try:
        write_subset(args.catalog, scratch / "catalog", args.items)
        sets = [f"catalog.path={json.dumps(str(scratch / 'catalog'))}", f"warehouse.path={json.dumps(str(scratch / 'wh'))}",
                f"encoder.path={json.dumps(args.encoder)}", f"images.allowed_roots={json.dumps([str(args.catalog.resolve())])}"]  # fmt: skip
        settings = load_settings(["local", args.conf], sets).settings
        spark = open_session(settings)
        rounds = measure(lambda n: open_night(spark, settings, f"round-{n}"), args.rounds, cores)
        spark.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    ratios = {
        "step / bare": [r["bare"] / r["step"] for r in rounds], "naive / bare": [r["bare"] / r["naive"] for r in rounds],
        "step / naive": [r["naive"] / r["step"] for r in rounds],
    }  # fmt: skip
    n = rounds[0]["items"]
    print(f"{n} items of {args.catalog.name}, {cores} cores, {platform.machine()}")
    print(f"{'':14}{'median':>9}{'lowest':>9}{'highest':>9}")
    for name in ("bare", "step", "naive"):
        shown(f"{name} items/s", [n / r[name] for r in rounds])
    for name, values in ratios.items():
        shown(name, values)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    record = {"catalog": args.catalog.name, "items": n, "cores": cores, "processor": platform.machine(), "torch": torch.__version__,
              "seconds": rounds, "ratios": ratios}  # fmt: skip
    args.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(night_of: Callable[[int], Night], count: int, cores: int) -> list[dict]:
    """Seconds of each variant by round. Fails if their vectors differ."""
    night = night_of(0)
    ingest(night)
    columns = ("item_id", "image_uri", "metadata_text", "encoder_title")
    rows = [row.asDict() for row in night.warehouse.read("catalog_items").select(*columns).orderBy("item_id").collect()]
    torch.set_num_threads(cores)
    encoder = load_encoder(night.model_folder, "cpu", "float32")
    rounds = []
    for number in range(count + 1):  # round 0 warms up
        night = night_of(number)
        for table in ("item_embeddings", "item_features", "tower_features"):  # so that every round runs the towers
            night.spark.sql(f"DELETE FROM {night.warehouse.qualified(table)}")
        sides = {"bare": lambda: bare_loop(encoder, rows), "step": step(night), "naive": naive(night, night.model_folder)}
        names = list(sides)
        taken, found = {"items": len(rows)}, {}
        for name in names[number % 3 :] + names[: number % 3]:
            began = time.perf_counter()
            found[name] = sides[name]()
            taken[name] = round(time.perf_counter() - began, 3)
        for name in ("step", "naive"):
            difference = float(np.abs(found["bare"] - found[name]).max())
            assert difference < 1e-4, f"{name} and bare differ by {difference}"
        print(f"round {number}{' (warm-up, not counted)' if number == 0 else ''}: {taken}", flush=True)
        if number:
            rounds.append(taken)
    return rounds


def shown(name: str, values: list[float]) -> None:
    print(f"{name:14}{statistics.median(values):9.2f}{min(values):9.2f}{max(values):9.2f}")


if __name__ == "__main__":
    main()
