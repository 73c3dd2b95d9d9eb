"""Errors of Spark, Hadoop and tgq's readers on executors as one-line SourceErrors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from tgq.errors import SourceError

_OURS = re.compile(r"^(?:\s*pyspark\S* )?tgq\.errors\.SourceError: (.*)$", re.MULTILINE)


@contextmanager
def reading(path: str | None) -> Iterator[None]:
    """Raise errors of Spark and Hadoop in this block as SourceError."""
    try:
        yield
    except (PySparkException, Py4JError) as e:
        if ours := reader_error(e):
            raise ours from e
        raise SourceError(f"the catalog {path} cannot be read: {first_line(e)}", "check the path, catalog.format and the file") from e


def reader_error(error: Exception) -> SourceError | None:
    """The error that tgq's own reader raised on an executor, from the text in which Spark wraps it."""
    found = _OURS.findall(str(error))
    return SourceError(" ".join(found[-1].split())) if found else None


def first_line(error: Exception) -> str:
    """The message of a JVM error, without class names and stack trace."""
    text = str(getattr(error, "java_exception", None) or error)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\tat")] or [type(error).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    said = re.sub(r"^(\[[A-Z_.]+\] |[\w.$]+(Exception|Error): )+", "", " ".join((causes[-1] if causes else lines[0]).split()))
    return said[:240]
