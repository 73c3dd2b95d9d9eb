"""Errors that tgq did not raise itself and that a user can act on, each as one line: of the operating system, Spark, delta-rs and object stores."""

from __future__ import annotations

import re

from tgq.errors import TgqError
from tgq.messages import presentable

LIBRARIES = ("pyspark.", "py4j.", "deltalake.", "_internal")  # whose errors carry the text of what failed below them; delta-rs has `_internal`
AGAIN = "run the same command again"
EXHAUSTED = {
    r"No space left on device|disk is full|Disk quota exceeded": f"a disk is full: make room where the warehouse is, and where Spark has its temporary "
    f"files (SPARK_LOCAL_DIRS, or the system's), and {AGAIN}",
    r"java\.lang\.OutOfMemoryError": f"the JVM has no memory left: raise spark.driver_memory, on a cluster spark.executor.memory, and {AGAIN}",
    r"\bMemoryError\b|DefaultCPUAllocator|CUDA out of memory|Cannot allocate memory": "a Python worker has no memory left: lower embed.batch_tokens or "
    f"embed.prefetch_mb, run fewer tasks at once (spark.master), or raise spark.executor.pyspark.memory if it is set, and {AGAIN}",
    r"Python worker exited unexpectedly": "a Python worker has ended each time it was started, killed or for lack of memory: see the system's log, run fewer "
    f"tasks at once (spark.master), and {AGAIN}",
}  # fmt: skip


def known_error(error: Exception) -> str | None:
    """The one-line message of an error of the operating system, or of one that a library passes on: a TgqError of a Spark task, a full disk, too little
    memory, an object store that failed. None for other errors."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}: check the path, its permissions and the free space"
    if not type(error).__module__.startswith(LIBRARIES):
        return None
    text = str(error)
    names = "|".join(kind.__name__ for kind in TgqError.__subclasses__())
    if found := re.search(rf"^\s*tgq\.errors\.(?:{names}): (.+)$", text, re.MULTILINE):
        return found[1]
    return next((line for pattern, line in EXHAUSTED.items() if re.search(pattern, text)), None) or _store_error(text)


def _store_error(text: str) -> str | None:
    """One line about an object store that failed in the JVM, from Hadoop's stack trace; None if it was something else."""
    if "org.apache.hadoop.fs.s3a." not in text:
        return None
    said = re.findall(r"^(?:Caused by: )?[\w.]+(?:Exception|Error): (.+)$", text, re.MULTILINE)
    reason = presentable(said[-1])[:300] if said else "no reason given"
    return f"the object store failed ({reason}): check it and its credentials, and {AGAIN}"
