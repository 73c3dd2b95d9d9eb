"""The files of queries read once, each row with its verdict by the files alone, in the run's staging folder."""

from __future__ import annotations

from collections.abc import Mapping

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.reading.read_errors import reader_error
from tgq.errors import SourceError
from tgq.queries.inputs import CLICKS, JUDGMENTS, QUERIES, Inputs
from tgq.queries.quarantine import write_quarantine
from tgq.queries.verdicts import click_verdicts, judgment_verdicts, query_verdicts
from tgq.run.night import Night

Counts = Mapping[str, int]  # reason -> rows; "" -> rows that were kept


def stage(night: Night, inputs: Inputs) -> None:
    """Read the files and stage a verdict for each row.

    Cost: one pass over the files, which `staged` then does not repeat.

    Raises:
        SourceError: no row of a file can be used, or the file breaks off. The rows are in the quarantine.
    """
    settings = night.settings.queries
    for one in inputs.found.values():
        rows = one.source.frame
        if one.kind == QUERIES:
            judged = query_verdicts(rows, settings.test_share)
        elif one.kind == JUDGMENTS:
            judged = judgment_verdicts(rows, settings.highest_grade, settings.labels)
        else:
            judged = click_verdicts(rows)
        night.progress.say(f"reading {one.kind} from {one.path}")
        try:
            judged.write.mode("overwrite").parquet(night.staging("queries", one.kind))
        except (PySparkException, Py4JError) as e:
            if ours := reader_error(e):
                raise ours from e
            raise
        frame = staged(night, one.kind)
        counts = counts_of(frame)
        if not counts.get(""):
            write_quarantine(night, refused(frame, one.kind))
            raise _unusable(one.kind, one.path, frame, counts, settings.highest_grade)


def staged(night: Night, kind: str) -> DataFrame:
    """The verdicts of a file that was staged."""
    return night.spark.read.parquet(night.staging("queries", kind))


def counts_of(verdicts: DataFrame) -> dict[str, int]:
    """Rows by reason, kept ones under ''. One pass; a few reasons."""
    found = verdicts.groupBy(F.coalesce("reason", F.lit("")).alias("reason")).count().collect()
    return {row["reason"]: row["count"] for row in sorted(found, key=lambda row: (-row["count"], row["reason"]))}


def refused(verdicts: DataFrame, kind: str) -> DataFrame:
    """Refused rows as `write_quarantine` takes them."""
    name = "query_id" if kind == QUERIES else "item_id"
    return verdicts.where("reason IS NOT NULL").select(F.lit(kind).alias("stage"), F.col(name).alias("item_id"), "reason", "detail", "fields")


def _unusable(kind: str, path: str, frame: DataFrame, counts: Counts, highest: float) -> SourceError:
    rows = sum(counts.values())
    if not rows:
        return SourceError(f"{path} is empty", "check that its export has run")
    if kind == JUDGMENTS and next(iter(counts)) == "grade_out_of_range":
        low, high = frame.agg(F.min("grade"), F.max("grade")).collect()[0]
        return SourceError(
            f"no grade of the {rows} rows of {path} lies in 0 to {highest:g}; they are {low:g} to {high:g}", "set queries.highest_grade to the best grade"
        )
    if kind == JUDGMENTS and next(iter(counts)) == "grade_not_a_number":
        said = ", ".join(repr(row["reason"]) for row in frame.select(F.substring("detail", 1, 40).alias("reason")).distinct().limit(3).collect())
        return SourceError(f"no grade of the {rows} rows of {path} is a number ({said})", "give each word its number in queries.labels")
    setting = {QUERIES: "queries.columns", JUDGMENTS: "queries.judgment_columns", CLICKS: "queries.clicks"}[kind]
    return SourceError(f"none of the {rows} rows of {path} can be used ({shown(counts)})", f"correct {setting}, or see the table quarantine for details")


def shown(counts: Counts) -> str:
    """'grade_out_of_range 5, unknown_item 3'."""
    return ", ".join(f"{reason} {n}" for reason, n in counts.items() if reason)
