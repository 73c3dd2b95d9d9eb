"""The class archive: classes of Spark and Delta that the JVM maps into memory instead of loading and verifying them one by one.

A short session spends a quarter of the JVM's time on loading classes. Java's class data sharing (JEP 350) keeps the classes that one run
has loaded in a file, from which later runs start. `tgq setup` makes the archive once per machine, 200 MB in the local cache. The JVM
ignores an archive that does not fit its class path, so a session never depends on it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark

from tgq.spark.jars import delta_jars, java_text
from tgq.storage.paths import cache_folder

RECORD = "TGQ_RECORD_CLASSES"  # a session with this variable writes the archive to the file that it names, when its JVM ends
KEPT = 3
QUIET = "-Xlog:cds=off -Xlog:cds+dynamic=off -Xlog:class+path=off"  # an archive that does not fit is no news


def archive_file() -> Path:
    """The archive's place. Its name is a hash of Java's version and of the JARs, so an update of either makes another one.

    Raises:
        MachineError: Java or the Delta JARs are missing.
    """
    jars = [*sorted((Path(pyspark.__file__).parent / "jars").glob("*.jar")), *delta_jars()]
    parts = [java_text(), *(f"{jar} {jar.stat().st_size} {jar.stat().st_mtime_ns}" for jar in jars)]
    return cache_folder() / f"classes-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:16]}.jsa"


def archive_options() -> str:
    """Options of a JVM that starts from the archive, or that records it; empty if there is none."""
    if recorded := os.environ.get(RECORD):
        return f'{QUIET} -XX:ArchiveClassesAtExit="{recorded}"'
    file = archive_file()
    return f'{QUIET} -XX:SharedArchiveFile="{file}"' if file.is_file() else ""


def record_archive() -> str | None:
    """Make the archive, unless it is there: open a session, use Delta tables, and keep the classes. Takes about a minute.

    The KEPT newest archives stay, because each environment on a machine has one of its own.

    Returns:
        None, or why there is no archive: what Java printed.

    Raises:
        MachineError: Java or the Delta JARs are missing.
    """
    file = archive_file()
    if file.is_file():
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        made = Path(scratch) / "classes.jsa"
        # the JVM inherits the pipes, so this waits until it has ended and the archive is complete
        command = [sys.executable, "-m", "tgq.spark.class_workload", str(Path(scratch) / "tables")]
        ended = subprocess.run(command, env=os.environ | {RECORD: str(made)}, capture_output=True, text=True, check=False)
        if ended.returncode or not made.is_file():
            return ((ended.stderr + ended.stdout).strip().splitlines() or ["nothing"])[-1][:300]
        made.rename(file)
        newest_first = sorted(file.parent.glob("classes-*.jsa"), key=lambda archive: archive.stat().st_mtime, reverse=True)
        for older in newest_first[KEPT:]:
            older.unlink()
    return None
