"""The nightly DAG: one spark-submit per step of `tgq nightly`, or one for the whole night, the quality gate as a branch, and assets for
downstream DAGs.

The settings are Airflow Variables. A run can override each by a parameter of the same name without the prefix `tgq_`:

    tgq_catalog          folder or table of the catalog                    (required)
    tgq_warehouse        folder or URI that Spark and Airflow both reach   (required)
    tgq_project          folder with jobs/, as spark-submit sees it        (required)
    tgq_profile          conf/ profile or YAML file of the deployment      (cluster)
    tgq_catalog_profile  conf/ profile or YAML file of the catalog         (base)
    tgq_jars             paths of Delta's JARs                             (what `tgq jars` prints)
    tgq_packages         Maven coordinates in place of the JARs; empty if the cluster has them
    tgq_whole_night      true: one task for the whole night                (false)

The parameter `accept_catalog_change` publishes one planned change of the catalog that the gate would refuse; the verdict records it.

Spark's master and deploy mode come from the connection `spark_default`.

The task `check` looks for all of this on the worker before the first spark-submit, and says in a line what is missing or wrong.

All steps of a run have the same run id, so a step that is retried or cleared continues where it stopped.

The gate: `evaluate` exits 0 with any verdict and writes the verdict to the warehouse, because some deploy modes lose exit codes, and
because a refused run must not be retried. The branch reads that file from the Airflow worker; on an object store this needs the
store's Airflow provider. `publish` checks the verdict itself, so a refused run cannot be published.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timedelta, timezone

from airflow.providers.apache.spark.hooks.spark_submit import SparkSubmitHook
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, Asset, BaseHook, Metadata, ObjectStoragePath, Param, TaskGroup, Variable
from tgq_check import SETTINGS, SWITCH, Spark, findings, submission

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 3.0
    from airflow.exceptions import AirflowException, AirflowFailException

ITEM_EMBEDDINGS = Asset("tgq_item_embeddings", uri="tgq://warehouse/item_embeddings")  # changes during a run, before the gate
RETRIEVAL_METRICS = Asset("tgq_retrieval_metrics", uri="tgq://warehouse/retrieval_metrics")
ITEM_NEIGHBORS = Asset("tgq_item_neighbors", uri="tgq://warehouse/item_neighbors")
PUBLISHED_INDEX = Asset("tgq_published_index", uri="tgq://warehouse/index")  # schedule on this to follow published runs
REFUSED_NIGHT = Asset("tgq_refused_night", uri="tgq://warehouse/refused")  # schedule on this to follow refused runs


def night_id(run_id: str) -> str:
    """Airflow's run id as a valid run id of tgq: letters, digits and - _ . only, at most 120 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id)[-120:].lstrip("._-")


def setting(name: str) -> str:
    """A template for the run's parameter, or the Variable `tgq_<name>`, or the default. Without a default the Variable is required."""
    default = SETTINGS[name][1]
    variable = f"var.value.tgq_{name}" if default is None else f"var.value.get('tgq_{name}', {default!r})"
    return f"{{{{ params.{name} or {variable} }}}}"


def found_by_check(key: str) -> str:
    """A template for what the task `check` found."""
    return f"{{{{ ti.xcom_pull(task_ids='check', key='{key}') or '' }}}}"


RUN = "{{ run_id | night_id }}"
ACCEPT = "gate.catalog_change.accept={{ 'true' if params.accept_catalog_change else 'false' }}"
VERDICT = f"{setting('warehouse')}/reports/{RUN}/evaluate.json"
UNTIL_VERDICT = ("--no-fail", "--summary", VERDICT, "--set", ACCEPT)


def step(task_id: str, job: str, *options: str, **kwargs) -> SparkSubmitOperator:
    """A task that runs `spark-submit jobs/<job>.py` with the options that all steps share."""
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"tgq-{task_id}-{RUN}",
        application=f"{setting('project')}/jobs/{job}.py",
        jars=found_by_check("jars"),
        packages=found_by_check("packages"),
        # tgq's lines without Spark's own; before spark.driver.extraJavaOptions, so that these may name another file
        conf={"spark.driver.defaultJavaOptions": f"-Dlog4j2.configurationFile=file:{setting('project')}/jobs/log4j2.properties"},
        # the deployment's profile comes last, because `base` after it would reset its values
        application_args=[
            "--conf", setting("catalog_profile"), "--conf", setting("profile"),
            "--catalog", setting("catalog"), "--warehouse", setting("warehouse"), "--run-id", RUN, *options,
        ],
        **kwargs,
    )  # fmt: skip


def check(params: dict, ti) -> str:
    """Look for what the run needs, say how Delta reaches spark-submit, and choose the first task: `ingest` or `whole.night`.

    Raises:
        AirflowFailException: something is missing or wrong. Each finding is a line of the log; the task is not tried again.
    """
    log = logging.getLogger(__name__)
    given = {name: str(params[name]) for name in SETTINGS if params.get(name) not in (None, "")}
    settings = {name: given[name] if name in given else Variable.get(f"tgq_{name}", default=None) for name in SETTINGS}
    settings["whole_night"] = (settings["whole_night"] or "false").lower()
    found, spark = [], Spark()
    try:
        BaseHook.get_connection("spark_default")
        connection = SparkSubmitHook()._connection  # as spark-submit will get it
        spark = Spark(connection["master"], connection["deploy_mode"], connection["spark_binary"])
    except (AirflowException, RuntimeError, ValueError) as error:
        found.append(f"the connection spark_default cannot be used ({error}): "
                     "run `airflow connections add spark_default --conn-type spark --conn-host MASTER`")  # fmt: skip
    found += findings(settings, spark)
    for line in found:
        log.error(line)
    if found:
        raise AirflowFailException(found[0] if len(found) == 1 else f"{len(found)} things to correct; each is a line above")
    try:
        delta = submission(settings, spark)
    except RuntimeError as error:
        raise AirflowFailException(f"Delta's JARs cannot be had ({error}), or set the Variable tgq_jars or tgq_packages") from None
    for key, value in delta._asdict().items():
        ti.xcom_push(key=key, value=value)
    log.info("Spark is %s, Delta comes by %s", spark.master, "--jars" if delta.jars else "--packages" if delta.packages else "the cluster itself")
    return "whole.night" if SWITCH[settings["whole_night"]] else "ingest"


