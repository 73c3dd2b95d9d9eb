"""The catalog as its owner keeps it, brought into our columns: CSV, JSON, Parquet, XML, Delta; local or in an object store.

The files are read by tgq's own readers on the executors (`tgq.feeds`), because Spark's drop or merge what they cannot read:
lines behind a JSON object, columns of a CSV part in another order, bytes that are no text. A task reads a part of a file and
gives each row either whole or with a reason. Delta tables are read by Spark, which knows their deletion vectors.

Nothing here looks at a picture. What is checked is what would spoil the whole night: that there is a table, that it can be
read, and that it has the columns which the configuration names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from tgq.catalog.reading.feed import csv_options, feed_options, plan_files
from tgq.catalog.reading.location import Location, locate
from tgq.catalog.reading.read_errors import reading
from tgq.errors import SourceError
from tgq.feeds.columns import Matcher, cell, match, top_level
from tgq.feeds.feed import read
from tgq.feeds.options import FeedOptions
from tgq.feeds.plan import Plan, check_types, match_all, notes_of
from tgq.feeds.readers.encodings import shown
from tgq.feeds.readers.parquet import batch_rows
from tgq.feeds.rows import MALFORMED, RawRow
from tgq.feeds.source_row import PART_ROWS, RAW, SOURCE, SourceRows, kept
from tgq.feeds.values import BadValue, text
from tgq.settings.sections import CatalogSettings

BATCH_ROWS, BATCH_BYTES = 512, 16 * 2**20
TASK_BYTES = 64 * 2**20
TROUBLE = ("reason", "detail", "raw")  # columns of a row that cannot be read; else null


@dataclass(frozen=True)
class Source:
    """A catalog that can be read.

    Attributes:
        frame: one row per source row (`tgq.feeds.source_row.SOURCE`), read when it is used.
        columns: the source's own names.
        rows: how many rows there are; of text files an estimate, for progress and the number of tasks.
        size: bytes on disk.
        notes: sentences for its owner (see `tgq.feeds.plan.Plan`).
        plan: the parts of its files; None of a Delta table.
    """

    frame: DataFrame
    columns: tuple[str, ...]
    rows: int
    size: int
    notes: tuple[str, ...]
    plan: Plan | None = None


def open_source(spark: SparkSession, catalog: CatalogSettings, location: Location | None = None) -> Source:
    """The catalog in our columns.

    Text is trimmed, blank is null. Ids of a whole-number type, or doubles that pandas made of them, have no '.0'. Categories
    are 'a > b > c', attributes are flat (see `tgq.feeds.values`). A row that cannot be read has `reason` and `detail`.

    Raises:
        SourceError: the table cannot be read, or lacks a column that the mapping names.
    """
    location = location or locate(spark, catalog)
    options, place = feed_options(catalog), str(catalog.path)

    def convert(rows: Iterable[RawRow], number: int) -> Iterator[pa.RecordBatch]:
        return source_batches(rows, number, options)

    opened = _open(spark, location, options, place, convert, SOURCE)
    if catalog.inherit:
        opened = replace(opened, frame=inherited(opened.frame, catalog.inherit))
    return opened


def open_columns(spark: SparkSession, table: CatalogSettings, columns: dict[str, tuple[str, ...]], setting: str) -> Source:
    """The named columns of any table as text, with `reason`, `detail` and `raw` (what stands there) for rows that cannot be read.

    Args:
        columns: column of the frame -> names that it may have in the table; where none is there, it is null.
        setting: what names the table in the configuration.

    Raises:
        SourceError: it is not there or cannot be read.
    """
    options = FeedOptions(columns, frozenset(columns), table.csv.encoding, csv_options(table.csv))
    schema = pa.schema([(name, pa.string()) for name in (*columns, *TROUBLE)])

    def convert(rows: Iterable[RawRow], number: int) -> Iterator[pa.RecordBatch]:
        return text_batches(rows, options, schema)

    try:
        return _open(spark, locate(spark, table), options, str(table.path), convert, schema)
    except SourceError as e:
        raise SourceError(f"{setting}: {e.found}", e.do.replace("catalog.path", setting)) from e


def _open(spark: SparkSession, location: Location, options: FeedOptions, place: str, convert: Any, schema: pa.Schema) -> Source:
    if location.format == "delta":
        return _open_delta(spark, location, options, place, convert, schema)
    plan = plan_files(spark, location, options, place)
    parts, format = plan.parts, plan.format

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from convert(read(parts[number], format, options), number)

    tasks = min(len(parts), max(2 * spark.sparkContext.defaultParallelism, plan.size // TASK_BYTES))
    frame = spark.range(0, len(parts), 1, max(tasks, 1)).mapInArrow(run, from_arrow_schema(schema))
    return Source(frame, plan.columns, plan.rows, plan.size, plan.notes, plan)


def _open_delta(spark: SparkSession, location: Location, options: FeedOptions, place: str, convert: Any, schema: pa.Schema) -> Source:
    with reading(place):
        raw = spark.read.format("delta").load(location.table)
        rows = raw.count()  # of the log's statistics
        size = int(raw._jdf.queryExecution().optimizedPlan().stats().sizeInBytes())
        matched = match_all(raw.columns, [match(raw.columns, options, place)], options, place)
        check_types({f.name: f.type for f in to_arrow_schema(raw.schema)}, matched, place)
        wanted = top_level(raw.columns, options)

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            context = TaskContext.get()
            yield from convert((row for batch in batches for row in batch_rows(batch.rename_columns(wanted))), context.partitionId() if context else 0)

        # numbered, because mapInArrow parses the names of its columns anew: 'a.b', '*' and a backtick would mean something else there
        numbered = (F.col("`" + name.replace("`", "``") + "`").alias(f"c{n}") for n, name in enumerate(wanted))
        frame = raw.select(*numbered).mapInArrow(run, from_arrow_schema(schema))
    return Source(frame, tuple(raw.columns), rows, size, tuple(notes_of(matched, options)))


def source_batches(rows: Iterable[RawRow], number: int, options: FeedOptions) -> Iterator[pa.RecordBatch]:
    """A part's rows as batches of SOURCE, of at most BATCH_ROWS rows and about BATCH_BYTES of pictures and texts."""
    convert = SourceRows(options)
    waiting: list[dict[str, Any]] = []
    size = 0
    for n, raw in enumerate(rows):
        row = convert(raw, number * PART_ROWS + n)
        waiting.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str | bytes))
        if len(waiting) == BATCH_ROWS or size > BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(waiting, SOURCE)
            waiting, size = [], 0
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, SOURCE)


