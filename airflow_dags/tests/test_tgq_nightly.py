"""The nightly DAG under a real Airflow: its structure, the commands that it renders, and both ways through the gate."""

import ast
import json
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tgq_check import DELTA

DAGS = Path(__file__).parents[1]
JOBS = DAGS.parent / "jobs"
AIRFLOW_RUN = "scheduled__2026-01-31T02:00:00+00:00"
RUN = "scheduled__2026-01-31T02-00-00-00-00"
STEPS = {
    "ingest": "ingest_catalog", "validate_catalog": "validate", "enrich": "enrich", "embed": "embed_catalog", "validate_embeddings": "validate",
    "index": "build_index", "neighbors": "build_neighbors", "evaluate": "evaluate_retrieval", "publish": "publish", "report": "report",
    "whole.night": "nightly",
}  # fmt: skip


class Variables(dict):
    """Airflow Variables as templates see them."""

    __getattr__ = dict.__getitem__


class Checked(dict):
    """A task instance as templates see it, after the task `check` has pushed this."""

    def xcom_pull(self, task_ids, key):
        return {"check": self}[task_ids].get(key)


def rendered(dag, task_id, variables=None, checked=(), **params):
    """A copy of the task with its templates filled in as for a run."""
    task = dag.get_task(task_id).prepare_for_execution()
    required = {"tgq_catalog": "/data/catalog", "tgq_warehouse": "/data/warehouse", "tgq_project": "/opt/tgq"}
    context = {
        "run_id": AIRFLOW_RUN, "params": dict.fromkeys(dag.params, None) | params,
        "var": {"value": Variables(required if variables is None else variables)}, "ti": Checked(checked),
    }  # fmt: skip
    task.render_template_fields(context, task.get_dag().get_template_env())
    return task


def value(args, option):
    return [args[n + 1] for n, arg in enumerate(args[:-1]) if arg == option]


def test_imports_are_airflow_and_the_standard_library():
    for file in DAGS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in {"airflow", "tgq_check", *sys.stdlib_module_names}, f"{file.name} imports {name}"


def test_order_of_the_steps(dag):
    upstream = {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}
    assert upstream == {
        "check": set(), "ingest": {"check"}, "validate_catalog": {"ingest"}, "enrich": {"validate_catalog"}, "embed": {"enrich"},
        "validate_embeddings": {"embed"},
        "index": {"validate_embeddings"}, "neighbors": {"validate_embeddings"}, "evaluate": {"index", "neighbors"},
        "gate": {"evaluate"}, "publish": {"gate"}, "refused": {"gate"}, "report": {"publish", "refused"},
        "whole.night": {"check"}, "whole.gate": {"whole.night"}, "whole.published": {"whole.gate"}, "whole.refused": {"whole.gate"},
    }  # fmt: skip
    assert {t.task_id: type(t).__name__ for t in dag.tasks} == dict.fromkeys(STEPS, "SparkSubmitOperator") | {
        "check": "BranchPythonOperator", "gate": "BranchPythonOperator", "refused": "PythonOperator",
        "whole.gate": "BranchPythonOperator", "whole.refused": "PythonOperator", "whole.published": "EmptyOperator",
    }  # fmt: skip
    assert dag.get_task("report").trigger_rule == "none_failed_min_one_success"


def test_one_run_and_one_step_at_a_time_with_retries(dag):
    assert (dag.max_active_runs, dag.max_active_tasks, dag.catchup) == (1, 1, False)
    for task in dag.tasks:
        assert task.retries >= 1 and task.retry_exponential_backoff and task.retry_delay > timedelta(0), task.task_id
        assert timedelta(0) < task.execution_timeout < dag.dagrun_timeout and task.max_retry_delay <= timedelta(hours=1), task.task_id


def test_assets_are_outlets_of_the_tasks_that_change_them(dag):
    outlets = {task.task_id: {o.name for o in task.outlets} for task in dag.tasks if task.outlets}
    assert outlets == {
        "embed": {"tgq_item_embeddings"}, "evaluate": {"tgq_retrieval_metrics"},
        "publish": {"tgq_item_neighbors", "tgq_published_index"}, "refused": {"tgq_refused_night"},
        "whole.night": {"tgq_item_embeddings", "tgq_retrieval_metrics"},
        "whole.published": {"tgq_item_neighbors", "tgq_published_index"}, "whole.refused": {"tgq_refused_night"},
    }  # fmt: skip


@pytest.mark.parametrize("task_id, job", STEPS.items())
def test_every_command_names_its_job_and_the_same_run(dag, task_id, job):
    task = rendered(dag, task_id)
    assert task.application == f"/opt/tgq/jobs/{job}.py" and (JOBS / f"{job}.py").is_file()
    args = task.application_args
    assert value(args, "--run-id") == [RUN] and value(args, "--conf") == ["base", "cluster"]
    assert (value(args, "--catalog"), value(args, "--warehouse")) == (["/data/catalog"], ["/data/warehouse"])
    assert not any("{{" in arg for arg in args)
    assert (task.jars, task.packages) == ("", ""), "nothing checked: nothing given"


