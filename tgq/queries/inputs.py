"""The files of queries, judgments and clicks: found, opened, with their columns checked. Nothing is read but the beginnings of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from tgq.catalog.reading.location import Location, is_there, locate
from tgq.catalog.reading.source import Source, open_columns
from tgq.errors import SourceError
from tgq.feeds.columns import find
from tgq.feeds.files import version
from tgq.images.decode import ImageError
from tgq.settings.sections import CatalogSettings, Column, Settings

FORMAT = 1  # to be raised when the same files and settings give other rows
OPTIONAL = "?"
QUERIES, JUDGMENTS, CLICKS = "queries", "judgments", "clicks"  # the kinds of files, which are the stages in the quarantine too


@dataclass(frozen=True)
class Input:
    """A table that can be read.

    Attributes:
        kind: queries, judgments or clicks.
        path: as the settings name it.
        source: its rows as text columns, and `reason`, `detail` and `raw` where a row cannot be read.
    """

    kind: str
    path: str
    source: Source


@dataclass(frozen=True)
class Inputs:
    """What there is to read.

    Attributes:
        found: the tables by kind.
        notes: sentences for the owner about files that may be absent and are.
        fingerprint: changes with every file and every setting that the rows depend on.
    """

    found: Mapping[str, Input]
    notes: tuple[str, ...]
    fingerprint: str


def open_inputs(spark: SparkSession, settings: Settings, location: Location) -> Inputs:
    """Find and open the tables that the settings name. A path whose name ends in '?' may be absent, and so may a column.

    Cost: a look at the beginning of each file, and a stat of it.

    Raises:
        SourceError: a path, or a column that the settings name, is not there; a file cannot be read.
    """
    queries, clicks = settings.queries, settings.queries.clicks
    click_columns = {"text": clicks.query, "item_id": clicks.item_id, "rank": clicks.rank, "clicked": clicks.clicked}
    wanted: tuple[tuple[str, str, str | None, str, Mapping[str, Column | None]], ...] = (
        (QUERIES, "queries.path", queries.path, "queries.columns.", dict(queries.columns)),
        (JUDGMENTS, "queries.judgments", queries.judgments, "queries.judgment_columns.", dict(queries.judgment_columns)),
        (CLICKS, "queries.clicks.path", clicks.path, "queries.clicks.", click_columns),
    )
    found, notes, versions = {}, [], []
    for kind, setting, path, group, columns in wanted:
        if not path:
            continue
        named = path.removesuffix(OPTIONAL)
        try:
            place = location.resolve(named)
        except ImageError as e:
            raise SourceError(f"{setting}: {e.detail}", "name a path inside the catalog, or an absolute one") from e
        if not is_there(spark, place):
            if path.endswith(OPTIONAL):
                notes.append(f"no {kind}: there is no {named} ({setting}), which may be absent")
                continue
            raise SourceError(f"{setting}: there is nothing at {named}", f"name an existing file or folder, or set {setting} to null")
        table = CatalogSettings(path=place, table=f"{kind}.parquet", csv=settings.catalog.csv)
        names = {field: (value,) if isinstance(value, str) else tuple(value or ()) for field, value in columns.items()}
        source = open_columns(spark, table, names, setting)
        _need_columns(source.columns, names, named, group)
        found[kind] = Input(kind, named, source)
        versions.append(_version(spark, table, source))
    if JUDGMENTS in found and QUERIES not in found:
        notes.append("no judgments: they cannot be used without their queries")
        del found[JUDGMENTS]
    parts = [FORMAT, settings.queries.model_dump(mode="json"), settings.catalog.csv.model_dump(mode="json"), versions]
    return Inputs(found, tuple(notes), hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32])


def described(inputs: Inputs) -> Iterator[str]:
    """A line for each table, and the notes; for a dry run."""
    for one in inputs.found.values():
        exact = one.source.plan is None or one.source.plan.format == "parquet"
        yield f"{one.kind}: {'' if exact else 'about '}{one.source.rows} rows in {one.path}, columns {', '.join(one.source.columns)}"
    yield from (f"note: {note}" for note in inputs.notes)


def _need_columns(columns: tuple[str, ...], names: Mapping[str, tuple[str, ...]], path: str, group: str) -> None:
    for field, choices in names.items():
        if choices and not any(name.endswith(OPTIONAL) or find(columns, name, path) for name in choices):
            shown = " or ".join(f"'{name}'" for name in choices)
            raise SourceError(f"{path} has no column {shown}, which {group}{field} names", f"name one of its columns: {', '.join(columns)}")


def _version(spark: SparkSession, table: CatalogSettings, source: Source) -> list[str]:
    if source.plan is None:
        location = locate(spark, table)
        return [location.table, str(DeltaTable.forPath(spark, location.table).history(1).select("version").collect()[0][0])]
    return [f"{file.uri} {version(file)}" for file in dict.fromkeys(part.file for part in source.plan.parts)]
