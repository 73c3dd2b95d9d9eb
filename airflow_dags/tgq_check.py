"""What the nightly DAG needs from an Airflow worker, checked within seconds and before the first spark-submit.

A finding is one line, "what was found: what to do". With the deploy mode `cluster` the driver runs elsewhere, so Python, the catalog and
the folder of the jobs are checked only in client mode, where they are this worker's own.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"
JAVA_MINIMUM = 17
SECONDS = 120  # for each program that the check starts

# name: (meaning, default; None: required). Each is an Airflow Variable `tgq_<name>`, and a parameter `<name>` of a run.
SETTINGS: dict[str, tuple[str, str | None]] = {
    "catalog": ("folder or table of the catalog", None),
    "warehouse": ("absolute folder or URI of all tables, which Spark and Airflow both reach", None),
    "project": ("folder that holds jobs/, as spark-submit sees it", None),
    "profile": ("configuration profile of the deployment", "cluster"),
    "catalog_profile": ("configuration profile of the catalog", "base"),
    "jars": ("paths of Delta's JARs, separated by commas", ""),
    "packages": ("Maven coordinates of Delta, in place of its JARs", ""),
    "whole_night": ("true: one task for the whole night, false: one for each step", "false"),
}
MASTER = re.compile(r"local(\[.+\])?|local-cluster\[.+\]|yarn|spark://[^/,]+:\d+(,[^/,]+:\d+)*|k8s://.+")
SWITCH = {"true": True, "false": False}


class Spark(NamedTuple):
    """What the connection `spark_default` says, as Airflow's provider reads it; no master where it cannot be read."""

    master: str | None = None
    deploy_mode: str | None = None
    binary: str = "spark-submit"

    @property
    def is_client(self) -> bool:
        """Whether the driver runs on this worker."""
        return self.deploy_mode != "cluster"


class Submission(NamedTuple):
    """How Delta reaches spark-submit: --jars, --packages, or neither."""

    jars: str
    packages: str


