"""Imports of slow libraries while the program waits for something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread


@contextmanager
def importing(*imports: Callable[[], object]) -> Iterator[None]:
    """Call functions that import libraries, on another thread during the block. The block should wait, as for the start of a JVM, and
    import nothing itself.

    A library that cannot be imported is left to the code that needs it, which then raises the error.
    """

    def run() -> None:
        for one in imports:
            with suppress(Exception):
                one()

    thread = Thread(target=run, name="imports", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
