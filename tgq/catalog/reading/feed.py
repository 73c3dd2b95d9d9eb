"""The catalog's settings as options of a feed, and its files."""

from __future__ import annotations

from pyspark.sql import SparkSession

from tgq.catalog.reading.location import Location
from tgq.errors import SourceError
from tgq.feeds.feed import inspect
from tgq.feeds.files import FeedFile, feed_files
from tgq.feeds.options import CsvOptions, FeedOptions
from tgq.feeds.plan import Plan, plan_feed
from tgq.feeds.rows import Inspected
from tgq.settings.sections import CatalogSettings, ColumnMapping, CsvSettings

DEFAULT_NAMES = ColumnMapping(image_bytes="image_bytes", group_id="group_id", variant_id="variant_id", additional_images="additional_images")
MANY_FILES = 64  # above it the executors look at the files


def feed_options(catalog: CatalogSettings) -> FeedOptions:
    """Which columns are read of a catalog, and how.

    A field may be absent only under its usual name, or where its name ends in '?': a name that somebody chose must exist,
    or a typing error would empty a whole field in silence.
    """
    columns: dict[str, tuple[str, ...]] = {}
    optional = set()
    for field in ColumnMapping.model_fields:
        value = getattr(catalog.columns, field)
        if value is None:
            continue
        if isinstance(value, dict):
            columns |= {f"{field}.{name}": _names(inner) for name, inner in value.items()}
        else:
            columns[field] = _names(value)
        if field in catalog.optional_columns and value == getattr(DEFAULT_NAMES, field):
            optional.add(field)
    columns |= {f"slices.{name}": (name,) for name in catalog.slice_columns}
    return FeedOptions(
        columns, frozenset(optional), catalog.csv.encoding, csv_options(catalog.csv), catalog.category_separator, catalog.category_list_separator,
        frozenset(word.strip().casefold() for word in catalog.missing),
    )  # fmt: skip


def csv_options(csv: CsvSettings) -> CsvOptions:
    """The dialect."""
    return CsvOptions(csv.sep, csv.quote or "", csv.escape, csv.header, csv.multiLine, csv.max_cell_lines)


def plan_files(spark: SparkSession, location: Location, options: FeedOptions, place: str) -> Plan:
    """Plan the reading of a located feed that is no Delta table.

    Raises:
        SourceError: as `plan_feed`; there are no files.
    """
    files = feed_files(location.table, location.suffixes)
    if not files:
        raise SourceError(f"the catalog {place} is empty", "check that its export has run")
    format = location.format

    def look(files: list[FeedFile]) -> list[Inspected]:
        slices = min(len(files), 4 * spark.sparkContext.defaultParallelism)
        found: list[Inspected] = spark.sparkContext.parallelize(files, slices).map(lambda file: inspect(file, format, options)).collect()
        return found

    return plan_feed(files, format, options, place, look if len(files) > MANY_FILES else None)  # type: ignore[arg-type]


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
