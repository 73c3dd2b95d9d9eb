"""What a night costs apart from the model: whole nights of text-only items under a tiny encoder, timed from outside.

    python benchmarks/night_cost.py [--items 2000 20000] [--rounds 3] [--against CHECKOUT] [--out benchmarks/results/night_cost.json]

For each size: a first night, then unchanged nights and nights with 1 % changed titles in turn. Start-up of Python and of the JVM counts.
With `--against`, another version of tgq has the same nights in turn, in a warehouse of its own: a ratio says more than seconds where the
machine's speed varies.
The goals on two cores are 40 s for an unchanged night of 2,000 items and 55 s for one with 1 % changed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

from measured_night import measured_night
from text_catalog import write_text_catalog

from tgq.encoder.tiny import write_tiny_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[2_000, 20_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "night_cost.json")
    parser.add_argument("--against", type=Path, help="checkout of another version of tgq")
    args = parser.parse_args()
    versions = {"this": None} | ({"other": args.against.resolve()} if args.against else {})
    nights = []
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        encoder = write_tiny_encoder(Path(scratch) / "encoder")
        for items in args.items:
            folder = Path(scratch) / str(items)
            for kind, generation in [("first", 0), *((kind, n + (kind != "unchanged")) for n in range(args.rounds) for kind in ("unchanged", "1 % changed"))]:
                catalog = write_text_catalog(folder / "catalog", items, 0.01, generation=generation)
                for version, checkout in versions.items():
                    (folder / version).mkdir(exist_ok=True)
                    night = measured_night(catalog, folder / version / "warehouse", encoder, checkout=checkout)
                    nights.append({"items": items, "night": kind, "version": version, **night})
                    print(json.dumps(nights[-1] | {"bytes": sum(night["bytes"].values())}), flush=True)
    args.out.write_text(json.dumps({"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "nights": nights}, indent=1) + "\n")
    steps = list(nights[0]["steps"])
    print("| items | night | version | wall, median [lowest, highest] | outside | " + " | ".join(steps) + " |")
    print("|" + "---|" * (len(steps) + 5))
    for items, kind, version in itertools.product(args.items, ("first", "unchanged", "1 % changed"), versions):
        same = [n for n in nights if (n["items"], n["night"], n["version"]) == (items, kind, version)]
        if same:
            walls = [n["wall"] for n in same]
            cells = [f"{statistics.median(walls):.0f} [{min(walls):.0f}, {max(walls):.0f}]", f"{statistics.median(n['outside'] for n in same):.1f}"]
            cells += [f"{statistics.median(n['steps'].get(step, 0) for n in same):.1f}" for step in steps]
            print(f"| {items:,} | {kind} | {version} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
