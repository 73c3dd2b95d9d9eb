"""A profile for a catalog that nobody has described yet."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from pyspark.sql import SparkSession

from tgq.catalog.reading.feed import feed_options, plan_files
from tgq.catalog.reading.location import locate
from tgq.errors import UsageError
from tgq.feeds.feed import read
from tgq.feeds.options import FeedOptions
from tgq.feeds.readers.parquet import batch_rows
from tgq.feeds.recognise import Recognised, profile_text, recognise
from tgq.settings.sections import CatalogSettings

SAMPLE = 500


def look_at(spark: SparkSession, catalog: CatalogSettings) -> tuple[Recognised, str]:
    """(what is recognised of a catalog, a profile for it) from its columns and its first rows. Cost does not grow with the catalog.

    Raises:
        SourceError: there is no readable table.
    """
    location = locate(spark, catalog)
    if location.format == "delta":
        table = spark.read.format("delta").load(location.table)
        columns = tuple(table.columns)
        rows = [row.values for batch in table.limit(SAMPLE).toArrow().to_batches() for row in batch_rows(batch)]
    else:
        unnamed = FeedOptions({}, encoding=catalog.csv.encoding, csv=feed_options(catalog).csv)
        plan = plan_files(spark, location, unnamed, str(catalog.path))
        columns = plan.columns
        named = FeedOptions({name: (name,) for name in dict.fromkeys(columns)}, frozenset(columns), unnamed.encoding, unnamed.csv)
        raw = (row for part in plan.parts for row in read(part, plan.format, named) if not row.reason)
        rows = [row.values for row in islice(raw, SAMPLE)]
    found = recognise(columns, rows)
    return found, profile_text(found, str(catalog.path))


def write_profile(path: Path, text: str, replace: bool) -> None:
    """Write a profile.

    Raises:
        UsageError: there is a file already, and `replace` is false.
    """
    if path.exists() and not replace:
        raise UsageError(f"{path} exists", "name another file with --out, or replace it with --force")
    path.write_text(text, encoding="utf-8")
