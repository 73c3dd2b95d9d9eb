"""The interface through which a step reports its progress, and a thread that shows it again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a step."""

    def start(self, label: str, total: int) -> None: ...
    def update(self, done: int, note: str = "") -> None: ...
    def finish(self) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    """Reports nothing."""

    def start(self, label: str, total: int) -> None: ...
    def update(self, done: int, note: str = "") -> None: ...
    def finish(self) -> None: ...
    def say(self, line: str) -> None: ...


@contextmanager
def repeated(show: Callable[[], None], seconds: float = 0.5) -> Iterator[None]:
    """Call `show` from a thread every so many seconds while the block runs, and once after it, also if it fails."""
    ended = threading.Event()

    def loop() -> None:
        while not ended.wait(seconds):
            show()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        show()
