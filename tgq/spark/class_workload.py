"""What the class archive is recorded from: a session that creates, reads, appends to and merges into tables, as a night does."""

from __future__ import annotations

import sys

from tgq.settings.sections import Settings
from tgq.spark.session import open_session
from tgq.storage.warehouse import TABLES, Warehouse

PAIR = ("a", "b", "group", 1.0, "test", "g", None)  # a row of relevance_pairs


def use_tables(folder: str) -> None:
    """Open a session, use the tables of a new warehouse in `folder`, and close the session."""
    spark = open_session(Settings.model_validate({"spark": {"master": "local[2]", "driver_memory": "1g", "sized_for": "small"}}))
    warehouse = Warehouse(spark, Settings.model_validate({"warehouse": {"path": folder}}).warehouse)
    for name in TABLES:
        warehouse.read(name).count()
    rows = spark.createDataFrame([PAIR], warehouse.read("relevance_pairs").schema)
    warehouse.append(rows, "relevance_pairs")
    warehouse.upsert(rows, "relevance_pairs", ("query_item_id",))
    rows.mapInArrow(lambda batches: batches, rows.schema).write.parquet(f"{folder}/_staging")
    read = spark.read.parquet(f"{folder}/_staging").join(warehouse.read("relevance_pairs"), "query_item_id", "left")
    read.groupBy("query_item_id").count().collect()
    spark.stop()


if __name__ == "__main__":
    use_tables(sys.argv[1])
