"""A click log as judgments: its impressions summed by query, item and rank, the click model fitted to the sums, and a grade for each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.queries.click_model import DEEPEST, attraction, fit
from tgq.queries.verdicts import NORMALISED
from tgq.settings.sections import ClickSettings

DIGITS = 6  # of what is fitted: sums of doubles depend on their order, grades of the same log must not


@dataclass(frozen=True)
class Fitted:
    """The click model of a log.

    Attributes:
        examination: share of the impressions at each rank that are examined, from the first.
        rate: clicks per examined impression of an average item.
    """

    examination: tuple[float, ...]
    rate: float


def summed(verdicts: DataFrame) -> DataFrame:
    """(normalised_text, item_id, ranks, text), a row for each query and item; ranks is an array of (position, impressions, clicks).

    The first rank of the log is position 0, and ranks beyond DEEPEST count as the last one. `text` is the commonest spelling.

    Args:
        verdicts: the kept rows of `click_verdicts`.

    Cost: a shuffle of the log's sums by spelling, item and rank, and two of what is left.
    """
    first = verdicts.agg(F.min("position")).collect()[0][0] or 0
    position = F.least(F.col("position") - first, F.lit(DEEPEST - 1))
    spelled = verdicts.withColumn("position", position).groupBy("text", "item_id", "position").agg(
        F.count("*").alias("impressions"), F.sum("click").cast("long").alias("clicks")
    ).withColumn("normalised_text", NORMALISED("text"))  # fmt: skip
    one = spelled.groupBy("normalised_text", "item_id", "position").agg(
        F.sum("impressions").alias("impressions"), F.sum("clicks").alias("clicks"), F.max_by("text", F.struct("impressions", "text")).alias("text")
    )  # fmt: skip
    ranks = F.collect_list(F.struct("position", "impressions", "clicks"))
    return one.groupBy("normalised_text", "item_id").agg(F.array_sort(ranks).alias("ranks"), F.max_by("text", F.struct("impressions", "text")).alias("text"))


def searches(pairs: DataFrame) -> DataFrame:
    """(normalised_text, text, popularity) of the queries of `summed`: the commonest spelling, and how often it was searched.

    A search shows one item at each rank, so the rank with most impressions tells the number of searches.
    """
    by_rank = pairs.select("normalised_text", "text", F.inline("ranks")).groupBy("normalised_text", "position").agg(
        F.sum("impressions").alias("shown"), F.max_by("text", F.struct("impressions", "text")).alias("text")
    )  # fmt: skip
    most = F.struct("shown", "text")
    return by_rank.groupBy("normalised_text").agg(F.max_by("text", most).alias("text"), F.max("shown").cast("double").alias("popularity"))


def fitted(pairs: DataFrame, settings: ClickSettings) -> Fitted:
    """The click model of `summed` pairs. What comes to the driver are at most DEEPEST sums a round. Cost: a pass over the pairs a round."""
    by_rank = pairs.select(F.inline("ranks")).groupBy("position").agg(F.sum("clicks")).collect()
    n = 1 + max((row[0] for row in by_rank), default=0)

    def shown_under(examined: np.ndarray, rate: float) -> np.ndarray:
        weight = attraction(_clicks(), rate * _examined(examined), settings.prior_clicks) if rate else F.lit(1.0)
        found = pairs.select(weight.alias("weight"), F.inline("ranks")).groupBy("position").agg(F.sum(F.col("impressions") * F.col("weight"))).collect()
        return _dense(found, n)

    examination, rate = fit(_dense(by_rank, n), shown_under, settings.prior_impressions)
    return Fitted(tuple(round(float(share), DIGITS) for share in examination), float(f"{rate:.{DIGITS}g}"))


def graded(pairs: DataFrame, model: Fitted, settings: ClickSettings) -> DataFrame:
    """(normalised_text, item_id, grade, weight) of the pairs of `summed`; the grade is null where too little was examined.

    The weight is the share of the grade that the log decides, and not the prior.
    """
    examined = _examined(model.examination)
    expected = F.round(model.rate * examined, DIGITS)
    value = attraction(_clicks(), expected, settings.prior_clicks)
    reached = sum((F.when(value >= threshold, 1).otherwise(0) for threshold in settings.thresholds), F.lit(0))
    grade = F.when(F.round(examined, DIGITS) >= settings.min_examined, reached)
    weight = F.round(expected / (expected + settings.prior_clicks), DIGITS)
    return pairs.select("normalised_text", "item_id", grade.cast("double").alias("grade"), weight.alias("weight"))


def _clicks() -> Column:
    return F.aggregate("ranks", F.lit(0).cast("long"), lambda total, rank: total + rank["clicks"]).cast("double")


def _examined(examination: Sequence[float] | np.ndarray) -> Column:
    """Impressions of a pair, each counted by the share of its rank that is examined."""
    shares = F.array(*(F.lit(float(share)) for share in examination))
    return F.aggregate("ranks", F.lit(0.0), lambda total, rank: total + rank["impressions"] * F.get(shares, rank["position"]))


def _dense(rows: Sequence, n: int) -> np.ndarray:
    out = np.zeros(n)
    for position, value in rows:
        out[position] = value
    return out
