"""The nightly DAG under a real Airflow: its structure, the commands that it renders, and both ways through the gate."""

import ast
import json
import os
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

DAGS = Path(__file__).parents[1]
JOBS = DAGS.parent / "jobs"
AIRFLOW_RUN = "scheduled__2026-01-31T02:00:00+00:00"
RUN = "scheduled__2026-01-31T02-00-00-00-00"
STEPS = {
    "ingest": "ingest_catalog", "validate_catalog": "validate", "enrich": "enrich", "embed": "embed_catalog", "validate_embeddings": "validate",
    "index": "build_index", "neighbors": "build_neighbors", "evaluate": "evaluate_retrieval", "publish": "publish", "report": "report",
}  # fmt: skip


class Variables(dict):
    """Airflow Variables as templates see them."""

    __getattr__ = dict.__getitem__


def rendered(dag, task_id, variables=None, **params):
    """A copy of the task with its templates filled in as for a run."""
    task = dag.get_task(task_id).prepare_for_execution()
    required = {"tgq_catalog": "/data/catalog", "tgq_warehouse": "/data/warehouse", "tgq_project": "/opt/tgq"}
    context = {
        "run_id": AIRFLOW_RUN, "params": dict.fromkeys(dag.params, None) | params,
        "var": {"value": Variables(required if variables is None else variables)},
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
                assert name.split(".")[0] in {"airflow", *sys.stdlib_module_names}, f"{file.name} imports {name}"


def test_order_of_the_steps(dag):
    upstream = {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}
    assert upstream == {
        "ingest": set(), "validate_catalog": {"ingest"}, "enrich": {"validate_catalog"}, "embed": {"enrich"}, "validate_embeddings": {"embed"},
        "index": {"validate_embeddings"}, "neighbors": {"validate_embeddings"}, "evaluate": {"index", "neighbors"},
        "gate": {"evaluate"}, "publish": {"gate"}, "refused": {"gate"}, "report": {"publish", "refused"},
    }  # fmt: skip
    assert {t.task_id: type(t).__name__ for t in dag.tasks} == dict.fromkeys(STEPS, "SparkSubmitOperator") | {
        "gate": "BranchPythonOperator", "refused": "PythonOperator",
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
    }  # fmt: skip


@pytest.mark.parametrize("task_id, job", STEPS.items())
def test_every_command_names_its_job_and_the_same_run(dag, task_id, job):
    task = rendered(dag, task_id)
    assert task.application == f"/opt/tgq/jobs/{job}.py" and (JOBS / f"{job}.py").is_file()
    args = task.application_args
    assert value(args, "--run-id") == [RUN] and value(args, "--conf") == ["base", "cluster"]
    assert (value(args, "--catalog"), value(args, "--warehouse")) == (["/data/catalog"], ["/data/warehouse"])
    assert "io.delta:delta-spark" in task.packages and not any("{{" in arg for arg in args)


def test_options_of_single_steps(dag):
    assert value(rendered(dag, "validate_catalog").application_args, "--suite") == ["catalog"]
    assert value(rendered(dag, "validate_embeddings").application_args, "--suite") == ["embeddings"]
    evaluate, gate = rendered(dag, "evaluate"), rendered(dag, "gate")
    assert "--no-fail" in evaluate.application_args, "a refused run must reach the branch"
    assert value(evaluate.application_args, "--summary") == [gate.op_kwargs["path"]] == [f"/data/warehouse/reports/{RUN}/evaluate.json"]
    assert gate.op_kwargs["run"] == rendered(dag, "refused").op_kwargs["run"] == RUN


def test_parameters_of_a_run_override_variables(dag):
    task = rendered(dag, "embed", catalog="s3://b/other", profile="local", catalog_profile="catalogs/luma")
    assert value(task.application_args, "--catalog") == ["s3://b/other"]
    assert value(task.application_args, "--conf") == ["catalogs/luma", "local"]


@pytest.mark.parametrize(("given", "set_to"), [(None, "false"), (False, "false"), (True, "true")])
def test_a_planned_change_of_the_catalog_is_accepted_for_one_run(dag, given, set_to):
    task = rendered(dag, "evaluate", accept_catalog_change=given)
    assert value(task.application_args, "--set") == [f"gate.catalog_change.accept={set_to}"]


def test_upkeep_runs_once_a_week_on_the_same_warehouse(dags, dag):
    [task] = dags["tgq_maintain"].tasks
    task = task.prepare_for_execution()
    variables = Variables(tgq_warehouse="/data/warehouse", tgq_project="/opt/tgq")
    task.render_template_fields({"ds_nodash": "20260104", "var": {"value": variables}}, task.get_dag().get_template_env())
    assert task.application == "/opt/tgq/jobs/maintain.py" and Path(DAGS.parent, "jobs", "maintain.py").is_file()
    assert task.application_args == ["--conf", "cluster", "--warehouse", "/data/warehouse"]
    assert task.packages == rendered(dag, "embed").packages, "both DAGs name the same Delta"
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
    next_task = dag.get_task("gate").python_callable
    assert next_task(summary(tmp_path, True), RUN) == "publish"
    assert next_task(summary(tmp_path, False), RUN) == "refused"
    assert next_task("file://" + summary(tmp_path, True), RUN) == "publish"


def test_a_missing_verdict_is_an_error(dag, tmp_path):
    from airflow.exceptions import AirflowFailException

    next_task = dag.get_task("gate").python_callable
    with pytest.raises(AirflowFailException, match="no verdict of run"):
        next_task(summary(tmp_path, True, run="another"), RUN)
    (tmp_path / "evaluate.json").write_text(json.dumps({"run_id": RUN, "gate": None}))
    with pytest.raises(AirflowFailException):
        next_task(str(tmp_path / "evaluate.json"), RUN)
    with pytest.raises(FileNotFoundError):
        next_task(str(tmp_path / "absent.json"), RUN)


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


@pytest.mark.parametrize("passed", [True, False])
def test_airflow_runs_the_dag_on_both_sides_of_the_gate(database, dag, tmp_path, monkeypatch, passed):
    """Airflow runs the DAG; only spark-submit is replaced."""
    submit, log = tmp_path / "bin" / "spark-submit", tmp_path / "jobs.log"
    submit.parent.mkdir()
    submit.write_text(SUBMIT.format(python=sys.executable, log=str(log), passed=passed))
    submit.chmod(submit.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{submit.parent}:{os.environ['PATH']}")
    for name, text in {"catalog": "/data/catalog", "warehouse": str(tmp_path / "warehouse"), "project": str(JOBS.parent)}.items():
        monkeypatch.setenv(f"AIRFLOW_VAR_TGQ_{name.upper()}", text)
    run = dag.test(logical_date=datetime(2026, 1, 31, 2, int(passed), tzinfo=timezone.utc))
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    skipped = "refused" if passed else "publish"
    assert states == {task.task_id: "skipped" if task.task_id == skipped else "success" for task in dag.tasks}
    assert run.state == "success"
    ran = log.read_text().split()
    assert ran[:5] == ["ingest_catalog", "validate", "enrich", "embed_catalog", "validate"] and ran[-1] == "report"
    assert set(ran[5:7]) == {"build_index", "build_neighbors"} and ("publish" in ran) == passed
