"""One Spark session for the whole test run, and a fresh warehouse for each test that asks for one."""

import os

import pytest

pytest_plugins = ("tests.fixtures.encoders", "tests.fixtures.nights")

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    from tgq.settings.sections import Settings
    from tgq.storage.session import open_session

    session = open_session(
        Settings.model_validate({"spark": {"master": "local[2]", "driver_memory": "2g", "shuffle_partitions": 2}}),
        {"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse"))},
    )
    yield session
    session.stop()


@pytest.fixture
def warehouse(spark, tmp_path):
    from tgq.settings.sections import WarehouseSettings
    from tgq.storage.warehouse import Warehouse

    return Warehouse(spark, WarehouseSettings(path=str(tmp_path / "warehouse")))
