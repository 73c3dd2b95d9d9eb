"""The figures of the chaos tests as a Markdown table: `python -m tests.chaos.table benchmarks/results/chaos.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HEAD = ("what happened", "times", "finished by itself", "after the same command again", "wrong table", "reads", "of a mixture")


def rows_of(figures: list[dict]) -> list[tuple]:
    """One row for each kind of disturbance: how often, how it ended, and what readers saw meanwhile."""
    kinds: dict[str, list[dict]] = {}
    for figure in figures:
        kinds.setdefault(name_of(figure), []).append(figure)
    rows = []
    for name, found in kinds.items():
        again = sum(figure.get("runs", 2 if figure.get("said") else 1) > 1 for figure in found)
        reads = sum(sum(figure["looks"].values()) for figure in found)
        rows.append((name, len(found), len(found) - again, again, sum(bool(figure.get("differences")) for figure in found), reads,
                     sum(len(figure["wrong"]) for figure in found)))  # fmt: skip
    return rows


def name_of(figure: dict) -> str:
    """What happened, in words."""
    if figure["test"] == "killed":
        target = {"group": "driver, JVM and workers", "driver": "the driver", "jvm": "the JVM", "worker": "a Python worker"}[figure["target"]]
        when = "at a write" if figure["at"] == "write" else "at any time"
        return f"{target} killed, {when}" if figure["met"].startswith("killed") else "ended before the moment came"
    names = {"two nights": "two nights at once", "full disk": "disk full", "no memory": "a worker without memory", "lost executor": "an executor of two lost",
             "clock": "clock three hours back"}  # fmt: skip
    return names[figure["test"]]


def main() -> None:
    """Print the table."""
    figures = json.loads(Path(sys.argv[1]).read_text())
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD))
    for row in sorted(rows_of(figures), key=lambda row: str(row[0])):
        print("| " + " | ".join(str(value) for value in row) + " |")


if __name__ == "__main__":
    main()
