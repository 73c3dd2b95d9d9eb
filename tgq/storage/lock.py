"""The lock of a warehouse: one process writes at a time.

A local or mounted warehouse is locked by the operating system, which releases the lock of a killed process. On an object store a lease
does the same (`lease.py`), which ends some time after its process was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from tgq.errors import LockedError
from tgq.settings.sections import WarehouseSettings
from tgq.storage.lease import lease
from tgq.storage.paths import absolute


class Lock(Protocol):
    """A lock that this process holds."""

    def need(self) -> None:
        """Check that it is still held, before a write that readers will see.

        Raises:
            LockedError: another process has taken it.
        """


class Kept:
    """A lock that nothing can take away, and that of a caller who sees to it that no other process writes."""

    def need(self) -> None:
        """Nothing to check."""


@contextlib.contextmanager
def warehouse_lock(settings: WarehouseSettings) -> Iterator[Lock]:
    """Lock the warehouse until the block ends, in the way that `warehouse.lock` says.

    Raises:
        LockedError: another process has locked it; the message names the process and the time.
    """
    root, kind = absolute(settings.path), settings.lock
    if kind == "auto":
        kind = "lease" if "://" in root else "file"
    if kind == "none":
        yield Kept()
    elif kind == "lease":
        with lease(root, settings.lease_seconds) as held:
            yield held
    else:
        with _file_lock(root):
            yield Kept()


@contextlib.contextmanager
def _file_lock(root: str) -> Iterator[None]:
    with open(Path(root) / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise LockedError(f"the warehouse {root} is in use by {_holder(file.read())}", "wait for that run to end, or stop it") from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"}))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(text: str) -> str:
    with contextlib.suppress(ValueError, KeyError):
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    return "another process"
