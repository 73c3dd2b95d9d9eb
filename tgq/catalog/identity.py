"""The ids of a source's rows: which are missing, cannot be ids, or stand on several rows."""

from __future__ import annotations

import math

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from tgq.catalog.examine import MISSING
from tgq.catalog.reading.source import TASK_BYTES, Source

MAX_ID = 512  # characters
BAD_ID = f"an id with control characters, or of more than {MAX_ID} characters"
TASK_ROWS, LEAST_ROWS = 4096, 16


def with_id_reasons(frame: DataFrame, partitions: int) -> DataFrame:
    """Rows of a source (SOURCE) with `reason` and `detail` where the id is unusable, and `occurrence`, which counts the rows of an id from 0.

    A reason that a row already has stays. The shuffle by id brings together the rows that share one; all of them are refused, because
    nothing says which of them is meant.

    Args:
        partitions: of the result.
    """
    item_id = F.col("item_id")
    bad = item_id.rlike(r"\p{Cc}") | (F.length(item_id) > MAX_ID)
    hashed = [c for c in frame.columns if c != "position"]
    keyed = frame.withColumns({
        "reason": F.coalesce("reason", F.when(item_id.isNull(), "missing_id").when(bad, "bad_id")),
        "item_id": F.coalesce(F.substring(item_id, 1, MAX_ID), F.lit(MISSING)),
        "order": F.xxhash64(*(F.to_json(c) if c in ("attributes", "slices") else F.col(c) for c in hashed)),
    })  # fmt: skip
    keyed = keyed.repartition(partitions, "item_id")
    same = Window.partitionBy("item_id")
    numbered = keyed.withColumns({
        "occurrence": F.row_number().over(same.orderBy("order", "position")) - 1,
        "times": F.count("*").over(same),
    })  # fmt: skip
    reason = F.coalesce("reason", F.when(F.col("times") > 1, "duplicate_id"))
    detail = F.coalesce(
        "detail",
        F.when(reason == "missing_id", "the row has no id")
        .when(reason == "bad_id", F.lit(BAD_ID))
        .when(reason == "duplicate_id", F.concat(F.lit("the id stands on "), F.col("times"), F.lit(" rows"))),
    )
    return numbered.withColumns({"reason": reason, "detail": detail}).drop("order", "times", "position")


def partitions(spark: SparkSession, source: Source) -> int:
    """Tasks of at most TASK_ROWS rows and about TASK_BYTES of source, and enough of them to keep every core busy if there are rows for it."""
    least = 2 * spark.sparkContext.defaultParallelism
    size = min(source.size, source.rows * 2**20)
    return max(1, min(math.ceil(source.rows / LEAST_ROWS), max(least, math.ceil(source.rows / TASK_ROWS), math.ceil(size / TASK_BYTES))))
