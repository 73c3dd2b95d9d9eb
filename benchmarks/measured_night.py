"""One `tgq nightly` in a process of its own: seconds by step, bytes by table, and the peak memory of each kind of process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

SETTINGS = ("gate.enabled=false", "report.strips=0")  # random weights would pass or fail a gate by chance
SAMPLE_S = 0.25
KINDS = {"java": "jvm", "python": "worker"}  # by the first letters of a process's name
TGQ = str(Path(sys.executable).parent / "tgq")


def measured_night(
    catalog: Path, warehouse: Path, encoder: Path, sets: Sequence[str] = (), commands: Sequence[str] = ("nightly",), checkout: Path | None = None
) -> dict[str, Any]:
    """Run a night, or single steps of it, and measure them from outside.

    Args:
        checkout: of another version of tgq, to be measured with this environment.

    Returns:
        wall: seconds from the start of the first process to the end of the last.
        steps: seconds by step. outside: the rest of wall.
        peak_mb: largest resident memory of the Python driver, of the JVM, and of one Python worker.
        bytes: of the warehouse's folders after the night. files: their number.

    Raises:
        RuntimeError: a command failed; with the end of what it printed.
    """
    summary = warehouse.parent / "summary.json"
    options = [part for setting in (*SETTINGS, f"encoder.path={json.dumps(str(encoder))}", *sets) for part in ("--set", setting)]
    options += ["--conf", "local", "--warehouse", str(warehouse), "--summary", str(summary)]
    environment = os.environ | ({"PYTHONPATH": str(checkout)} if checkout else {})
    began, steps, peak = time.perf_counter(), {}, {"driver": 0.0, "jvm": 0.0, "worker": 0.0}
    for command in commands:
        where = ["--catalog", str(catalog)] if command in ("nightly", "ingest") else ["--set", f"catalog.path={json.dumps(str(catalog))}"]
        process = subprocess.Popen([TGQ, command, *where, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        printed = _sampled(process, peak)
        if process.returncode:
            raise RuntimeError(f"tgq {command} ended with {process.returncode}: {printed[-2000:]}")
        steps |= {name: step["seconds"] for name, step in json.loads(summary.read_text())["steps"].items()}
    wall = time.perf_counter() - began
    files = [path for path in warehouse.rglob("*") if path.is_file()]
    folders: dict[str, int] = {}
    for path in files:
        name = path.relative_to(warehouse).parts[0]
        folders[name] = folders.get(name, 0) + path.stat().st_size
    return {
        "wall": round(wall, 1), "outside": round(wall - sum(steps.values()), 1), "steps": {n: round(s, 1) for n, s in steps.items()},
        "peak_mb": {name: round(value) for name, value in peak.items()}, "bytes": folders, "files": len(files),
    }  # fmt: skip


def _sampled(process: subprocess.Popen, peak: dict[str, float]) -> str:
    """What the process printed. Updates the peaks while it runs."""
    from threading import Thread

    printed: list[str] = []
    reader = Thread(target=lambda: printed.extend(process.stdout or []))
    reader.start()
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for each in [parent, *parent.children(recursive=True)]:
                kind = "driver" if each.pid == parent.pid else KINDS.get(each.name()[:6])
                if kind:  # a process that the JVM forked and that has not begun yet has a thread's name and the JVM's memory
                    peak[kind] = max(peak[kind], each.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:  # a worker that ended since
            pass
        time.sleep(SAMPLE_S)
    reader.join()
    return "".join(printed)
