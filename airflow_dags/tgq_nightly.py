"""The nightly DAG: one spark-submit per step of `tgq nightly`, the quality gate as a branch, and assets for whoever comes after.

Deployment settings are Airflow Variables; a manual run may override each by the parameter of the same name:

    tgq_catalog          folder or table of the catalog                    (required)
    tgq_warehouse        folder or URI that Spark and Airflow both reach   (required)
    tgq_project          folder with jobs/, as spark-submit sees it        (required)
    tgq_profile          conf/ profile or YAML file of the deployment      (cluster)
    tgq_catalog_profile  conf/ profile or YAML file of the catalog         (base)
    tgq_packages         Maven coordinates for spark-submit; an empty value where the cluster has Delta's JARs

Spark's master and deploy mode come from the connection `spark_default`.

All steps of a night share one run id, so a step that is retried or cleared goes on where it stopped. The gate: `evaluate`
exits 0 whatever the verdict and writes it into the warehouse; exit codes do not survive every deploy mode, and a refused night
is no failure to retry. The branch reads that file wherever the Airflow worker runs (an object store needs its Airflow
provider). `publish` checks the verdict again for itself, so a mistake here cannot publish a refused night.
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

ITEM_EMBEDDINGS = Asset("tgq_item_embeddings", uri="tgq://warehouse/item_embeddings")  # of a night under way
RETRIEVAL_METRICS = Asset("tgq_retrieval_metrics", uri="tgq://warehouse/retrieval_metrics")
ITEM_NEIGHBORS = Asset("tgq_item_neighbors", uri="tgq://warehouse/item_neighbors")
PUBLISHED_INDEX = Asset("tgq_published_index", uri="tgq://warehouse/index")  # schedule on this to follow good nights only
REFUSED_NIGHT = Asset("tgq_refused_night", uri="tgq://warehouse/refused")  # schedule on this to be told of bad ones


def night_id(run_id: str) -> str:
    """Airflow's run id as one that can name a folder: no colon, no plus, at most 120 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", run_id)[-120:].lstrip("._-")


def setting(name: str, default: str | None = None) -> str:
    """A template: the run's parameter, else the Variable `tgq_<name>`, else the default (none: the task says what is missing)."""
    variable = f"var.value.tgq_{name}" if default is None else f"var.value.get('tgq_{name}', {default!r})"
    return f"{{{{ params.{name} or {variable} }}}}"


RUN = "{{ run_id | night_id }}"
VERDICT = f"{setting('warehouse')}/reports/{RUN}/evaluate.json"


def step(task_id: str, job: str, *options: str, **kwargs) -> SparkSubmitOperator:
    """One step of the night: `spark-submit jobs/<job>.py` with what all steps have in common."""
    return SparkSubmitOperator(
        task_id=task_id,
        name=f"tgq-{task_id}-{RUN}",
        application=f"{setting('project')}/jobs/{job}.py",
        packages=setting("packages", DELTA),
        # the deployment's profile comes last: `base` again would undo it
        application_args=[
            "--conf", setting("catalog_profile", "base"), "--conf", setting("profile", "cluster"),
            "--catalog", setting("catalog"), "--warehouse", setting("warehouse"), "--run-id", RUN, *options,
        ],
        **kwargs,
    )  # fmt: skip


def read_verdict(path: str, run: str) -> dict:
    """The gate's verdict of a run, {"passed": bool, "reasons": [str]}, from the summary that `evaluate` wrote.

    Raises:
        AirflowFailException: the file is of another run or holds no verdict; nothing is published on a guess.
    """
    summary = json.loads(ObjectStoragePath(path).read_text())
    gate = summary.get("gate")
    if summary.get("run_id") != run or not isinstance(gate, dict) or not isinstance(gate.get("passed"), bool):
        raise AirflowFailException(f"{path} holds no verdict of run {run}: clear the task `evaluate`")
    return gate


def choose(path: str, run: str) -> str:
    """The branch: `publish` when the gate passed, else `refused`."""
    return "publish" if read_verdict(path, run)["passed"] else "refused"


def tell(path: str, run: str):
    """Say why the night was refused, in the log and as an event of the asset `tgq_refused_night`."""
    reasons = read_verdict(path, run).get("reasons", [])
    logging.getLogger(__name__).warning("night %s was refused, the last good generation stays: %s", run, "; ".join(reasons))
    yield Metadata(REFUSED_NIGHT, extra={"run_id": run, "reasons": reasons})


with DAG(
    dag_id="tgq_nightly",
    description="Catalog to item embeddings, neighbours and FAISS shards, measured on the full pool, published behind a gate",
    doc_md=__doc__,
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,  # a night reads the catalog as it is now: there is nothing to catch up with
    max_active_runs=1,
    max_active_tasks=1,  # a warehouse is held by one step at a time
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
    },
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
    # the same data fails the same expectations: once more is for a lost executor
    validate_catalog = step("validate_catalog", "validate", "--suite", "catalog", retries=1)
    embed = step("embed", "embed_catalog", outlets=[ITEM_EMBEDDINGS], execution_timeout=timedelta(hours=12))
    validate_embeddings = step("validate_embeddings", "validate", "--suite", "embeddings", retries=1)
    index = step("index", "build_index")
    neighbors = step("neighbors", "build_neighbors")
    evaluate = step("evaluate", "evaluate_retrieval", "--no-fail", "--summary", VERDICT, outlets=[RETRIEVAL_METRICS])
    gate = BranchPythonOperator(task_id="gate", python_callable=choose, op_kwargs={"path": VERDICT, "run": RUN})
    publish = step("publish", "publish", outlets=[ITEM_NEIGHBORS, PUBLISHED_INDEX])
    refused = PythonOperator(task_id="refused", python_callable=tell, op_kwargs={"path": VERDICT, "run": RUN}, outlets=[REFUSED_NIGHT])
    report = step("report", "report", trigger_rule="none_failed_min_one_success")

    ingest >> validate_catalog >> embed >> validate_embeddings >> [index, neighbors] >> evaluate >> gate >> [publish, refused] >> report
