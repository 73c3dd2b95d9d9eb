"""Rows of the files of queries in the quarantine of a run."""

from __future__ import annotations

import functools

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from tgq.catalog.examine import MISSING
from tgq.catalog.identity import MAX_ID
from tgq.queries.inputs import CLICKS, JUDGMENTS, QUERIES
from tgq.run.night import Night
from tgq.storage.warehouse import sql_string

STAGES = (QUERIES, JUDGMENTS, CLICKS)


def write_quarantine(night: Night, *refused: DataFrame) -> None:
    """Write a run's refused rows in one commit, in place of those of an earlier attempt of the same run. None now and none before: no commit.

    Args:
        refused: frames that have rows: stage, item_id (of queries the query's id), reason, detail, fields.
    """
    if not refused:
        _replace(night, night.warehouse.read("quarantine").limit(0), False)
        return
    item = F.coalesce(F.substring("item_id", 1, MAX_ID), F.lit(MISSING))
    same = Window.partitionBy("stage", "item_id").orderBy("reason", "fields")
    rows = functools.reduce(DataFrame.unionByName, refused).withColumn("item_id", item).withColumns({
        "occurrence": F.row_number().over(same) - 1, "source_fingerprint": F.lit(None).cast("string"),
    })  # fmt: skip
    _replace(night, rows, True)


def carry_quarantine(night: Night, run_id: str) -> None:
    """Repeat the rows of an earlier run whose files were the same, so that each run's quarantine is whole."""
    if run_id == night.run_id:
        return
    there = night.warehouse.has_rows("quarantine", {"run_id": run_id, "stage": STAGES})
    _replace(night, night.warehouse.read("quarantine").where((F.col("run_id") == run_id) & F.col("stage").isin(*STAGES)), there)


def _replace(night: Night, rows: DataFrame, any_rows: bool) -> None:
    warehouse = night.warehouse
    if not any_rows and not warehouse.has_rows("quarantine", {"run_id": night.run_id, "stage": STAGES}):
        return
    whole = rows.withColumns({"run_id": F.lit(night.run_id), "quarantined_at": F.current_timestamp()})
    condition = f"run_id = {sql_string(night.run_id)} AND stage IN ({', '.join(map(sql_string, STAGES))})"
    whole.select(*warehouse.read("quarantine").columns).write.format("delta").mode("overwrite") \
        .option("replaceWhere", condition).saveAsTable(warehouse.qualified("quarantine"))  # fmt: skip
