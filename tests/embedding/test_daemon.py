"""The parent of the embedding workers is started ahead of them, and workers do not look through what they have loaded after each task."""

import gc
import socket

import psutil
import pyarrow as pa

from tgq.embedding.executor import daemon
from tgq.embedding.executor.daemon import PRELOAD, preloaded, start_workers


def parents():
    """Process ids of the parents that import torch for their workers. Spark starts one for each environment of a Python function."""
    found = set()
    for process in psutil.process_iter(["cmdline"]):
        if "tgq.embedding.executor.daemon" in (process.info["cmdline"] or ()):
            above = [p.pid for p in process.parents()]
            if psutil.Process().pid in above and process.parent().name() == "java" and PRELOAD in process.environ():
                found.add(process.pid)
    return found


def test_embedding_finds_the_parent_that_was_started_ahead(spark):
    start_workers(spark).join()
    [started] = parents()
    with preloaded(spark.sparkContext):
        rows = spark.range(1, numPartitions=1).mapInArrow(lambda batches: batches, "id long")
    rows.write.format("noop").mode("overwrite").save()
    assert parents() == {started}


def test_after_its_first_task_a_worker_leaves_what_is_loaded_to_no_garbage_collection(spark):
    def frozen(batches):
        for batch in batches:
            yield pa.RecordBatch.from_pydict({"n": [gc.get_freeze_count()] * batch.num_rows})

    counts = [row["n"] for row in spark.range(8, numPartitions=8).mapInArrow(frozen, "n long").collect()]
    assert max(counts) > 10_000, "objects of pyspark, pyarrow and numpy"


def test_a_worker_that_spark_has_left_ends_without_a_stack_trace(monkeypatch, capfd):
    ours, theirs = socket.socketpair()

    def idle(sock, authenticated):
        """What pyspark does when its input ends: it flushes."""
        with sock.makefile("wb") as out:
            out.write(b"end")
        return 0

    monkeypatch.setattr(daemon.daemon, "worker", idle)
    daemon._adapt_workers()
    theirs.close()
    with ours:
        assert daemon.daemon.worker(ours, True) == 1, "the parent then ends the process"
    assert capfd.readouterr().err == ""
