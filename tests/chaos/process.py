"""A night in processes of its own (driver, JVM, Python workers), which a test can kill."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TARGETS = ("group", "driver", "jvm", "worker")
DAEMON = b"tgq.embedding.executor.daemon"
EXECUTOR = b"org.apache.spark.executor.CoarseGrainedExecutorBackend"
ENDS_WITHIN = 600.0  # seconds; a night that takes longer hangs


class NightProcess:
    """`tgq nightly` as a user would start it, in a process group of its own."""

    def __init__(self, catalog: Path, warehouse: Path, encoder: Path, *options: str, environment: Mapping[str, str] | None = None):
        command = [sys.executable, "-m", "tgq.cli.app", "nightly", "--conf", "local", "--conf", "catalogs/demo", "--catalog", str(catalog),
                   "--warehouse", str(warehouse), "--set", "spark.master=local[2,4]", "--set", "spark.driver_memory=2g",
                   "--set", f"encoder.path={encoder}", *options]  # fmt: skip
        self.began = time.monotonic()
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                         start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})  # fmt: skip
        self.pid = self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> tuple[int, str]:
        """Wait for the driver. Returns its exit status, negative if a signal ended it, and what it printed."""
        try:
            printed, _ = self._process.communicate(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the night has not ended within {ENDS_WITHIN:.0f} s") from None
        return self._process.returncode, printed

    def kill(self, target: str, seed: int = 0) -> bool:
        """Kill with SIGKILL: the driver's process group, the driver alone, its JVM, one of its Python workers, or an executor's JVM.
        Returns whether there was such a process."""
        if target == "group":
            os.killpg(self.pid, signal.SIGKILL)
            return True
        if target == "driver":
            os.kill(self.pid, signal.SIGKILL)
            return True
        found = sorted(self._find(target))
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            os.kill(random.Random(seed).choice(found), signal.SIGKILL)
        return True

    def end(self) -> None:
        """End what is left of the night, whatever its state."""
        for process in [*_below(self.pid), self.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()

    def _find(self, target: str) -> Iterator[int]:
        for process in _below(self.pid):
            words = _command(process)
            if target == "jvm" and words[0].endswith(b"java") and EXECUTOR not in words:
                yield process
            elif target == "executor" and EXECUTOR in words and words[0].endswith(b"java"):
                yield process
            elif target == "worker" and DAEMON in words and DAEMON in _command(_parent(process)):
                yield process


def finished(nights: Sequence[NightProcess]) -> list[tuple[int, str]]:
    """Wait for several nights that run at once."""
    return [night.wait() for night in nights]


def line_of(printed: str) -> str:
    """The line in which a night said why it ended, which is its last. What the JVM and pyspark's threads print stands before it.

    Raises:
        AssertionError: it ended with something else, such as a stack trace.
    """
    lines = printed.strip().splitlines()
    assert lines and lines[-1].startswith("tgq: ") and sum(line.startswith("tgq: ") for line in lines) == 1, printed[-3000:]
    return lines[-1]


def _below(root: int) -> list[int]:
    """All processes that this one has started, and those that they have started, deepest first."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            children.setdefault(_parent(int(folder.name)), []).append(int(folder.name))
    found, level = [], children.get(root, [])
    while level:
        found = level + found
        level = [child for process in level for child in children.get(process, [])]
    return found


def _parent(process: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _command(process: int) -> list[bytes]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    return [b""]
