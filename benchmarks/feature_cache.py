"""Speed of the embed step from the feature cache, compared with the embed step from pictures, on the same items and machine.

    python benchmarks/feature_cache.py CATALOG_FOLDER [--conf catalogs/demo] [--items 400 1600] [--rounds 2] [--out FILE]

Three variants, each a whole embed step (plan, workers, staged files, commits), for each number of items:

- pixels: the cache is off (`features.max_gb=0`); every picture is read, decoded and encoded by the towers.
- filling: the same, and the towers' outputs are written to the cache.
- cached: another encoder with the same towers, after *filling*; no picture is read and no tower runs.

A step has a fixed cost. The cost per item is the slope between the two numbers of items. Expected before the measurement: the slope
is 10 times smaller from the cache; the whole step gains less for small catalogs.
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
from tgq.spark.session import open_session

VARIANTS = ("pixels", "filling", "cached")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalog", type=Path)
    parser.add_argument("--conf", default="catalogs/demo")
    parser.add_argument("--items", type=int, nargs=2, default=(400, 1600), metavar=("FEW", "MANY"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "feature_cache.json")
    args = parser.parse_args()
    scratch, found = Path(tempfile.mkdtemp(prefix="tgq-bench-")), []
    spark = open_session(load_settings(["local", args.conf], []).settings)
    try:
        other = new_encoder(scratch / "encoder")
        for n in args.items:
            write_subset(args.catalog, scratch / f"catalog-{n}", n)
        for number in range(args.rounds + 1):  # round 0 warms up and does not count
            for n in args.items if number else args.items[:1]:
                took = one_round(spark, args, scratch, n, other)
                found += [{"items": n, **took}] if number else []
                print(f"round {number}, {n} items: " + ", ".join(f"{variant} {took[variant]:.1f} s" for variant in VARIANTS), flush=True)
    finally:
        spark.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    few, many = ({variant: [r[variant] for r in found if r["items"] == n] for variant in VARIANTS} for n in args.items)
    slope = {variant: [(b - a) / (args.items[1] - args.items[0]) for a, b in zip(few[variant], many[variant], strict=True)] for variant in VARIANTS}
    ratios = {}
    for variant in VARIANTS[:2]:
        ratios[f"{variant} / cached, whole step of {args.items[1]}"] = [a / b for a, b in zip(many[variant], many["cached"], strict=True)]
        ratios[f"{variant} / cached, per item"] = [a / b for a, b in zip(slope[variant], slope["cached"], strict=True)]
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]")
    for variant, values in slope.items():
        print(f"{variant}: {1000 * statistics.median(values):.1f} ms per further item")
    machine = {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "torch": torch.__version__}
    record = {"rounds": found, "ms_per_item": {variant: [1000 * v for v in values] for variant, values in slope.items()}, "ratios": ratios, **machine}
    args.out.write_text(json.dumps(record, indent=1) + "\n")


def new_encoder(folder: Path) -> str:
    """An encoder with the default towers and another weight, so another model version."""
    encoder = TGQFormer.from_pretrained("default")
    with torch.no_grad():
        encoder.null_image += 0.5
    encoder.save_pretrained(folder)
    return str(folder)


def one_round(spark, args: argparse.Namespace, scratch: Path, n: int, other: str) -> dict[str, float]:
    """Seconds of each variant, in new warehouses."""
    took = {}
    for variant, folder, changed in (("pixels", "off", {"features.max_gb": 0}), ("filling", "on", {}), ("cached", "on", {"encoder.path": other})):
        sets = {"catalog.path": str(scratch / f"catalog-{n}"), "warehouse.path": str(scratch / folder), "encoder.path": "default",
                "images.allowed_roots": [str(args.catalog.resolve())], **changed}  # fmt: skip
        night = open_night(spark, load_settings(["local", args.conf], [f"{key}={json.dumps(value)}" for key, value in sets.items()]).settings, variant)
        if variant != "cached":
            ingest(night)
        began = time.perf_counter()
        result = embed(night)
        took[variant] = time.perf_counter() - began
        from_cache = result.figures["from_kept_features"]
        assert from_cache == (n if variant == "cached" else 0), f"{variant}: {from_cache} of {n} items came from the cache"
    for folder in ("off", "on"):
        shutil.rmtree(scratch / folder)
    return took


if __name__ == "__main__":
    main()
