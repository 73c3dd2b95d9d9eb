"""The rows of `relevance_queries` and `query_judgments` without their run: from the verdicts of the files, and from a graded click log."""

from __future__ import annotations

from typing import NamedTuple

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.pairs import split_of
from tgq.queries.inputs import CLICKS, JUDGMENTS

QUERY = ("query_id", "text", "normalised_text", "split", "source", "popularity")
JUDGMENT = ("query_id", "item_id", "grade", "weight", "source", "event_time")


class Rows(NamedTuple):
    """Queries (QUERY) and judgments (JUDGMENT)."""

    queries: DataFrame
    judgments: DataFrame


def kept_queries(verdicts: DataFrame) -> DataFrame:
    """The queries of `query_verdicts`, each once."""
    return verdicts.where("reason IS NULL AND NOT repeated").select(*QUERY)


def kept_judgments(verdicts: DataFrame) -> DataFrame:
    """The judgments of `known_judgments`, a row for each pair: the mean grade of its raters, the highest weight, the latest time."""
    exact = F.col("grade").cast("decimal(18,6)")  # a mean that does not depend on the order of its rows
    pairs = verdicts.where("reason IS NULL").groupBy("query_id", "item_id").agg(
        F.avg(exact).cast("float").alias("grade"), F.max("weight").cast("float").alias("weight"), F.max("event_time").alias("event_time")
    )  # fmt: skip
    return pairs.withColumn("source", F.lit(JUDGMENTS)).select(*JUDGMENT)


def with_clicks(people: Rows, graded: DataFrame, searched: DataFrame, test_share: float) -> Rows:
    """The rows of a click log beside those of people, whose texts, popularity and grades stand.

    A query of the log is the one in the files that has its text, of several that with the least id, else a query of its own, if it has a grade.

    Args:
        graded: normalised_text, item_id, grade, weight of active items; see `tgq.queries.click_log.graded`.
        searched: normalised_text, text, popularity; see `tgq.queries.click_log.searches`.

    Cost: joins by text and by pair.
    """
    named = people.queries.groupBy("normalised_text").agg(F.min("query_id").alias("named"))
    made = F.concat(F.lit("text-"), F.substring(F.sha2("normalised_text", 256), 1, 20))
    found = graded.join(named, "normalised_text", "left").withColumns({
        "query_id": F.coalesce("named", made), "grade": F.col("grade").cast("float"), "weight": F.col("weight").cast("float"),
        "source": F.lit(CLICKS), "event_time": F.lit(None).cast("timestamp"),
    })  # fmt: skip
    new = found.where("named IS NULL").select("query_id", "normalised_text").distinct().join(searched, "normalised_text").withColumns({
        "split": split_of(F.col("normalised_text"), test_share), "source": F.lit(CLICKS),
    })  # fmt: skip
    counted = people.queries.withColumnRenamed("popularity", "said").join(searched.drop("text"), "normalised_text", "left")
    counted = counted.withColumn("popularity", F.coalesce("said", "popularity"))
    unjudged = found.select(*JUDGMENT).join(people.judgments, ["query_id", "item_id"], "left_anti")
    return Rows(counted.select(*QUERY).unionByName(new.select(*QUERY)), people.judgments.unionByName(unjudged))
