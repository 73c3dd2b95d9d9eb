"""Whether a warehouse stays as it is over many nights: seconds, files and bytes by night, with `tgq maintain` and without.

    python benchmarks/upkeep.py [--nights 30] [--items 300] [--every 7] [--out benchmarks/results/upkeep.json]

Each night changes 10 % of the items. Both warehouses have the same nights, in turn, in one Spark session. After each night the warehouses
are made a day older, so that Delta's retention passes too. Fails if the maintained warehouse does not stay level: files, bytes and seconds
of the last period between two maintenances against those of the third, from which on files are old enough to go.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from text_catalog import write_text_catalog

from tests.upkeep.ageing import age
from tgq.encoder.tiny import write_tiny_encoder
from tgq.night.nightly import STEPS, Nightly
from tgq.run.opening import open_night
from tgq.run.progress import Silent
from tgq.settings.load import load_settings
from tgq.spark.session import open_session
from tgq.upkeep.maintain import maintain

SETS = ("gate.enabled=false", "report.strips=0", "index.keep_generations=3",
        "maintain.keep_reports=7", "maintain.keep_mlflow_runs=7", "maintain.small_files=2")  # fmt: skip
SIDES = {"maintained": True, "left alone": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--items", type=int, default=300)
    parser.add_argument("--every", type=int, default=7, help="nights from one maintenance to the next")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "upkeep.json")
    args = parser.parse_args()
    nights: dict[str, list[dict]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        encoder = write_tiny_encoder(Path(scratch) / "encoder")
        settings = {}
        for side in SIDES:
            sets = [f"{key}={json.dumps(str(value))}" for key, value in (("encoder.path", encoder), ("warehouse.path", Path(scratch) / side),
                                                                          ("catalog.path", Path(scratch) / "catalog"))]  # fmt: skip
            settings[side] = load_settings(["local"], [*SETS, *sets], {}).settings
        spark = open_session(settings["maintained"])
        for number in range(args.nights):
            write_text_catalog(Path(scratch) / "catalog", args.items, 0.1, generation=number)
            for side, maintained in SIDES.items():
                began = time.perf_counter()
                Nightly(open_night(spark, settings[side])).run(list(STEPS))
                night = {"night": number, "seconds": round(time.perf_counter() - began, 2), **_size(Path(scratch) / side)}
                if maintained and number % args.every == args.every - 1:
                    began = time.perf_counter()
                    removed = maintain(spark, settings[side], False, Silent())
                    night |= {"maintain_seconds": round(time.perf_counter() - began, 1), "freed_bytes": sum(one.bytes for one in removed),
                              "after": _size(Path(scratch) / side)}  # fmt: skip
                age(spark, Path(scratch) / side)
                nights[side].append(night)
                print(side, json.dumps(night), flush=True)
        spark.stop()
    record = {"items": args.items, "every": args.every, "cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "nights": nights}
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    plot(nights, args.out.with_suffix(".png"))
    check(nights["maintained"], args.every)


def check(nights: list[dict], every: int) -> None:
    """Fail if the last full period between two maintenances is more than a tenth above the third one, from which on files are old enough to go."""
    periods = [nights[start : start + every] for start in range(2 * every, len(nights) - every + 1, every)]
    for name, value in (("files", max), ("bytes", max), ("seconds", statistics.median)):
        first, last = (value(night[name] for night in period) for period in (periods[0], periods[-1]))
        print(f"{name}: {first:,.1f} in nights {2 * every + 1} to {3 * every}, {last:,.1f} in the last full period, {last / first:.2f}")
        assert last <= 1.1 * first, f"{name} grow with the nights"


def _size(warehouse: Path) -> dict[str, int]:
    files = [path.stat().st_size for path in warehouse.rglob("*") if path.is_file()]
    return {"files": len(files), "bytes": sum(files)}


def plot(nights: dict[str, list[dict]], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4))
    for axis, (name, title, unit) in zip(axes, (("files", "files", 1), ("bytes", "MB", 1e6), ("seconds", "seconds a night", 1)), strict=True):
        for side, rows in nights.items():
            axis.plot([row["night"] + 1 for row in rows], [row[name] / unit for row in rows], marker=".", label=side)
        axis.set(xlabel="night", title=title, ylim=(0, None))
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(file, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
