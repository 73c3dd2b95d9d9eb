"""Java, the Delta JARs and Hadoop's client of s3a://: finds Java, and downloads the JARs once into a local folder."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark
from pyspark.sql import SparkSession

from tgq.errors import MachineError
from tgq.storage.paths import cache_folder

JAVA_MINIMUM = 17
JAVA_HELP = "install a Java runtime 17 or newer (Debian: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"


def java_version() -> int:
    """Java's major version.

    Raises:
        MachineError: there is no Java, or it is older than 17.
    """
    java, printed = _java()
    match = re.search(r'version "(?:1\.)?(\d+)', printed)
    if not match:
        raise MachineError(f"{java} -version printed {printed.strip()[:120]!r}, which names no version", JAVA_HELP)
    if int(match[1]) < JAVA_MINIMUM:
        raise MachineError(f"Java {match[1]} at {java} is too old for Spark {pyspark.__version__}", JAVA_HELP)
    return int(match[1])


def java_text() -> str:
    """What `java -version` prints: the exact version and build.

    Raises:
        MachineError: there is no Java.
    """
    return _java()[1]


def _java() -> tuple[str, str]:
    """The path of Java, and what its `-version` prints."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not java or not Path(java).exists():
        raise MachineError(f"no Java found ({'JAVA_HOME=' + home if home else 'nothing named java on the PATH'})", JAVA_HELP)
    return java, _printed_version(java)


@functools.cache
def _printed_version(java: str) -> str:
    return subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr


def jars_folder() -> Path:
    """The folder of the Delta JARs for these versions of Spark and Delta. If it exists, it is complete."""
    from importlib.metadata import version

    return cache_folder() / f"jars-spark{pyspark.__version__}-delta{version('delta-spark')}"


def delta_jars() -> list[Path]:
    """The Delta JARs, downloaded from Maven Central on the first call.

    Ivy downloads all of Delta's dependencies. Artifacts that Spark already has are left out.

    Raises:
        MachineError: they could not be downloaded.
    """
    from delta import configure_spark_with_delta_pip

    folder = jars_folder()
    if not folder.is_dir():
        java_version()
        _resolve(configure_spark_with_delta_pip(SparkSession.builder)._options["spark.jars.packages"], folder)
    return sorted(folder.glob("*.jar"))


def hadoop_version() -> str:
    """The version of the Hadoop that pyspark brings; a client of an object store must have the same.

    Raises:
        MachineError: pyspark brings none.
    """
    for jar in (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar"):
        return jar.stem.removeprefix("hadoop-client-api-")
    raise MachineError("this pyspark brings no Hadoop", "install pyspark from its wheel, or give spark.jars.packages the client of the object store")


def s3a_package() -> str:
    """The Maven coordinates of Hadoop's client of s3a://."""
    return f"org.apache.hadoop:hadoop-aws:{hadoop_version()}"


def s3a_folder() -> Path:
    """The folder of the JARs of Hadoop's client of s3a://. If it exists, it is complete."""
    return cache_folder() / f"jars-hadoop-aws{hadoop_version()}"


def s3a_jars() -> list[Path]:
    """The JARs of Hadoop's client of s3a://, downloaded from Maven Central on the first call: 690 MB, as Amazon's library is one file.

    Raises:
        MachineError: they could not be downloaded.
    """
    folder = s3a_folder()
    if not folder.is_dir():
        java_version()
        _resolve(s3a_package(), folder)
    return sorted(folder.glob("*.jar"))


def _resolve(package: str, folder: Path) -> None:
    """Download a package with all its dependencies into a new folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        script = f"""
import sys
from pyspark.sql import SparkSession
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false") \\
    .config("spark.jars.packages", {package!r}).config("spark.jars.ivy", sys.argv[1]).getOrCreate().stop()
"""
        run = subprocess.run([sys.executable, "-c", script, scratch], capture_output=True, text=True, check=False)
        resolved = list((Path(scratch) / "jars").glob("*.jar"))
        if run.returncode or not resolved:
            lines = [line.strip() for line in run.stderr.splitlines() if "Exception" in line or "unresolved" in line]
            raise MachineError(
                f"{package} could not be downloaded from Maven Central ({lines[0] if lines else 'no reason given'})",
                f"check the network or Ivy's settings, or copy the JARs to {folder}",
            )
        present = {_artifact(p.name) for p in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
        complete = Path(scratch) / "complete"
        complete.mkdir()
        for jar in resolved:
            name = jar.name.split("_", 1)[1]  # Ivy writes organisation_artifact-version.jar
            if _artifact(name) not in present:
                shutil.copy(jar, complete / name)
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has made the same folder
                raise


def _artifact(jar: str) -> str:
    return re.sub(r"-\d.*$", "", jar)