def read_verdict(path: str, run: str) -> dict:
    """The gate's verdict on a run, {"passed": bool, "reasons": [str]}, from the summary that `evaluate` wrote.

    Raises:
        AirflowFailException: the file is of another run or holds no verdict.
    """
    summary = json.loads(ObjectStoragePath(path).read_text())
    gate = summary.get("gate")
    if summary.get("run_id") != run or not isinstance(gate, dict) or not isinstance(gate.get("passed"), bool):
        raise AirflowFailException(f"{path} holds no verdict of run {run}: clear the task that writes it, `evaluate` or `whole.night`")
    return gate


def next_task(path: str, run: str, passed: str, refused: str) -> str:
    """The branch after the gate: the task `passed`, or the task `refused`."""
    return passed if read_verdict(path, run)["passed"] else refused


def report_refusal(path: str, run: str):
    """Write the reasons for the refusal to the log and to an event of the asset `tgq_refused_night`."""
    reasons = read_verdict(path, run).get("reasons", [])
    logging.getLogger(__name__).warning("the gate refused run %s, so the last generation stays published: %s", run, "; ".join(reasons))
    yield Metadata(REFUSED_NIGHT, extra={"run_id": run, "reasons": reasons})


def gate(passed: str, refused: str) -> BranchPythonOperator:
    """A branch to the task `passed` or to the task `refused`, by the verdict."""
    return BranchPythonOperator(
        task_id="gate", python_callable=next_task, op_kwargs={"path": VERDICT, "run": RUN, "passed": passed, "refused": refused}
    )


def refusal() -> PythonOperator:
    """The task of a refused night."""
    return PythonOperator(task_id="refused", python_callable=report_refusal, op_kwargs={"path": VERDICT, "run": RUN}, outlets=[REFUSED_NIGHT])


with DAG(
    dag_id="tgq_nightly",
    description="Catalog to item embeddings, neighbours and FAISS shards, measured on the full pool, published behind a gate",
    doc_md=__doc__,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # a run reads the present catalog, so a past run cannot be repeated
    max_active_runs=1,
    max_active_tasks=1,  # a step locks the warehouse
    dagrun_timeout=timedelta(hours=20),
    user_defined_filters={"night_id": night_id},
    params={
        name: Param(None, type=["null", "boolean" if name == "whole_night" else "string"], description=f"{text}; empty: Variable tgq_{name}")
        for name, (text, _) in SETTINGS.items()
    } | {
        "accept_catalog_change": Param(
            False, type=["null", "boolean"], description="publish although the catalog changed beyond gate.catalog_change, because the change was planned"
        )
    },  # fmt: skip
    default_args={
        "owner": "tgq",
        "retries": 3,
        "retry_delay": timedelta(minutes=2),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": timedelta(hours=3),
    },
    tags=["tgq", "embeddings"],
) as dag:
    checked = BranchPythonOperator(task_id="check", python_callable=check, execution_timeout=timedelta(minutes=15))

    ingest = step("ingest", "ingest_catalog")
    # failed expectations fail again; the retry is for a lost executor
    validate_catalog = step("validate_catalog", "validate", "--suite", "catalog", retries=1)
    enrich = step("enrich", "enrich", execution_timeout=timedelta(hours=12))  # does nothing unless the profile enables it
    embed = step("embed", "embed_catalog", outlets=[ITEM_EMBEDDINGS], execution_timeout=timedelta(hours=12))
    validate_embeddings = step("validate_embeddings", "validate", "--suite", "embeddings", retries=1)
    index = step("index", "build_index")
    neighbors = step("neighbors", "build_neighbors")
    evaluate = step("evaluate", "evaluate_retrieval", *UNTIL_VERDICT, outlets=[RETRIEVAL_METRICS])
    publish = step("publish", "publish", outlets=[ITEM_NEIGHBORS, PUBLISHED_INDEX])
    report = step("report", "report", trigger_rule="none_failed_min_one_success")
    checked >> ingest >> validate_catalog >> enrich >> embed >> validate_embeddings >> [index, neighbors] >> evaluate
    evaluate >> gate("publish", "refused") >> [publish, refusal()] >> report

    with TaskGroup("whole", tooltip="the whole night in one task"):
        night = step(
            "night", "nightly", *UNTIL_VERDICT, outlets=[ITEM_EMBEDDINGS, RETRIEVAL_METRICS], execution_timeout=timedelta(hours=16)
        )
        # the night has published already; this task is for the assets
        published = EmptyOperator(task_id="published", outlets=[ITEM_NEIGHBORS, PUBLISHED_INDEX])
        checked >> night >> gate("whole.published", "whole.refused") >> [published, refusal()]