@pytest.mark.parametrize("task_id", STEPS)
def test_every_command_has_the_delta_that_the_check_found(dag, task_id):
    task = rendered(dag, task_id, checked={"jars": "/cache/a.jar,/cache/b.jar", "packages": "x:y:1"})
    assert (task.jars, task.packages) == ("/cache/a.jar,/cache/b.jar", "x:y:1")


@pytest.mark.parametrize("task_id", STEPS)
def test_every_command_prints_as_the_shipped_file_says(dag, task_id):
    assert rendered(dag, task_id).conf == {"spark.driver.defaultJavaOptions": "-Dlog4j2.configurationFile=file:/opt/tgq/jobs/log4j2.properties"}
    assert (JOBS / "log4j2.properties").is_file()


def test_options_of_single_steps(dag):
    assert value(rendered(dag, "validate_catalog").application_args, "--suite") == ["catalog"]
    assert value(rendered(dag, "validate_embeddings").application_args, "--suite") == ["embeddings"]
    for judging, group in (("evaluate", ""), ("whole.night", "whole.")):
        task, gate = rendered(dag, judging), rendered(dag, f"{group}gate")
        assert "--no-fail" in task.application_args, "a refused run must reach the branch"
        assert value(task.application_args, "--summary") == [gate.op_kwargs["path"]] == [f"/data/warehouse/reports/{RUN}/evaluate.json"]
        assert gate.op_kwargs["run"] == rendered(dag, f"{group}refused").op_kwargs["run"] == RUN


def test_parameters_of_a_run_override_variables(dag):
    task = rendered(dag, "embed", catalog="s3://b/other", profile="local", catalog_profile="catalogs/luma")
    assert value(task.application_args, "--catalog") == ["s3://b/other"]
    assert value(task.application_args, "--conf") == ["catalogs/luma", "local"]


@pytest.mark.parametrize(("given", "set_to"), [(None, "false"), (False, "false"), (True, "true")])
def test_a_planned_change_of_the_catalog_is_accepted_for_one_run(dag, given, set_to):
    for task_id in ("evaluate", "whole.night"):
        task = rendered(dag, task_id, accept_catalog_change=given)
        assert value(task.application_args, "--set") == [f"gate.catalog_change.accept={set_to}"]


@pytest.mark.parametrize(
    ("said", "jars", "packages"),
    [({}, "", DELTA), ({"tgq_jars": "/a.jar"}, "/a.jar", ""), ({"tgq_packages": ""}, "", ""), ({"tgq_packages": "x:y:1"}, "", "x:y:1")],
)
def test_upkeep_runs_once_a_week_on_the_same_warehouse(dags, said, jars, packages):
    [task] = dags["tgq_maintain"].tasks
    task = task.prepare_for_execution()
    variables = Variables(tgq_warehouse="/data/warehouse", tgq_project="/opt/tgq", **said)
    task.render_template_fields({"ds_nodash": "20260104", "var": {"value": variables}}, task.get_dag().get_template_env())
    assert task.application == "/opt/tgq/jobs/maintain.py" and Path(DAGS.parent, "jobs", "maintain.py").is_file()
    assert task.application_args == ["--conf", "cluster", "--warehouse", "/data/warehouse"]
    assert (task.jars, task.packages) == (jars, packages)
    assert "file:/opt/tgq/jobs/log4j2.properties" in task.conf["spark.driver.defaultJavaOptions"]
    assert dags["tgq_maintain"].schedule == "0 14 * * 0" and task.retries == 6, "a night may hold the warehouse"


def test_a_missing_setting_is_named(dag):
    with pytest.raises(Exception, match="tgq_project"):
        rendered(dag, "ingest", variables={"tgq_catalog": "c", "tgq_warehouse": "w"})


@pytest.mark.parametrize("run_id", [AIRFLOW_RUN, "manual run, tonight / again", "__x", "a" * 250 + ":end"])
def test_run_ids_are_valid_for_tgq(dag, run_id):
    import re

    name = dag.user_defined_filters["night_id"](run_id)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}", name)


def summary(folder, passed, run=RUN):
    path = folder / "evaluate.json"
    gate = {"passed": passed, "reasons": [] if passed else ["hit_rate@10 fell by 12 %"]}
    path.write_text(json.dumps({"run_id": run, "gate": gate}))
    return str(path)


def test_the_branch_follows_the_verdict(dag, tmp_path):
    def chosen(path, task_id="gate"):
        gate = rendered(dag, task_id)
        return gate.python_callable(**(gate.op_kwargs | {"path": path}))

    assert chosen(summary(tmp_path, True)) == "publish"
    assert chosen(summary(tmp_path, False)) == "refused"
    assert chosen("file://" + summary(tmp_path, True)) == "publish"
    assert [chosen(summary(tmp_path, passed), "whole.gate") for passed in (True, False)] == ["whole.published", "whole.refused"]


