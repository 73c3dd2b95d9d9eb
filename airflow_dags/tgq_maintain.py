"""The weekly upkeep DAG: one spark-submit of `tgq maintain`.

It reads the Variables tgq_warehouse, tgq_project, tgq_profile, tgq_jars and tgq_packages, as the nightly DAG does. While a night runs, the warehouse is
locked; the task is then tried again.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import DAG
from tgq_check import DELTA

with DAG(
    dag_id="tgq_maintain",
    description="Removes what nights leave behind and no kept generation needs",
    doc_md=__doc__,
    schedule="0 14 * * 0",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "tgq", "retries": 6, "retry_delay": timedelta(minutes=30), "execution_timeout": timedelta(hours=6)},
    tags=["tgq", "upkeep"],
) as dag:
    SparkSubmitOperator(
        task_id="maintain",
        name="tgq-maintain-{{ ds_nodash }}",
        application="{{ var.value.tgq_project }}/jobs/maintain.py",
        jars="{{ var.value.get('tgq_jars', '') }}",
        packages=f"{{{{ var.value.get('tgq_packages', '' if var.value.get('tgq_jars', '') else '{DELTA}') }}}}",
        conf={"spark.driver.defaultJavaOptions": "-Dlog4j2.configurationFile=file:{{ var.value.tgq_project }}/jobs/log4j2.properties"},
        application_args=["--conf", "{{ var.value.get('tgq_profile', 'cluster') }}", "--warehouse", "{{ var.value.tgq_warehouse }}"],
    )
