"""The lock of a warehouse: one process writes at a time.

A local or mounted warehouse is locked by the operating system, which releases the lock of a killed process. A warehouse on an
object store is not locked; the scheduler must run one process at a time, as the Airflow DAG does.
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

from tgq.errors import LockedError


@contextlib.contextmanager
def warehouse_lock(root: str) -> Iterator[None]:
    """Lock the warehouse until the block ends.

    Raises:
        LockedError: another process has locked it; the message names the process and the time.
    """
    if "://" in root:
        yield
        return
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
