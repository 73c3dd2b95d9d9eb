"""Moments at which a night is killed: drawn by seed, over its whole length or at its writes."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.process import TARGETS, NightProcess

FULL = "CHAOS_FULL" in os.environ  # set by `make test-chaos`
LOOK = 0.01  # seconds between two looks at the folders
WORKER_WAIT = 30.0  # seconds for which a kill waits for a Python worker


@dataclass(frozen=True)
class Moment:
    """When and what to kill.

    Attributes:
        night: `first` or `second`.
        at: `time`, a share of the night's length, or `write`, a share of its writes to the logs of the tables and to the index.
        share: in [0, 1).
        delay: seconds after a write.
        target: one of TARGETS.
        seed: of the choice among several processes.
    """

    night: str
    at: str
    share: float
    delay: float
    target: str
    seed: int


def moments(count: int, seed: int) -> list[Moment]:
    """`count` moments, evenly spread: half by time and half at writes, half in first and half in second nights, all targets alike."""
    draws = random.Random(seed)
    targets = [TARGETS[i % len(TARGETS)] for i in range(count)]
    draws.shuffle(targets)
    found = []
    for i in range(count):
        at = ("time", "write")[i % 2]
        stratum = (i // 4 + draws.random()) / ((count + 3) // 4)
        found.append(Moment(("first", "second")[i // 2 % 2], at, min(stratum, 0.999), draws.uniform(0, 0.06), targets[i], seed + i))
    draws.shuffle(found)  # so that a run that is stopped has seen moments of the whole night
    return found


class Writes:
    """Counts the new files in the logs of a warehouse's tables and in its index, temporary ones too."""

    def __init__(self, root: Path):
        self._root = root
        self._seen = self._files()
        self.count = 0

    def look(self) -> int:
        """Count what is new since the last look. Returns the count of all looks."""
        now = self._files()
        self.count += len(now - self._seen)
        self._seen |= now
        return self.count

    def _files(self) -> set[str]:
        folders = [self._root / "index", self._root / "index" / "generations", self._root / "index" / "shards"]
        found = set()
        try:
            folders += [Path(table.path, "_delta_log") for table in os.scandir(self._root) if table.is_dir() and table.name[0] not in "_."]
        except FileNotFoundError:
            return found
        for folder in folders:
            try:
                found.update(entry.path for entry in os.scandir(folder))
            except OSError:
                continue
        return found


def strike(night: NightProcess, moment: Moment, seconds: float, writes: int, root: Path) -> str:
    """Wait for the moment, and kill. Returns what was met: `killed`, `ended` before it, or `no worker` there.

    Args:
        seconds: length of an undisturbed night.
        writes: its number of writes.
    """
    counter = Writes(root)
    while night.is_running:
        came = time.monotonic() - night.began >= moment.share * seconds if moment.at == "time" else counter.look() > moment.share * writes
        if came:
            break
        time.sleep(LOOK)
    if moment.at == "write":
        time.sleep(moment.delay)
    until = time.monotonic() + WORKER_WAIT
    while night.is_running:
        if night.kill(moment.target, moment.seed):
            return "killed"
        if time.monotonic() > until:
            return "no such process"
        time.sleep(LOOK)
    return "ended"
