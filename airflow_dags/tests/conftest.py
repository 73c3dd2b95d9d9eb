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
sys.path.append(str(DAGS))  # as Airflow does with its DAG folder


@pytest.fixture(scope="session")
def worker():
    """The environment of an Airflow worker with all that a night needs: tgq's environment beside Airflow's own."""
    tgq = Path(os.path.abspath(os.environ.get("TGQ_VENV", DAGS.parent / ".venv")), "bin")
    assert (tgq / "spark-submit").is_file(), f"there is no spark-submit in {tgq}: set TGQ_VENV to an environment with tgq, as `make test-airflow` does"
    home = subprocess.run([tgq / "python", "-c", "import pyspark; print(pyspark.__path__[0])"], check=True, capture_output=True, text=True).stdout.strip()
    return dict(os.environ) | {"SPARK_HOME": home, "PYSPARK_PYTHON": str(tgq / "python"), "PATH": f"{Path(sys.executable).parent}:{tgq}:{os.environ['PATH']}"}


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
