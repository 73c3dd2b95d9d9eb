"""Errors of the operating system and of libraries as one line: what was found and what to do."""

import errno

import pytest
from deltalake.exceptions import DeltaError
from pyspark.errors import PythonException

from tgq.cli.failures import known_error
from tgq.errors import SourceError

TASK = "Job aborted due to stage failure: Task 0 in stage 7.0 failed 4 times, most recent failure: {}\n\tat org.apache.spark.Executor.run(Executor.scala:1)\n"


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space left on device", "/w/reports"), "/w/reports: No space left on device: check the path, its permissions and the free"),
    (PythonException(TASK.format("org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device")), "a disk is full: make room where"),
    (DeltaError("Generic LocalFileSystem error: Unable to copy data to file: No space left on device (os error 28)"), "a disk is full: make room where"),
    (PythonException(TASK.format("java.lang.OutOfMemoryError: Java heap space")), "the JVM has no memory left: raise spark.driver_memory"),
    (PythonException(TASK.format("numpy._core._exceptions._ArrayMemoryError: Unable\nMemoryError")), "a Python worker has no memory left: lower embed.batch"),
    (PythonException(TASK.format("org.apache.spark.SparkException: Python worker exited unexpectedly (crashed)")), "a Python worker has ended each time"),
    (PythonException(TASK.format("Traceback:\n  tgq.errors.SourceError: a.csv: no such file: name another\n")), "a.csv: no such file: name another"),
])  # fmt: skip
def test_a_failure_that_a_user_can_act_on_is_one_line(error, said):
    line = known_error(error)
    assert line.startswith(said) and "\n" not in line


@pytest.mark.parametrize("error", [PythonException(TASK.format("ZeroDivisionError")), ValueError("No space left on device"), SourceError("a", "b")])
def test_any_other_error_is_not_explained(error):
    assert known_error(error) is None
