"""The nightly DAG: one spark-submit per step of `tgq nightly`, the quality gate as a branch, and assets for downstream DAGs.

The settings are Airflow Variables. A run can override each by a parameter of the same name without the prefix `tgq_`:

    tgq_catalog          folder or table of the catalog                    (required)
    tgq_warehouse        folder or URI that Spark and Airflow both reach   (required)
    tgq_project          folder with jobs/, as spark-submit sees it        (required)
    tgq_profile          conf/ profile or YAML file of the deployment      (cluster)
    tgq_catalog_profile  conf/ profile or YAML file of the catalog         (base)
    tgq_packages         Maven coordinates for spark-submit; empty if the cluster has the Delta JARs

The parameter `accept_catalog_change` publishes one planned change of the catalog that the gate would refuse; the verdict records it.

Spark's master and deploy mode come from the connection `spark_default`.

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

from airflow.exceptions import AirflowFailException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.python import BranchPythonOperator, PythonOperator
from airflow.sdk import DAG, Asset, Metadata, ObjectStoragePath, Param

DELTA = "io.delta:delta-spark_4.2_2.13:4.4.0"

ITEM_EMBEDDINGS = Asset("tgq_item_embeddings", uri="tgq://warehouse/item_embeddings")  # changes during a run, before the gate
RETRIEVAL_METRICS = Asset("tgq_retrieval_metrics", uri="tgq://warehouse/retrieval_metrics")
ITEM_NEIGHBORS = Asset("tgq_item_neighbors", uri="tgq://warehouse/item_neighbors")
PUBLISHED_INDEX = Asset("tgq_published_index", uri="tgq://warehouse/index")  # schedule on this to follow published runs
REFUSED_NIGHT = Asset("tgq_refused_night", uri="tgq://warehouse/refused")  # schedule on this to follow refused runs


def night_id(run_id: str) -> str:
    """Airflow's run id as a valid run id of tgq: letters, digits and - _ . only, at most 120 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id)[-120:].lstrip("._-")


def setting(name: str, default: str | None = None) -> str:
    """A template for the run's parameter, or the Variable `tgq_<name>`, or the default. Without a default the Variable is required."""
    variable = f"var.value.tgq_{name}" if default is None else f"var.value.get('tgq_{name}', {default!r})"
    return f"{{{{ params.{name} or {variable} }}}}"


RUN = "{{ run_id | night_id }}"
ACCEPT = "gate.catalog_change.accept={{ 'true' if params.accept_catalog_change else 'false' }}"
VERDICT = f"{setting('warehouse')}/reports/{RUN}/evaluate.json"


def step(task_id: str, job: str, *options: str, **kwargs) -> SparkSubmitOperator:
    """A task that runs `spark-submit jobs/<job>.py` with the options that all steps share."""
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"tgq-{task_id}-{RUN}",
        application=f"{setting('project')}/jobs/{job}.py",
        packages=setting("packages", DELTA),
        # the deployment's profile comes last, because `base` after it would reset its values
        application_args=[
            "--conf", setting("catalog_profile", "base"), "--conf", setting("profile", "cluster"),
            "--catalog", setting("catalog"), "--warehouse", setting("warehouse"), "--run-id", RUN, *options,
        ],
        **kwargs,
    )  # fmt: skip


def read_verdict(path: str, run: str) -> dict:
    """The gate's verdict on a run, {"passed": bool, "reasons": [str]}, from the summary that `evaluate` wrote.

    Raises:
        AirflowFailException: the file is of another run or holds no verdict.
    """
    summary = json.loads(ObjectStoragePath(path).read_text())
    gate = summary.get("gate")
    if summary.get("run_id") != run or not isinstance(gate, dict) or not isinstance(gate.get("passed"), bool):
        raise AirflowFailException(f"{path} holds no verdict of run {run}: clear the task `evaluate`")
    return gate


def next_task(path: str, run: str) -> str:
    """The branch after the gate: `publish` if it passed, otherwise `refused`."""
    return "publish" if read_verdict(path, run)["passed"] else "refused"


def report_refusal(path: str, run: str):
    """Write the reasons for the refusal to the log and to an event of the asset `tgq_refused_night`."""
    reasons = read_verdict(path, run).get("reasons", [])
    logging.getLogger(__name__).warning("the gate refused run %s, so the last generation stays published: %s", run, "; ".join(reasons))
    yield Metadata(REFUSED_NIGHT, extra={"run_id": run, "reasons": reasons})


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
        name: Param(None, type=["null", "string"], description=f"{text}; empty: Variable tgq_{name}")
        for name, text in {
            "catalog": "folder or table of the catalog",
            "warehouse": "absolute folder or URI of all tables",
            "project": "folder that holds jobs/",
            "profile": "configuration profile of the deployment",
            "catalog_profile": "configuration profile of the catalog",
            "packages": "Maven coordinates of Delta",
        }.items()
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
    ingest = step("ingest", "ingest_catalog")
    # failed expectations fail again; the retry is for a lost executor
    validate_catalog = step("validate_catalog", "validate", "--suite", "catalog", retries=1)
    enrich = step("enrich", "enrich", execution_timeout=timedelta(hours=12))  # does nothing unless the profile enables it
    embed = step("embed", "embed_catalog", outlets=[ITEM_EMBEDDINGS], execution_timeout=timedelta(hours=12))
    validate_embeddings = step("validate_embeddings", "validate", "--suite", "embeddings", retries=1)
    index = step("index", "build_index")
    neighbors = step("neighbors", "build_neighbors")
    evaluate = step("evaluate", "evaluate_retrieval", "--no-fail", "--summary", VERDICT, "--set", ACCEPT, outlets=[RETRIEVAL_METRICS])
    gate = BranchPythonOperator(task_id="gate", python_callable=next_task, op_kwargs={"path": VERDICT, "run": RUN})
    publish = step("publish", "publish", outlets=[ITEM_NEIGHBORS, PUBLISHED_INDEX])
    refused = PythonOperator(task_id="refused", python_callable=report_refusal, op_kwargs={"path": VERDICT, "run": RUN}, outlets=[REFUSED_NIGHT])
    report = step("report", "report", trigger_rule="none_failed_min_one_success")

    ingest >> validate_catalog >> enrich >> embed >> validate_embeddings >> [index, neighbors] >> evaluate >> gate >> [publish, refused] >> report
