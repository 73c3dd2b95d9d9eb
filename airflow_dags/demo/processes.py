"""The servers of the demo: started with a log each, and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class Servers:
    """Processes that end with the block, each with what it has started itself."""

    def __init__(self, logs: Path):
        self.logs = logs
        self._started: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Servers:
        return self

    def __exit__(self, *_: object) -> None:
        family = [pid for process in self._started.values() for pid in descendants(process.pid)]  # a task has a process group of its own
        for process in reversed(self._started.values()):
            process.terminate()
        for process in self._started.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start(self, name: str, command: list[str], environ: dict[str, str], ready: Callable[[], bool], seconds: float = 180) -> None:
        """Start a server and wait until `ready`.

        Raises:
            SystemExit: it ended, or it is not ready in time; the message names its log.
        """
        log = self.logs / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
        self._started[name] = process
        give_up = time.monotonic() + seconds
        while not ready():
            if process.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"airflow-demo: {name} did not start: see {log}")
            time.sleep(0.5)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [child for child, parent in parents.items() if parent == pid]
    return [one for child in found for one in (child, *descendants(child))]


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nobody listens."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def kill_driver(named: str) -> int | None:
    """Kill the driver (the JVM of spark-submit) whose command line has this text, with no chance to clean up. Returns its process id."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if any(word.endswith("SparkSubmit") for word in words) and any(named in word for word in words):
                os.kill(int(folder.name), signal.SIGKILL)
                return int(folder.name)
    return None