def test_a_missing_verdict_is_an_error(dag, tmp_path):
    from airflow.exceptions import AirflowFailException

    next_task = dag.get_task("gate").python_callable
    with pytest.raises(AirflowFailException, match="no verdict of run"):
        next_task(summary(tmp_path, True, run="another"), RUN, "publish", "refused")
    (tmp_path / "evaluate.json").write_text(json.dumps({"run_id": RUN, "gate": None}))
    with pytest.raises(AirflowFailException):
        next_task(str(tmp_path / "evaluate.json"), RUN, "publish", "refused")
    with pytest.raises(FileNotFoundError):
        next_task(str(tmp_path / "absent.json"), RUN, "publish", "refused")


SUBMIT = """#!{python}
# replaces spark-submit: logs the job, and writes the verdict to the file of --summary
import json, os, pathlib, sys
args = sys.argv[1:]
job = next(a for a in args if a.endswith(".py"))
with open({log!r}, "a") as log:
    log.write(pathlib.Path(job).stem + "\\n")
if "--summary" in args:
    path = pathlib.Path(args[args.index("--summary") + 1])
    path.parent.mkdir(parents=True, exist_ok=True)
    gate = {{"passed": {passed}, "reasons": ["hit_rate@10 fell"]}}
    path.write_text(json.dumps({{"run_id": args[args.index("--run-id") + 1], "gate": gate}}))
"""


@pytest.fixture
def submitting(tmp_path, monkeypatch, worker):
    """submitting(passed): a worker whose spark-submit logs the jobs, with a night's Variables. Returns the log."""

    def prepare(passed):
        submit, log = tmp_path / "bin" / "spark-submit", tmp_path / "jobs.log"
        submit.parent.mkdir()
        submit.write_text(SUBMIT.format(python=sys.executable, log=str(log), passed=passed))
        submit.chmod(submit.stat().st_mode | stat.S_IEXEC)
        for name, text in (worker | {"PATH": f"{submit.parent}:{worker['PATH']}"}).items():
            monkeypatch.setenv(name, text)
        (tmp_path / "catalog").mkdir()
        settings = {"catalog": tmp_path / "catalog", "warehouse": tmp_path / "warehouse", "project": JOBS.parent, "profile": "local"}
        for name, text in settings.items():
            monkeypatch.setenv(f"AIRFLOW_VAR_TGQ_{name.upper()}", str(text))
        return log

    return prepare


def states_of(run):
    return {ti.task_id: ti.state for ti in run.get_task_instances()}


@pytest.mark.parametrize("passed", [True, False])
def test_airflow_runs_the_dag_on_both_sides_of_the_gate(database, dag, submitting, passed):
    """Airflow runs the DAG; only spark-submit is replaced."""
    log = submitting(passed)
    run = dag.test(logical_date=datetime(2026, 1, 31, 2, int(passed), tzinfo=timezone.utc))
    skipped = {"refused" if passed else "publish", "whole.night", "whole.gate", "whole.published", "whole.refused"}
    assert states_of(run) == {task.task_id: "skipped" if task.task_id in skipped else "success" for task in dag.tasks}
    assert run.state == "success"
    ran = log.read_text().split()
    assert ran[:5] == ["ingest_catalog", "validate", "enrich", "embed_catalog", "validate"] and ran[-1] == "report"
    assert set(ran[5:7]) == {"build_index", "build_neighbors"} and ("publish" in ran) == passed


@pytest.mark.parametrize(("passed", "how"), [(True, "parameter"), (False, "variable")])
def test_airflow_runs_the_whole_night_in_one_task(database, dag, submitting, monkeypatch, passed, how):
    log = submitting(passed)
    if how == "variable":
        monkeypatch.setenv("AIRFLOW_VAR_TGQ_WHOLE_NIGHT", "True")
    conf = {"whole_night": True} if how == "parameter" else {}
    run = dag.test(logical_date=datetime(2026, 2, 1, 2, int(passed), tzinfo=timezone.utc), run_conf=conf)
    done = {"check", "whole.night", "whole.gate", "whole.published" if passed else "whole.refused"}
    assert states_of(run) == {task.task_id: "success" if task.task_id in done else "skipped" for task in dag.tasks}
    assert run.state == "success" and log.read_text().split() == ["nightly"]


def test_a_worker_that_lacks_something_submits_nothing(database, dag, submitting, monkeypatch, caplog):
    log = submitting(True)
    monkeypatch.delenv("AIRFLOW_VAR_TGQ_PROJECT")
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    run = dag.test(logical_date=datetime(2026, 2, 2, 2, tzinfo=timezone.utc))
    states = states_of(run)
    assert run.state == states.pop("check") == "failed" and set(states.values()) == {"upstream_failed"}
    assert not log.exists()
