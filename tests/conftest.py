"""One Spark session for the whole test run, and a fresh warehouse for each test that asks for one."""

import os
import shutil
import sys
from pathlib import Path

import pytest

pytest_plugins = ("tests.fixtures.encoders", "tests.fixtures.detectors", "tests.fixtures.endpoints", "tests.fixtures.nights", "tests.fixtures.vision")

os.environ.setdefault("OMP_NUM_THREADS", "1")
# the main module of a worker of pytest-xdist has no file, from which pyspark concludes that it runs its own doctests
vars(sys.modules["__main__"]).setdefault("__file__", __file__)

# the tables of tests have few rows, so one partition per shuffle is enough
SMALL = {
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.python.sql.dataFrameDebugging.enabled": "false",
}


# The files that take longest come first, so that no process is left alone with one of them at the end.
LONG = ("chaos/", "enrichment/", "embedding/", "training_job/", "client/", "evaluation/", "docs/test_examples.py", "night/", "upkeep/", "robustness/",
        "catalog/")  # fmt: skip


def pytest_collection_modifyitems(items):
    def place(item):
        file = item.nodeid.removeprefix("tests/")
        return next((n for n, name in enumerate(LONG) if file.startswith(name)), len(LONG))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadfile`: a file's tests run in one process, and so do those of tests/client, which share a warehouse."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Files(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return "tests/client" if nodeid.startswith("tests/client/") else super()._split_scope(nodeid)

    config.option.loadscopereorder = False  # it would put the files with most tests first
    return Files(config, log)


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    from tgq.settings.sections import Settings
    from tgq.spark.session import open_session

    session = open_session(
        Settings.model_validate({"spark": {"master": "local[2]", "driver_memory": "2g", "shuffle_partitions": 1, "sized_for": "small"}}),
        SMALL | {"spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark-warehouse"))},
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def tables_in(spark, tmp_path_factory):
    """tables_in(folder): put empty tables there. To create ten tables takes Spark 5 s, to copy them takes none."""
    from tgq.settings.sections import WarehouseSettings
    from tgq.storage.warehouse import Warehouse

    blank = tmp_path_factory.mktemp("tables") / "warehouse"
    Warehouse(spark, WarehouseSettings(path=str(blank)))

    def put(folder):
        shutil.copytree(blank, folder, dirs_exist_ok=True)
        return Path(folder)

    return put


@pytest.fixture
def empty_tables(tables_in, tmp_path):
    """Empty tables in the test's folder `warehouse`."""
    return tables_in(tmp_path / "warehouse")


@pytest.fixture
def warehouse(spark, empty_tables):
    from tgq.settings.sections import WarehouseSettings
    from tgq.storage.warehouse import Warehouse

    return Warehouse(spark, WarehouseSettings(path=str(empty_tables)))
