"""A night with a new encoder: the embed step from kept features against the embed step from pixels, same items, same machine.

    python benchmarks/kept.py CATALOG_FOLDER [--conf catalogs/demo] [--items 400 1600] [--rounds 2] [--out benchmarks/results/kept.json]

Three sides, each a whole embed step of the night (plan, workers, staged files, commits), for each number of items:

- pixels: nothing is kept (`features.max_gb=0`); every picture is read, decoded and goes through the towers.
- keeping: the same, and what the towers said is written to `tower_features`: what the first night costs more.
- kept: another encoder over the same towers, after *keeping*: no picture is read, no tower runs.

A step costs something whatever the number of items; what an item costs beyond that is the slope between the two sizes. Expected
before it was measured: the slope 10 times smaller from kept features, the whole step less than that for small catalogs.
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
from pathlib import Path

import torch
from embed import write_subset

from tgq.catalog.ingest import ingest
from tgq.embedding.embed import embed
from tgq.encoder.model import TGQFormer
from tgq.run.opening import open_night
from tgq.settings.load import load_settings
from tgq.storage.session import open_session

SIDES = ("pixels", "keeping", "kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--conf", default="catalogs/demo")
    parser.add_argument("--items", type=int, nargs=2, default=(400, 1600), metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kept.json")
    asked = parser.parse_args()
    scratch, found = Path(tempfile.mkdtemp(prefix="tgq-bench-")), []
    spark = open_session(load_settings(["local", asked.conf], []).settings)
    try:
        other = new_encoder(scratch / "encoder")
        for n in asked.items:
            write_subset(asked.catalog, scratch / f"catalog-{n}", n)
        for number in range(asked.rounds + 1):  # the first one warms the workers up and does not count
            for n in asked.items if number else asked.items[:1]:
                took = one_round(spark, asked, scratch, n, other)
                found += [{"items": n, **took}] if number else []
                print(f"round {number}, {n} items: " + ", ".join(f"{side} {took[side]:.1f} s" for side in SIDES), flush=True)
    finally:
        spark.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    few, many = ({side: [r[side] for r in found if r["items"] == n] for side in SIDES} for n in asked.items)
    slope = {side: [(b - a) / (asked.items[1] - asked.items[0]) for a, b in zip(few[side], many[side], strict=True)] for side in SIDES}
    ratios = {f"{side} / kept, whole step of {asked.items[1]}": [a / b for a, b in zip(many[side], many["kept"], strict=True)] for side in SIDES[:2]}
    ratios |= {f"{side} / kept, per item": [a / b for a, b in zip(slope[side], slope["kept"], strict=True)] for side in SIDES[:2]}
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]")
    for side, values in slope.items():
        print(f"{side}: {1000 * statistics.median(values):.1f} ms per further item")
    machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "torch": torch.__version__}
    record = {"rounds": found, "ms_per_item": {side: [1000 * v for v in values] for side, values in slope.items()}, "ratios": ratios, **machine}
    asked.out.write_text(json.dumps(record, indent=1) + "\n")


def new_encoder(folder: Path) -> str:
    """The default encoder with another connector weight: the same towers, another model version."""
    encoder = TGQFormer.from_pretrained("default")
    with torch.no_grad():
        encoder.null_image += 0.5
    encoder.save_pretrained(folder)
    return str(folder)


def one_round(spark, asked: argparse.Namespace, scratch: Path, n: int, other: str) -> dict[str, float]:
    """Seconds of each side, in fresh warehouses."""
    took = {}
    for side, place, changed in (("pixels", "off", {"features.max_gb": 0}), ("keeping", "on", {}), ("kept", "on", {"encoder.path": other})):
        sets = {"catalog.path": str(scratch / f"catalog-{n}"), "warehouse.path": str(scratch / place), "encoder.path": "default",
                "images.allowed_roots": [str(asked.catalog.resolve())], **changed}  # fmt: skip
        night = open_night(spark, load_settings(["local", asked.conf], [f"{key}={json.dumps(value)}" for key, value in sets.items()]).settings, side)
        if side != "kept":
            ingest(night)
        began = time.perf_counter()
        result = embed(night)
        took[side] = time.perf_counter() - began
        from_kept = result.figures["from_kept_features"]
        assert from_kept == (n if side == "kept" else 0), f"{side}: {from_kept} of {n} items came from kept features"
    for place in ("off", "on"):
        shutil.rmtree(scratch / place)
    return took


if __name__ == "__main__":
    main()
