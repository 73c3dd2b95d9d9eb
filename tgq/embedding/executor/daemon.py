"""The parent of Spark's Python workers on an executor. For jobs that embed it imports torch once, and all workers are forked with it.

Without it each worker imports torch and transformers by itself, and a worker that was idle for a minute is replaced by a new one: 10 s of
a core and 300 MB of memory for each. Spark starts this module in place of `pyspark.daemon` (`spark.python.daemon.module`).
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import socket
from threading import Thread

from pyspark import SparkContext, daemon
from pyspark.sql import SparkSession

PRELOAD = "TGQ_PRELOAD"  # workers whose functions have this in their environment get a parent of their own


@contextmanager
def preloaded(context: SparkContext, wanted: bool = True) -> Iterator[None]:
    """Python functions that are handed to Spark in this block run in workers that have torch already, if that is wanted."""
    if not wanted:
        yield
        return
    context.environment[PRELOAD] = "1"
    try:
        yield
    finally:
        del context.environment[PRELOAD]


def start_workers(spark: SparkSession) -> Thread | None:
    """Let Spark on this machine start the parent of the embedding workers in the background, so that embedding does not wait for its imports.

    On a cluster it does nothing: a job of one task would start the parent on one of the executors only.

    Returns:
        The thread that waits for it; None on a cluster.
    """
    if not (spark.sparkContext.master or "").startswith("local"):
        return None
    with preloaded(spark.sparkContext):
        nothing = spark.range(1, numPartitions=1).mapInArrow(lambda batches: batches, "id long")

    def run() -> None:
        with suppress(Exception):  # where no worker can start, the embed step raises the error
            nothing.collect()

    thread = Thread(target=run, name="start-workers", daemon=True)
    thread.start()
    return thread


def _adapt_workers() -> None:
    """Keep a worker's garbage collector away from what its first task imported and loaded, and end an idle worker without a message.

    Spark collects garbage between the tasks of a worker. Going through the objects of torch and transformers takes a quarter of a second
    each time, several times as long as a task of text-only items. When Spark closes the connection of a worker that was idle for a minute,
    the worker's last flush fails on a Unix socket.
    """
    run_task, frozen = daemon.worker, False

    def worker(sock: socket, authenticated: bool) -> int:
        nonlocal frozen
        try:
            code = run_task(sock, authenticated)
        except BrokenPipeError:  # Spark is not listening any more, and reports a failed task by itself
            return 1
        if not frozen:
            gc.collect()  # garbage that is frozen would stay
            gc.freeze()
            frozen = True
        return code

    daemon.worker = worker


def _preload() -> None:
    import transformers.modeling_utils  # noqa: F401

    import tgq.encoder.model  # noqa: F401

    gc.freeze()  # also spares the workers a copy of the pages that a collection would write to


if __name__ == "__main__":
    if os.environ.get(PRELOAD):
        _preload()
    _adapt_workers()
    daemon.manager()
