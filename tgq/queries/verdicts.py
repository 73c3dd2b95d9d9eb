"""A verdict for each row of the queries, the judgments and the click log: kept, or refused with a reason. DataFrame to DataFrame.

A verdict has `reason` and `detail`, null where the row is kept, and `fields`: the row as JSON, for the quarantine.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StringType

from tgq.catalog.examine import LONGEST_FIELD
from tgq.catalog.identity import BAD_ID, MAX_ID
from tgq.catalog.pairs import split_of
from tgq.query_tower.text import normalised_text

NORMALISED = F.udf(normalised_text, StringType(), useArrow=False)


def query_verdicts(rows: DataFrame, test_share: float) -> DataFrame:
    """Queries with normalised_text, split and `repeated`: whether an earlier row has the same id and text.

    Rows of one id and several texts are all refused, because nothing says which is meant. Cost: a shuffle by id.

    Args:
        rows: query_id, text, source, popularity as text; reason, detail, raw.
    """
    query = F.col("query_id")
    own = _first(
        (F.col("reason"), F.col("detail")),
        (F.when(query.isNull(), "missing_query_id"), F.lit("the row has no query id")),
        (F.when(_bad_id(query), "bad_query_id"), F.lit(BAD_ID)),
        (F.when(F.col("normalised_text") == "", "empty_query"), F.lit("the query has no text")),
    )
    judged = _with(rows.withColumn("fields", _fields(rows)).withColumn("normalised_text", NORMALISED("text")), own)
    one_id = Window.partitionBy("query_id", F.col("reason").isNull())
    times = judged.withColumns({
        "popularity": _number("popularity"),
        "source": F.coalesce("source", F.lit("file")),
        "differs": F.col("reason").isNull() & (F.min("normalised_text").over(one_id) != F.max("normalised_text").over(one_id)),
    })  # fmt: skip
    place = F.row_number().over(one_id.orderBy(F.desc_nulls_last("popularity"), "text", "source"))
    detail = F.lit("the id stands on rows with different texts")
    return _with(
        times.withColumn("repeated", F.col("reason").isNull() & ~F.col("differs") & (place > 1)),
        _first((F.col("reason"), F.col("detail")), (F.when(F.col("differs"), "duplicate_query_id"), detail)),
    ).withColumn("split", split_of(F.col("normalised_text"), test_share)).select(
        "query_id", "text", "normalised_text", "split", "source", "popularity", "repeated", "reason", "detail", "fields"
    )  # fmt: skip


def judgment_verdicts(rows: DataFrame, highest: float, labels: Mapping[str, float]) -> DataFrame:
    """Judgments with their grade as a number, judged by the file alone; see `known_judgments`.

    Args:
        rows: query_id, item_id, grade, weight, event_time as text; reason, detail, raw.
        highest: grade; the lowest is 0.
        labels: grades that are words, in any case.
    """
    said = F.lower("grade")
    word = F.coalesce(*(F.when(said == label.strip().lower(), F.lit(float(value))) for label, value in labels.items()), F.lit(None).cast("double"))
    typed = rows.withColumn("fields", _fields(rows)).withColumns({
        "number": F.coalesce(word, F.col("grade").try_cast("double")),
        "weight": F.greatest(F.coalesce(_number("weight", below=True), F.lit(1.0)), F.lit(0.0)),
        "event_time": F.col("event_time").try_cast("timestamp") if "event_time" in rows.columns else F.lit(None).cast("timestamp"),
    })  # fmt: skip
    number, shown = F.col("number"), F.substring("grade", 1, 80)
    own = _first(
        (F.col("reason"), F.col("detail")),
        (F.when(F.col("query_id").isNull(), "missing_query_id"), F.lit("the row has no query id")),
        (F.when(F.col("item_id").isNull(), "missing_item_id"), F.lit("the row has no item id")),
        (F.when(F.col("grade").isNull(), "missing_grade"), F.lit("the row has no grade")),
        (F.when(number.isNull() | F.isnan(number), "grade_not_a_number"), F.format_string("the grade is '%s'", shown)),
        (F.when(~number.between(0, highest), "grade_out_of_range"), F.format_string(f"the grade is %s, outside 0 to {highest:g}", shown)),
    )
    return _with(typed, own).withColumn("grade", F.col("number")).drop("number", "raw")


def known_judgments(judged: DataFrame, queries: DataFrame, items: DataFrame) -> DataFrame:
    """Judgments of queries and items that are not known are refused as well.

    Args:
        judged: of `judgment_verdicts`.
        queries, items: the ids that are known, each once: query_id; item_id.

    Cost: a join with the ids of the queries and one with those of the items.
    """
    there = judged.join(queries.select("query_id", F.lit(True).alias("known_query")), "query_id", "left")
    there = there.join(items.select("item_id", F.lit(True).alias("known_item")), "item_id", "left")
    own = _first(
        (F.col("reason"), F.col("detail")),
        (F.when(F.col("known_query").isNull(), "unknown_query"), F.lit("no query that was kept has this query id")),
        (F.when(F.col("known_item").isNull(), "unknown_item"), F.lit("no active item of the catalog has this item id")),
    )
    return _with(there, own).drop("known_query", "known_item")


def click_verdicts(rows: DataFrame) -> DataFrame:
    """Impressions with `position` (as in the log) and `click` (0 or 1).

    Args:
        rows: text, item_id, rank, clicked as text; reason, detail, raw.
    """
    rank, said = F.col("rank").try_cast("double"), F.col("clicked")
    click = F.coalesce(said.try_cast("boolean").cast("int"), F.when(said.try_cast("double") > 0, 1))
    typed = rows.withColumns({"position": rank, "click": click})
    own = _first(
        (F.col("reason"), F.col("detail")),
        (F.when(F.col("text").isNull(), "empty_query"), F.lit("the row has no query")),
        (F.when(F.col("item_id").isNull(), "missing_item_id"), F.lit("the row has no item id")),
        (F.when(rank.isNull() | (rank < 0) | (rank != F.floor(rank)) | (rank >= 2**31), "bad_rank"), F.lit("the rank is no whole number from 0 on")),
        (F.when(F.col("click").isNull(), "bad_click"), F.lit("clicked is neither true nor false, nor a number of clicks")),
    )
    fields = F.when(F.col("reason").isNotNull(), _fields(rows))  # of refused rows alone: a log is long
    return _with(typed, own).select("text", "item_id", F.col("position").cast("int").alias("position"), "click", "reason", "detail", fields.alias("fields"))


def _number(name: str, below: bool = False) -> Column:
    """A column of text as a finite number; null where it is none, or below 0 unless `below`."""
    value = F.col(name).try_cast("double")
    return F.when(F.isnan(value) | (F.abs(value) == float("inf")) | (F.lit(not below) & (value < 0)), None).otherwise(value)


def _bad_id(column: Column) -> Column:
    return column.rlike(r"\p{Cc}") | (F.length(column) > MAX_ID)


def _fields(rows: DataFrame) -> Column:
    """The row as JSON, without what is null."""
    names = [name for name in rows.columns if name not in ("reason", "detail")]
    return F.to_json(F.struct(*(F.substring(name, 1, LONGEST_FIELD).alias(name) for name in names)))


def _first(*verdicts: tuple[Column, Column]) -> tuple[Column, Column]:
    """(reason, detail) of the first verdict whose reason is not null."""
    detail = F.when(verdicts[0][0].isNotNull(), verdicts[0][1])
    for reason, said in verdicts[1:]:
        detail = detail.when(reason.isNotNull(), said)
    return F.coalesce(*(reason for reason, _ in verdicts)), detail


def _with(rows: DataFrame, verdict: tuple[Column, Column]) -> DataFrame:
    return rows.withColumns({"reason": verdict[0], "detail": verdict[1]})
