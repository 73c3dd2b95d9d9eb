"""A lease on a warehouse where the operating system cannot lock: on an object store, or in a folder that several machines mount.

Claims are numbered files in `_lease/`. Who wants the warehouse creates the next number, which the store allows once (conditional put), and
the newest claim holds the lease. Its holder renews it in the background. A claim that is not renewed for `seconds` may be followed by the
next one: clocks may differ, so whoever follows watches the claim first, and withdraws if it was renewed after all.

Before a holder publishes it renews its claim and looks for a newer one (`need`). As a follower creates its claim first and then looks
whether the old one was renewed, one of the two sees the other, and no two processes publish. What remains is a holder that stops for longer
than `seconds` between this look and the write that follows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Literal

from tgq.errors import LockedError, WarehouseError
from tgq.storage.files import Files

FOLDER = "_lease"
BEATS = 6  # renewals in the time after which a claim ends
WATCHED = 2  # of these a follower waits for
KEPT = 10  # newest claims that stay as a record


@dataclass(frozen=True)
class Claim:
    """One claim: who made it, and how often it was renewed. `renewed` is in seconds since 1970 by the clock of its holder."""

    number: int
    holder: str
    process: int
    host: str
    since: str
    seconds: float
    beat: int
    renewed: float
    state: Literal["held", "released", "withdrawn"] = "held"

    @property
    def who(self) -> str:
        """The holder in words."""
        return f"process {self.process} on {self.host} since {self.since}"


class Lease:
    """A claim of this process on a warehouse, renewed by a thread of its own until it is released."""

    def __init__(self, root: str, claim: Claim):
        self.root, self._files, self._claim = root, Files(root), claim
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat, name="tgq-lease", daemon=True)
        self._thread.start()

    def need(self) -> None:
        """Check that the lease is still this process's, and renew it, so that nobody else can take it for its whole time.

        Raises:
            LockedError: another process has taken it.
        """
        with self._lock:
            self._claim = dataclasses.replace(self._claim, beat=self._claim.beat + 1, renewed=time.time())
            _write(self._files, self._claim)
            newest = _newest(self._files, _numbers(self._files))
        if newest is not None and newest.holder != self._claim.holder:
            raise LockedError(
                f"this process has lost its lease of the warehouse {self.root} to {newest.who}",
                "nothing was published; wait for that process to end, and run the same command again",
            )

    def release(self) -> None:
        """End the lease, so that the next process need not wait. If that fails it ends by itself."""
        self._ended.set()
        self._thread.join(timeout=self._claim.seconds)
        with contextlib.suppress(Exception):  # an error of the block is the one to show
            _write(self._files, dataclasses.replace(self._claim, state="released"))

    def _beat(self) -> None:
        while not self._ended.wait(self._claim.seconds / BEATS):
            try:
                self.need()
            except LockedError:
                return  # the next `need` of the night says so
            except Exception:
                continue  # the store may answer again at the next beat


@contextlib.contextmanager
def lease(root: str, seconds: float) -> Iterator[Lease]:
    """Hold the lease of a warehouse until the block ends.

    Args:
        root: folder or URI of the warehouse.
        seconds: after which a claim that is not renewed may be followed.

    Raises:
        LockedError: another process holds it; the message names it.
        WarehouseError: the store does not refuse to create a file that exists.
    """
    held = Lease(root, _take(root, seconds))
    try:
        yield held
    finally:
        held.release()


def _take(root: str, seconds: float) -> Claim:
    files = Files(root)
    numbers = _numbers(files)  # one look: a claim that appears from here on has the number that this one asks for
    before, number = _newest(files, numbers), max([0, *numbers]) + 1
    if before is not None and before.state == "held":
        _need_ended(root, files, before)
    now = datetime.now(timezone.utc)
    mine = Claim(number, uuid.uuid4().hex, os.getpid(), socket.gethostname(), f"{now:%Y-%m-%d %H:%M:%S} UTC", seconds, 0, now.timestamp())
    if not files.create(_path(number), _bytes(mine)) and _read(files, number) != mine:
        raise _in_use(root, _newest(files, _numbers(files)))
    if files.create(_path(number), _bytes(mine)):
        raise WarehouseError(
            f"the store of {root} replaces a file that it was told to create, so it cannot keep two nights apart",
            "set warehouse.lock to none, and let the scheduler run one night at a time",
        )
    if before is not None and before.state == "held" and _read(files, before.number) != before:
        _write(files, dataclasses.replace(mine, state="withdrawn"))
        raise _in_use(root, before)
    for old in numbers[:-KEPT]:
        files.remove(_path(old))
    return mine


def _need_ended(root: str, files: Files, claim: Claim) -> None:
    """Check that a claim has ended: by the clock, and because it is not renewed while we watch."""
    if time.time() < claim.renewed + claim.seconds:
        raise _in_use(root, claim)
    time.sleep(WATCHED * claim.seconds / BEATS)
    if _read(files, claim.number) != claim:
        raise _in_use(root, claim)


def _in_use(root: str, claim: Claim | None) -> LockedError:
    found = f"the warehouse {root} is in use by {claim.who if claim else 'another process'}"
    ends = f"; if it was killed, its lease ends {claim.seconds:.0f} s after its last renewal" if claim else ""
    return LockedError(found, f"wait for that run to end, or stop it{ends}")


def _newest(files: Files, numbers: Sequence[int]) -> Claim | None:
    """The newest of these claims that was not withdrawn; None if there is none."""
    found = (_read(files, number) for number in reversed(numbers))
    return next((claim for claim in found if claim is not None and claim.state != "withdrawn"), None)


def _numbers(files: Files) -> list[int]:
    """The numbers of all claims, rising."""
    return sorted(int(name.removesuffix(".json")) for name in files.list(FOLDER) if name.removesuffix(".json").isdigit())


def _read(files: Files, number: int) -> Claim | None:
    try:
        return Claim(**json.loads(files.read(_path(number))))
    except FileNotFoundError:
        return None  # an old one, which another process has just removed
    except (TypeError, ValueError):
        raise WarehouseError(f"{files.root}/{_path(number)} is no claim of a lease", "remove this file if no night is running") from None


def _write(files: Files, claim: Claim) -> None:
    files.write(_path(claim.number), _bytes(claim))


def _bytes(claim: Claim) -> bytes:
    return json.dumps(asdict(claim), indent=1).encode()


def _path(number: int) -> str:
    return f"{FOLDER}/{number:012d}.json"
