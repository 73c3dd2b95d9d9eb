"""The parent of Spark's Python workers on an executor. For jobs that embed it imports torch once, and all workers are forked with it.

Without it each worker imports torch and transformers by itself, and a worker that was idle for a minute is replaced by a new one: 10 s of
a core and 300 MB of memory for each. Spark starts this module in place of `pyspark.daemon` (`spark.python.daemon.module`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark import SparkContext, daemon

PRELOAD = "TGQ_PRELOAD"  # workers whose functions have this in their environment get a parent of their own


@contextmanager
def preloaded(context: SparkContext) -> Iterator[None]:
    """Python functions that are handed to Spark in this block run in workers that have torch already."""
    context.environment[PRELOAD] = "1"
    try:
        yield
    finally:
        del context.environment[PRELOAD]


def _preload() -> None:
    import transformers.modeling_utils  # noqa: F401

    import tgq.encoder.model  # noqa: F401


if __name__ == "__main__":
    if os.environ.get(PRELOAD):
        _preload()
    daemon.manager()
