"""Opens the SparkSession with Delta Lake."""

from __future__ import annotations

import locale
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from tgq.errors import MachineError
from tgq.settings.sections import Settings
from tgq.spark.class_archive import archive_options
from tgq.spark.jars import delta_jars, java_version, s3a_jars, s3a_package
from tgq.spark.object_stores import s3a_conf, schemes
from tgq.spark.sizing import CONF, JVM, is_small

DELTA_CLASS = "io.delta.sql.DeltaSparkSessionExtension"
CLASS_PATH = "spark.driver.extraClassPath"


def _need_delta() -> None:
    """Check that Delta is on the class path. Under spark-submit it is fixed before Python starts, so JARs cannot be added here."""
    SparkContext._ensure_initialized()
    assert SparkContext._jvm is not None  # set by the call above
    try:
        SparkContext._jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(DELTA_CLASS)
    except Py4JJavaError:
        raise MachineError(
            "the Delta JARs are not on the class path of this spark-submit", 'submit with --jars "$(tgq jars)", or with --packages'
        ) from None


def _brings_s3a(conf: Mapping[str, str]) -> bool:
    """Whether the settings or this pyspark name Hadoop's client of s3a:// themselves."""
    named = " ".join(str(value) for key, value in conf.items() if key.startswith("spark.jars") or key.endswith("extraClassPath"))
    return "hadoop-aws" in named or "hadoop-cloud" in named or any((Path(pyspark.__file__).parent / "jars").glob("hadoop-aws-*.jar"))


def _need_clients(session: SparkSession, settings: Settings) -> None:
    """Check that Hadoop has a client for each kind of store that the settings name."""
    assert session._jvm is not None  # an open session has one
    for scheme in schemes(settings):
        try:
            session._jvm.org.apache.hadoop.fs.FileSystem.getFileSystemClass(scheme, session._jsc.hadoopConfiguration())
        except Py4JJavaError:
            session.stop()
            client = f"name {s3a_package() if scheme == 's3a' else 'one for its Hadoop'} in spark.jars.packages, or give its JARs"
            raise MachineError(f"Spark has no client for {scheme}:// addresses", "write s3a:// in place of s3://" if scheme == "s3" else client) from None


def _speak_utf8() -> None:
    """Let the JVM and its Python workers use UTF-8 if the locale is C or POSIX: their ASCII would lose letters of paths and titles.

    Python itself uses UTF-8 there. A JVM takes its encoding of file names from the environment when it starts, and from nothing else.
    """
    if locale.nl_langinfo(locale.CODESET) in ("ANSI_X3.4-1968", "US-ASCII", "646"):
        os.environ["LC_ALL"] = "C.UTF-8"


def open_session(settings: Settings, extra: dict[str, str] | None = None) -> SparkSession:
    """Open a session with Delta's extensions, or join that of spark-submit. With `warehouse.metastore_schema` it uses Hive's metastore.

    Shuffle partitions default to twice the parallelism, because a small MERGE takes 13 s with Spark's default of 200.

    Args:
        extra: further Spark options.

    Raises:
        MachineError: Java, the Delta JARs, or Hadoop's client of an object store that the settings name are missing.
    """
    uses_s3a = "s3a" in schemes(settings)
    metastore, spark, small = settings.warehouse.metastore_schema is not None, settings.spark, is_small(settings)
    java_version()
    _speak_utf8()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(spark.app_name)
    local = re.fullmatch(r"local(\[.*\])?", spark.master or "") is not None  # local-cluster has JVMs of its own
    jars = [str(jar) for jar in [*delta_jars(), *(s3a_jars() if local and uses_s3a and not _brings_s3a(spark.conf) else ())]]
    if local:
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ  # spark-submit started the JVM, so master and memory are fixed
    defaults = {
        "spark.sql.extensions": DELTA_CLASS,
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        # a local JVM is its own executor; the class archive has classes of the class path, not of JARs that are added later
        **({CLASS_PATH: os.pathsep.join([*filter(None, [spark.conf.get(CLASS_PATH)]), *jars])} if local else {"spark.jars": ",".join(jars)}),
        "spark.scheduler.mode": "FAIR",  # the commit of embedded items does not wait for the tasks that embed the next ones
        "spark.python.daemon.module": "tgq.embedding.executor.daemon",
        "spark.python.unix.domain.socket.enabled": "true",  # over TCP every third small task waits 40 ms for a delayed acknowledgement
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "256",  # rows may carry image bytes
        "spark.sql.session.timeZone": "UTC",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.databricks.delta.schema.autoMerge.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "8",
        "spark.driver.extraJavaOptions": " ".join(filter(None, ("-XX:+UseParallelGC", JVM if small else "", archive_options() if local else ""))),
        "spark.sql.catalogImplementation": "hive" if metastore else "in-memory",
    } | (CONF if small else {}) | (s3a_conf() if uses_s3a else {})
    if submitted:
        _need_delta()
    else:
        defaults["spark.driver.memory"] = spark.driver_memory
        if spark.master:
            builder = builder.master(spark.master)
    own = {key: value for key, value in spark.conf.items() if not (local and key == CLASS_PATH)}
    for key, value in (defaults | own | (extra or {})).items():
        if submitted and key in ("spark.jars", CLASS_PATH, "spark.driver.extraJavaOptions") and key not in spark.conf:
            continue
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    _need_clients(session, settings)
    partitions = spark.shuffle_partitions or 2 * session.sparkContext.defaultParallelism
    session.conf.set("spark.sql.shuffle.partitions", partitions)
    return session


def is_alive(spark: SparkSession) -> bool:
    """Whether the session can still run jobs: its JVM answers, and its context was not stopped, as a cluster does with an application that it ends."""
    try:
        return not spark.sparkContext._jsc.sc().isStopped()
    except Exception:  # py4j raises several kinds for a JVM that is gone
        return False
