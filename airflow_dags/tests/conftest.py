"""A real Airflow with a temporary home, set before anything imports airflow."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[1]
# pytest may import this file twice; the second time must use the same home
HOME = os.environ.setdefault("TGQ_AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-home-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW_CONN_SPARK_DEFAULT": '{"conn_type": "spark", "host": "local[2]", "extra": {"spark-binary": "spark-submit"}}',
}


@pytest.fixture(scope="session")
def database():
    """Airflow's tables, in sqlite."""
    subprocess.run([str(Path(sys.executable).parent / "airflow"), "db", "migrate"], check=True, capture_output=True)


@pytest.fixture(scope="session")
def dags():
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(DAGS))
    assert bag.import_errors == {} and sorted(bag.dags) == ["tgq_maintain", "tgq_nightly"]
    return bag.dags


@pytest.fixture(scope="session")
def dag(dags):
    return dags["tgq_nightly"]