def findings(settings: Mapping[str, str | None], spark: Spark, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """All that keeps a night from running on this worker, a line each; nothing if it can run.

    Args:
        settings: the value of each name of SETTINGS; None where nothing sets it.
    """
    values = {name: settings.get(name) or default for name, (_, default) in SETTINGS.items()}
    yield from _variables(values)
    yield from _master(spark, environ)
    submit = list(_spark_submit(spark, environ))
    yield from submit
    yield from _warehouse(values["warehouse"])
    if spark.is_client:
        yield from _folders(values)
        if not submit:
            yield from _python(values, environ)


def submission(settings: Mapping[str, str | None], spark: Spark, environ: Mapping[str, str] = os.environ) -> Submission:
    """What a run says of Delta, or by default: in client mode the JARs that `tgq jars` prints, otherwise Delta's Maven coordinates.

    An empty text counts as said: the cluster has the JARs.

    Raises:
        RuntimeError: `tgq jars` fails; the message is its line.
    """
    jars, packages = settings.get("jars"), settings.get("packages")
    if jars is not None or packages is not None:
        return Submission(jars or "", packages or "")
    if not spark.is_client:
        return Submission("", DELTA)
    printed, problem = _tgq(driver_python(environ), environ, "jars")
    if problem:
        raise RuntimeError(problem)
    return Submission(printed.strip(), "")


def driver_python(environ: Mapping[str, str]) -> str:
    """The Python that spark-submit starts the driver with: as Spark's own defaults say, else as the environment says."""
    home = spark_home(environ)
    conf = Path(environ.get("SPARK_CONF_DIR") or (home or Path()) / "conf") / "spark-defaults.conf"
    lines = conf.read_text().splitlines() if conf.is_file() else []
    said = dict(parts for line in lines if len(parts := re.split(r"[\s=]+", line.strip(), maxsplit=1)) == 2)
    named = (said.get("spark.pyspark.driver.python"), said.get("spark.pyspark.python"), environ.get("PYSPARK_DRIVER_PYTHON"), environ.get("PYSPARK_PYTHON"))
    return next((name for name in named if name), "python3")


def spark_home(environ: Mapping[str, str], binary: str = "spark-submit") -> Path | None:
    """The installation of Spark that spark-submit uses: SPARK_HOME, or the one that it finds; None if it finds none."""
    if environ.get("SPARK_HOME"):
        return Path(environ["SPARK_HOME"])
    found = shutil.which(binary, path=environ.get("PATH"))
    if not found:
        return None
    script = Path(found).parent / "find_spark_home.py"  # beside the spark-submit of the package pyspark
    if not script.is_file():
        return Path(found).resolve().parents[1]
    python = environ.get("PYSPARK_DRIVER_PYTHON") or environ.get("PYSPARK_PYTHON") or "python3"
    printed, problem = _output([python, str(script)], environ)
    return None if problem or not printed.strip() else Path(printed.strip())


def _variables(values: Mapping[str, str | None]) -> Iterator[str]:
    for name, value in values.items():
        if value is None:
            yield (f"neither the Variable tgq_{name} nor the parameter {name} is set: "
                   f"run `airflow variables set tgq_{name} VALUE`, the {SETTINGS[name][0]}")  # fmt: skip
    if values["whole_night"] not in SWITCH:
        yield f"the Variable tgq_whole_night is '{values['whole_night']}': set it to true or false"
    if values["jars"] and any(":" in jar and "://" not in jar for jar in str(values["jars"]).split(",")):
        yield f"the Variable tgq_jars is '{values['jars']}', which are Maven coordinates: set tgq_packages to them, or tgq_jars to what `tgq jars` prints"


def _master(spark: Spark, environ: Mapping[str, str]) -> Iterator[str]:
    if spark.master is None:
        return
    if not MASTER.fullmatch(spark.master):
        yield (f"the connection spark_default names the master '{spark.master}': "
               "give it a host such as local[*], spark://HOST with the port 7077, k8s://https://HOST, or yarn")  # fmt: skip
    elif spark.master == "yarn" and not (environ.get("HADOOP_CONF_DIR") or environ.get("YARN_CONF_DIR")):
        yield ("the connection spark_default names the master yarn, which is Airflow's default, and neither HADOOP_CONF_DIR nor YARN_CONF_DIR is set: "
               "set one of them, or give the connection your own master")  # fmt: skip
    elif spark.master.startswith("spark://"):
        addresses = spark.master.removeprefix("spark://").split(",")
        problems = [problem for address in addresses if (problem := _unreachable(address))]
        if len(problems) == len(addresses):
            yield f"no Spark master answers at {spark.master} ({problems[0]}): start it, or correct the connection spark_default"


def _unreachable(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _spark_submit(spark: Spark, environ: Mapping[str, str]) -> Iterator[str]:
    found = shutil.which(spark.binary, path=environ.get("PATH"))
    if not found:
        yield (f"there is no {spark.binary} on the PATH of this Airflow worker ({environ.get('PATH', '')}): "
               "add the folder bin of tgq's environment, or that of SPARK_HOME")  # fmt: skip
        return
    home = spark_home(environ, spark.binary)
    if home is None or _spark_version(home) is None:
        where = f"SPARK_HOME is {environ['SPARK_HOME']}" if environ.get("SPARK_HOME") else f"SPARK_HOME is not set, and {found} finds {home}"
        yield f"{where}, where there is no Spark: set SPARK_HOME to the folder that holds Spark's bin and jars"
    java = str(Path(environ["JAVA_HOME"], "bin", "java")) if environ.get("JAVA_HOME") else "java"
    printed, problem = _output([java, "-version"], environ)
    version = re.search(r'version "(?:1\.)?(\d+)', printed)
    if problem or not version:
        yield f"{java} does not run ({problem or 'it names no version'}): install a Java runtime {JAVA_MINIMUM} or newer, or set JAVA_HOME to its folder"
    elif int(version[1]) < JAVA_MINIMUM:
        yield f"{java} is Java {version[1]}: install a Java runtime {JAVA_MINIMUM} or newer, or set JAVA_HOME to its folder"


def _spark_version(home: Path) -> str | None:
    """The version of an installation of Spark, by the name of its largest part; None if there is none."""
    found = [match[1] for jar in home.glob("jars/spark-core_*.jar") if (match := re.search(r"_[\d.]+-(\d+\.\d+)", jar.name))]
    return found[0] if found else None


def _warehouse(path: str | None) -> Iterator[str]:
    if not path:
        return
    if "://" not in path:
        folder = Path(path)
        if not folder.is_absolute():
            yield f"the Variable tgq_warehouse is the relative path {path}: give an absolute folder or a URI"
            return
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            yield f"{existing} is no folder that this worker may write to, and the Variable tgq_warehouse is {path}: give another, or correct its permissions"
        return
    from airflow.sdk import ObjectStoragePath

    try:
        ObjectStoragePath(path).exists()
    except Exception as error:  # of the store's own client
        said = (str(error).splitlines() or [""])[0][:200]
        yield (f"Airflow cannot read the warehouse {path}, where the gate leaves its verdict ({type(error).__name__}: {said}): "
               "install the provider of this store (Amazon's for s3 and s3a, Google's for gs) and give it the store's credentials")  # fmt: skip


def _folders(values: Mapping[str, str | None]) -> Iterator[str]:
    project, catalog = values["project"], values["catalog"]
    if project and "://" not in project and not Path(project, "jobs", "ingest_catalog.py").is_file():
        yield f"there is no jobs/ingest_catalog.py in {project}: set the Variable tgq_project to the checkout of tgq, which holds jobs/"
    if catalog and "://" not in catalog and not Path(catalog).exists():
        yield f"there is no catalog {catalog}: set the Variable tgq_catalog to an existing folder or table"


def _python(values: Mapping[str, str | None], environ: Mapping[str, str]) -> Iterator[str]:
    """Whether the driver's Python has tgq and the pyspark of this Spark, and whether tgq accepts the settings."""
    python, home = driver_python(environ), spark_home(environ)
    remedy = "set PYSPARK_PYTHON to the Python of tgq's environment"
    if not shutil.which(python, path=environ.get("PATH")):
        yield f"the Python of the driver is {python}, which does not exist: {remedy}"
        return
    printed, problem = _output([python, "-c", "import importlib.metadata as m, tgq; print('pyspark', m.version('pyspark'))"], environ)
    if problem:
        shown = "" if environ.get("PYSPARK_PYTHON") else " (PYSPARK_PYTHON is not set)"
        yield f"the Python of the driver, {shutil.which(python, path=environ.get('PATH'))}{shown}, cannot import tgq ({problem}): {remedy}"
        return
    has, spark = re.search(r"pyspark (\d+\.\d+)", printed), home and _spark_version(home)
    if not has or has[1] != spark:
        yield f"{python} has pyspark {has[1] if has else '(unknown)'}, but Spark in {home} is {spark}: set SPARK_HOME to a Spark of this version"
        return
    named = [part for name in ("catalog", "warehouse") if values[name] for part in (f"--{name}", str(values[name]))]
    profiles = ["--conf", str(values["catalog_profile"]), "--conf", str(values["profile"])]
    _, problem = _tgq(python, environ, "config", "show", *profiles, *named)
    if problem:
        yield f"tgq does not accept the profiles '{values['catalog_profile']}' (tgq_catalog_profile) and '{values['profile']}' (tgq_profile): {problem}"


def _tgq(python: str, environ: Mapping[str, str], *arguments: str) -> tuple[str, str]:
    """What a command of tgq prints, and its error; an empty one if it succeeds."""
    printed, problem = _output([python, "-c", "import sys; from tgq.cli.app import main; main(sys.argv[1:])", *arguments], environ)
    return printed, problem.removeprefix("tgq: ")


def _output(command: list[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """What a program prints (its errors too, if it succeeds without output), and the last line of its error; an empty one if it succeeds."""
    try:
        # not in the present folder, where Python would find modules by chance
        ended = subprocess.run(command, env=dict(environ), cwd="/", capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS} s"
    except OSError as error:
        return "", error.strerror or str(error)
    if ended.returncode:
        return "", ((ended.stderr + ended.stdout).strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:400]
    return ended.stdout or ended.stderr, ""
