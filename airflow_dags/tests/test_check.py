"""What the task `check` finds on a worker: each missing or wrong thing is one line, before any spark-submit."""

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from tgq_check import DELTA, Spark, Submission, findings, spark_home, submission

PROJECT = Path(__file__).parents[2]
LOCAL = Spark("local[2]", None, "spark-submit")
CLUSTER = Spark("local[2]", "cluster", "spark-submit")


@pytest.fixture
def settings(tmp_path):
    """Settings with which a night can run."""
    (tmp_path / "catalog").mkdir()
    return {
        "catalog": str(tmp_path / "catalog"), "warehouse": str(tmp_path / "new" / "warehouse"), "project": str(PROJECT),
        "profile": "local", "catalog_profile": "catalogs/demo",
    }  # fmt: skip


def program(folder, name, text):
    """A program of this name in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod((folder / name).stat().st_mode | stat.S_IEXEC)
    return folder / name


def only(found):
    [line] = found
    assert "\n" not in line and ": " in line
    return line


def test_a_worker_with_all_that_a_night_needs(settings, worker):
    assert list(findings(settings, LOCAL, worker)) == []


@pytest.mark.parametrize("name", ["catalog", "warehouse", "project"])
def test_a_missing_variable(settings, worker, name):
    line = only(findings(settings | {name: None}, LOCAL, worker))
    assert line.startswith(f"neither the Variable tgq_{name} nor the parameter {name} is set") and f"airflow variables set tgq_{name}" in line


def test_an_empty_variable_is_a_missing_one(settings, worker):
    assert "tgq_project" in only(findings(settings | {"project": ""}, LOCAL, worker))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("whole_night", "maybe", "tgq_whole_night is 'maybe': set it to true or false"),
        ("warehouse", "relative/folder", "tgq_warehouse is the relative path relative/folder"),
        ("warehouse", "/etc/hostname/warehouse", "/etc/hostname is no folder that this worker may write to"),
        ("warehouse", "nowhere://bucket/tgq", "Airflow cannot read the warehouse nowhere://bucket/tgq"),
        ("project", "/nowhere", "there is no jobs/ingest_catalog.py in /nowhere"),
        ("catalog", "/nowhere/catalog", "there is no catalog /nowhere/catalog"),
        ("jars", "io.delta:delta-spark_4.2_2.13:4.4.0", "which are Maven coordinates: set tgq_packages"),
        ("profile", "loca", "there is no profile 'loca': choose one of"),
        ("catalog_profile", "/nowhere/shop.yaml", "/nowhere/shop.yaml: no such file"),
    ],
)
def test_a_wrong_variable(settings, worker, name, value, said):
    assert said in only(findings(settings | {name: value}, LOCAL, worker))


def test_a_profile_with_an_error_is_named_with_its_key(settings, worker, tmp_path):
    (tmp_path / "shop.yaml").write_text("embed:\n  task_itemz: 3\n")
    line = only(findings(settings | {"catalog_profile": str(tmp_path / "shop.yaml")}, LOCAL, worker))
    assert "embed.task_itemz" in line and "(tgq_catalog_profile)" in line


def test_no_spark_submit_on_the_path(settings, worker, tmp_path):
    line = only(findings(settings, LOCAL, worker | {"PATH": str(tmp_path)}))
    assert line.startswith(f"there is no spark-submit on the PATH of this Airflow worker ({tmp_path})")


def test_a_spark_home_without_spark(settings, worker, tmp_path):
    line = only(findings(settings, LOCAL, worker | {"SPARK_HOME": str(tmp_path)}))
    assert line.startswith(f"SPARK_HOME is {tmp_path}, where there is no Spark: set SPARK_HOME")


def test_without_spark_home_it_is_that_of_the_python_of_tgq(settings, worker):
    without = {name: value for name, value in worker.items() if name != "SPARK_HOME"}
    assert spark_home(without) == Path(worker["SPARK_HOME"]) and list(findings(settings, LOCAL, without)) == []


def test_without_spark_home_and_python_spark_is_looked_for_where_there_is_none(settings, worker, tmp_path):
    """As it is where the environment of Airflow comes first on the PATH."""
    without = {name: value for name, value in worker.items() if name not in ("SPARK_HOME", "PYSPARK_PYTHON")}
    program(tmp_path / "bin", "python3", f'exec "{sys.executable}" "$@"')
    line = only(findings(settings, LOCAL, without | {"PATH": f"{tmp_path / 'bin'}:{worker['PATH']}"}))
    assert line.startswith("SPARK_HOME is not set, and ") and "where there is no Spark" in line


def test_a_python_without_tgq(settings, worker):
    line = only(findings(settings, LOCAL, worker | {"PYSPARK_PYTHON": sys.executable}))
    assert f"{sys.executable}, cannot import tgq (ModuleNotFoundError: No module named 'tgq'): set PYSPARK_PYTHON" in line


def test_a_python_that_does_not_exist(settings, worker):
    assert "the driver is /nowhere/python, which does not exist" in only(findings(settings, LOCAL, worker | {"PYSPARK_PYTHON": "/nowhere/python"}))


def test_the_python_of_spark_s_own_defaults_counts_first(settings, worker, tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "spark-defaults.conf").write_text("# ours\nspark.pyspark.python   /nowhere/of-the-defaults\n")
    assert "/nowhere/of-the-defaults" in only(findings(settings, LOCAL, worker | {"SPARK_CONF_DIR": str(tmp_path / "conf")}))


def test_a_spark_of_another_version_than_pyspark(settings, worker, tmp_path):
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "spark-core_2.13-3.5.1.jar").write_bytes(b"")
    line = only(findings(settings, LOCAL, worker | {"SPARK_HOME": str(tmp_path)}))
    assert f"but Spark in {tmp_path} is 3.5" in line


@pytest.mark.parametrize(("text", "said"), [("exit 1", "does not run"), ("echo 'openjdk version \"11.0.2\"' >&2", "is Java 11")])
def test_java_that_does_not_run_or_is_too_old(settings, worker, tmp_path, text, said):
    program(tmp_path / "jdk" / "bin", "java", text)
    line = only(findings(settings, LOCAL, worker | {"JAVA_HOME": str(tmp_path / "jdk")}))
    assert said in line and "Java runtime 17 or newer" in line


@pytest.mark.parametrize("master", ["spark:host:7077", "host:7077", "spark://host", "mesos://host:5050"])
def test_a_master_that_spark_does_not_know(settings, worker, master):
    assert f"names the master '{master}'" in only(findings(settings, LOCAL._replace(master=master), worker))


def test_airflow_s_default_connection_is_no_cluster(settings, worker):
    without = {name: value for name, value in worker.items() if name not in ("HADOOP_CONF_DIR", "YARN_CONF_DIR")}
    assert "which is Airflow's default" in only(findings(settings, Spark("yarn", None, "spark-submit"), without))


def test_a_master_that_does_not_answer(settings, worker):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        silent = LOCAL._replace(master=f"spark://127.0.0.1:{port}")
        assert f"no Spark master answers at spark://127.0.0.1:{port}" in only(findings(settings, silent, worker))
        unused.listen()
        assert list(findings(settings, silent, worker)) == []


def test_without_a_connection_the_rest_is_checked(settings, worker):
    assert list(findings(settings, Spark(), worker)) == []
    assert "tgq_project" in only(findings(settings | {"project": None}, Spark(), worker))


def test_in_cluster_mode_only_what_is_this_worker_s_own_is_looked_at(settings, worker):
    elsewhere = settings | {"project": "/of/the/driver", "catalog": "/of/the/driver", "profile": "/of/the/driver.yaml"}
    assert list(findings(elsewhere, CLUSTER, worker | {"PYSPARK_PYTHON": "/of/the/driver"})) == []
    assert "tgq_catalog" in only(findings(elsewhere | {"catalog": None}, CLUSTER, worker))


def test_all_that_is_wrong_is_said_at_once(worker, tmp_path):
    found = list(findings({}, Spark("yarn", None, "spark-submit"), {"PATH": str(tmp_path)}))
    assert len(found) == 5 and [name for name in ("catalog", "warehouse", "project") if any(f"tgq_{name}" in line for line in found)]


def test_delta_comes_as_the_jars_that_tgq_prints(worker):
    found = submission({}, LOCAL, worker)
    jars = found.jars.split(",")
    assert found.packages == "" and any("delta-spark" in jar for jar in jars) and all(os.path.isfile(jar) for jar in jars)


@pytest.mark.parametrize(
    ("said", "spark", "expected"),
    [
        ({}, CLUSTER, Submission("", DELTA)),
        ({"jars": "/a.jar,/b.jar"}, LOCAL, Submission("/a.jar,/b.jar", "")),
        ({"packages": "x:y:1"}, LOCAL, Submission("", "x:y:1")),
        ({"jars": "/a.jar", "packages": "x:y:1"}, CLUSTER, Submission("/a.jar", "x:y:1")),
        ({"packages": ""}, LOCAL, Submission("", "")),
    ],
)
def test_what_a_run_says_of_delta_is_taken(said, spark, expected):
    assert submission(said, spark, {}) == expected


def test_jars_that_cannot_be_had_are_an_error_in_one_line(worker, tmp_path):
    broken = worker | {"JAVA_HOME": str(tmp_path), "TGQ_CACHE": str(tmp_path / "cache")}
    with pytest.raises(RuntimeError, match="no Java found .*: install a Java runtime"):
        submission({}, LOCAL, broken)
