"""One Spark session for the whole test run, and a fresh warehouse for each test that asks for one."""

import os

import pytest

pytest_plugins = ("tests.fixtures.encoders", "tests.fixtures.nights")

os.environ.setdefault("OMP_NUM_THREADS", "1")

# The tables of tests have few rows, so most of Spark's time goes into planning and into the JVM's compilers: nearly half of it with the
# optimising compiler, which pays only for long runs. One partition per shuffle is enough.
SMALL = {
    "spark.driver.extraJavaOptions": "-XX:+UseParallelGC -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m",
    "spark.sql.codegen.cache.maxEntries": "4000",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    from tgq.settings.sections import Settings
    from tgq.storage.session import open_session

    session = open_session(
        Settings.model_validate({"spark": {"master": "local[2]", "driver_memory": "2g", "shuffle_partitions": 1}}),
        SMALL | {"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse"))},
    )
    yield session
    session.stop()


@pytest.fixture
def warehouse(spark, tmp_path):
    from tgq.settings.sections import WarehouseSettings
    from tgq.storage.warehouse import Warehouse

    return Warehouse(spark, WarehouseSettings(path=str(tmp_path / "warehouse")))
