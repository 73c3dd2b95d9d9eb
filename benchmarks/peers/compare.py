"""Speed of embedding, whole processes from outside: tgq beside the systems that a user could take instead.

    make bench-peers [CATALOG=demo] [OPTIONS="--items 2000 --rounds 3"]
    python benchmarks/peers/compare.py CATALOG_FOLDER --peers PYTHON [--items 2000] [--rounds 3] [--systems bare tgq ray ...]

All have the same pictures, texts, encoder and cores, and write the vectors to files; start-up counts. The systems run in turn, in
rotating order, so that other load on the machine affects all of them. Vectors that differ from those of the bare loop by more than
1e-4 are an error. The first round is not counted.

- bare: one process, all cores in torch. No Spark, no tables.
- tgq: `tgq embed` after `tgq ingest`: all columns in Delta tables, quarantine, accounting; the feature cache too.
- tgq, no cache: the same with `features.max_gb=0`.
- naive: a scalar pandas_udf on local Spark.
- ray: Ray Data, an actor per core. daft: Daft, a process per core.
- img2dataset: img2dataset into webdataset shards, then a loop over them like clip-retrieval's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

import tgq

HERE = Path(__file__).parent
SCRIPTS = {"bare": "bare_loop.py", "naive": "naive_udf.py", "ray": "ray_data.py", "daft": "daft_udf.py", "img2dataset": "img2dataset_loop.py"}
OWN = {"tgq": [], "tgq, no cache": ["features.max_gb=0"]}
TGQ = str(Path(sys.executable).parent / "tgq")


class Comparison:
    """One catalog, ingested once, and its items as a Parquet file for the others."""

    def __init__(self, catalog: Path, scratch: Path, items: int, encoder: str, peers: str):
        self.scratch, self.peers = scratch, peers
        self.encoder = encoder if encoder != "default" else str(Path(tgq.__file__).parent / "encoder" / "pretrained" / "default")
        table = pq.read_table(catalog / "catalog.parquet")
        images = table["image"].to_pylist()
        first = {image: row for row, image in reversed(list(enumerate(images))) if image}
        chosen = table.take(sorted(first.values())[:items])
        (scratch / "catalog").mkdir()
        pq.write_table(chosen, scratch / "catalog" / "catalog.parquet")
        for name in {image.split("/")[0] for image in chosen["image"].to_pylist()}:
            (scratch / "catalog" / name).symlink_to((catalog / name).resolve())
        self.options = ["--conf", "local", "--conf", "catalogs/demo", "--warehouse", str(scratch / "warehouse")]
        for setting in (f"catalog.path={json.dumps(str(scratch / 'catalog'))}", f"images.allowed_roots={json.dumps([str(catalog.resolve())])}",
                        f"encoder.path={json.dumps(self.encoder)}"):  # fmt: skip
            self.options += ["--set", setting]
        run([TGQ, "ingest", *self.options])
        rows = tgq.open_warehouse(scratch / "warehouse").sql("SELECT item_id, image_uri, metadata_text, encoder_title FROM catalog_items ORDER BY item_id")
        self.n = rows.num_rows
        paths = pa.array([uri.removeprefix("file:") for uri in rows["image_uri"].to_pylist()])
        pq.write_table(pa.table({"item_id": rows["item_id"], "path": paths, "metadata_text": rows["metadata_text"],
                                 "encoder_title": rows["encoder_title"]}), scratch / "items.parquet", row_group_size=250)  # fmt: skip
        shutil.copytree(scratch / "warehouse", scratch / "ingested")

    def measure(self, system: str) -> tuple[float, np.ndarray]:
        """Seconds of a system's whole process, and its vectors ordered by item."""
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        if system in OWN:
            shutil.rmtree(self.scratch / "warehouse")
            shutil.copytree(self.scratch / "ingested", self.scratch / "warehouse")
            sets = [part for setting in OWN[system] for part in ("--set", setting)]
            command = [TGQ, "embed", *self.options, *sets]
        else:
            python = sys.executable if system in ("bare", "naive") else self.peers
            command = [python, str(HERE / SCRIPTS[system]), str(self.scratch / "items.parquet"), self.encoder, str(out)]
        began = time.perf_counter()
        run(command)
        seconds = time.perf_counter() - began
        if system in OWN:
            found = tgq.open_warehouse(self.scratch / "warehouse").sql("SELECT item_id, embedding FROM item_embeddings")
        else:
            found = ds.dataset(out, format="parquet").to_table(columns=["item_id", "embedding"])
        found = found.sort_by("item_id")
        vectors = pc.list_flatten(found["embedding"].combine_chunks()).to_numpy().reshape(found.num_rows, -1)
        assert found.num_rows == self.n, f"{system} wrote {found.num_rows} of {self.n} vectors"
        return seconds, vectors.astype(np.float32)


def run(command: list[str]) -> None:
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ended with {ended.returncode}: {ended.stdout[-2000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--peers", required=True, help="Python of the environment with benchmarks/peers/requirements.txt")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", default="default")
    parser.add_argument("--systems", nargs="+", default=[*SCRIPTS, *OWN], choices=[*SCRIPTS, *OWN])
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers.json")
    args = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        comparison = Comparison(args.catalog.resolve(), Path(scratch), args.items, args.encoder, args.peers)
        names = ["bare", *(name for name in args.systems if name != "bare")]
        for number in range(args.rounds + 1):
            turn = number % len(names)
            taken, vectors = {}, {}
            for name in names[turn:] + names[:turn]:
                taken[name], vectors[name] = comparison.measure(name)
                print(f"round {number}: {name} {taken[name]:.1f} s", flush=True)
            for name in names:
                difference = float(np.abs(vectors["bare"] - vectors[name]).max())
                assert difference < 1e-4, f"the vectors of {name} and of the bare loop differ by {difference}"
            if number:
                rounds.append({name: round(seconds, 2) for name, seconds in taken.items()})
    n = comparison.n
    print(f"\n{n} items, {len(os.sched_getaffinity(0))} cores, {platform.machine()}; ratio above 1: faster than the bare loop\n")
    print("| system | items/s, median | of the bare loop, median [lowest, highest] |\n|---|---|---|")
    for name in names:
        ratios = [r["bare"] / r[name] for r in rounds]
        print(f"| {name} | {n / statistics.median(r[name] for r in rounds):.1f} | {statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] |")
    record = {"catalog": args.catalog.name, "items": n, "cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "seconds": rounds}
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