def text_batches(rows: Iterable[RawRow], options: FeedOptions, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A part's rows as batches of text columns."""
    names, fields_of = [name for name in schema.names if name not in TROUBLE], Matcher(options)
    waiting: list[dict[str, str | None]] = []
    for row in rows:
        out: dict[str, str | None] = dict.fromkeys(names) | {"reason": row.reason, "detail": row.detail, "raw": shown(row.raw)[:RAW] if row.raw else None}
        name = ""
        try:
            fields = {} if row.reason else fields_of(tuple(row.values)).fields
            for name in names:
                out[name] = next((t for path in fields.get(name, ()) if (t := text(cell(row.values, path)))), None)
        except SourceError as e:
            out.update(reason=MALFORMED, detail=e.found)
        except BadValue as e:
            out.update(reason=e.reason, detail=f"{name}: {e}", raw=kept(row.values))
        waiting.append(out)
        if len(waiting) == BATCH_ROWS:
            yield pa.RecordBatch.from_pylist(waiting, schema)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema)


def inherited(frame: DataFrame, fields: Iterable[str]) -> DataFrame:
    """Empty fields filled with those of the first row of the same group that has them, in the source's order.

    Cost: a shuffle by group.
    """
    alone = F.concat(F.lit("\0"), F.col("position"))  # a row without a group is a group of its own
    group = Window.partitionBy(F.coalesce("group_id", alone)).orderBy("position").rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    return frame.withColumns({field: F.coalesce(field, F.first(field, ignorenulls=True).over(group)) for field in fields})
