"""How the cost of a first night grows with the catalog: seconds and bytes by step, peak memory by kind of process.

    python benchmarks/growth.py [--items 10000 100000 1000000] [--exact-up-to 100000] [--out benchmarks/results/growth.json]

Items are text-only rows under a tiny encoder, so the model costs next to nothing and the slopes are those of everything else. The
search for exact neighbours multiplies every item with every item, so it grows with the square by its nature; above `--exact-up-to`
items it is left out, and 10,000 sampled queries evaluate. `evaluate.max_queries` is 10,000 at every size.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

from measured_night import measured_night
from text_catalog import write_text_catalog

from tgq.encoder.tiny import write_tiny_encoder

WITHOUT_NEIGHBORS = ("ingest", "embed", "validate", "index", "evaluate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--exact-up-to", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "growth.json")
    args = parser.parse_args()
    nights = []
    for items in args.items:
        with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
            catalog = write_text_catalog(Path(scratch) / "catalog", items)
            encoder = write_tiny_encoder(Path(scratch) / "encoder")
            commands = ("nightly",) if items <= args.exact_up_to else WITHOUT_NEIGHBORS
            sets = ["evaluate.max_queries=10000", "evaluate.baselines=false"]
            nights.append({"items": items, **measured_night(catalog, Path(scratch) / "warehouse", encoder, sets, commands)})
            print(json.dumps(nights[-1]), flush=True)
            args.out.write_text(json.dumps({"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "nights": nights}, indent=1) + "\n")
    print(table(nights))
    plot(nights, args.out.with_suffix(".png"))


def table(nights: list[dict]) -> str:
    """Seconds by step, peak memory, and bytes an item by table, in Markdown."""
    steps = list(dict.fromkeys(step for night in nights for step in night["steps"]))
    lines = ["| | " + " | ".join(f"{night['items']:,}" for night in nights) + " |", "|---" * (len(nights) + 1) + "|"]
    for step in steps:
        lines.append(f"| {step}, s | " + " | ".join(f"{night['steps'][step]:.1f}" if step in night["steps"] else "" for night in nights) + " |")
    for kind in nights[0]["peak_mb"]:
        lines.append(f"| peak memory of the {kind}, MB | " + " | ".join(f"{night['peak_mb'][kind]:,}" for night in nights) + " |")
    for folder in sorted({name for night in nights for name in night["bytes"]}):
        if nights[-1]["bytes"].get(folder, 0) > 2**20:
            lines.append(f"| {folder}, bytes an item | " + " | ".join(f"{night['bytes'].get(folder, 0) / night['items']:,.0f}" for night in nights) + " |")
    return "\n".join(lines)


def plot(nights: list[dict], file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for step in dict.fromkeys(step for night in nights for step in night["steps"]):
        points = [(night["items"], night["steps"][step]) for night in nights if night["steps"].get(step)]
        axes.plot(*zip(*points, strict=True), marker="o", label=step)
    axes.set(xscale="log", yscale="log", xlabel="items", ylabel="seconds", title="A first night, text-only items, tiny encoder, 2 cores")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
