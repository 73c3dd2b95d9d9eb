"""What a night would see of a catalog: its first rows in our columns, near misses, and what a sample would lose.

Reads the first rows of the first parts on the driver; cost does not grow with the catalog.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pyspark.sql import SparkSession

from tgq.catalog.examine import Examiner
from tgq.catalog.identity import BAD_ID, MAX_ID
from tgq.catalog.reading.feed import feed_options
from tgq.catalog.reading.location import locate
from tgq.catalog.reading.source import Source, open_source
from tgq.feeds.feed import read
from tgq.feeds.source_row import PART_ROWS, SourceRows
from tgq.settings.sections import CatalogSettings, Settings

SHOWN, SAMPLE = 5, 500


def preview(spark: SparkSession, settings: Settings) -> Iterator[str]:
    """Lines that describe the catalog and how its first rows would be read. Writes nothing.

    Raises:
        SourceError: as `open_source`, or the sample's files cannot be read.
    """
    catalog = settings.catalog
    location = locate(spark, catalog)
    source = open_source(spark, catalog, location)
    examiner = Examiner.of(settings, location)
    rows = [_examined(examiner, row) for row in _sample(source, catalog)]
    if len(rows) < SAMPLE:
        known = f"{len(rows)}"  # the sample is the whole catalog
    else:
        known = f"{source.rows}" if location.format in ("parquet", "delta") else f"about {source.rows}"
    yield f"catalog: {known} rows in {catalog.path} ({location.format}), columns {', '.join(source.columns)}"
    for note in source.notes:
        yield f"note: {note}"
    for row in rows[:SHOWN]:
        yield _shown(row)
    refused = Counter(row["reason"] for row in rows if row["reason"])
    ids = Counter(row["item_id"] for row in rows if row["item_id"] and not row["reason"])
    refused["duplicate_id"] += sum(n for n in ids.values() if n > 1)
    reasons = ", ".join(f"{reason} {n}" for reason, n in refused.most_common() if n)
    yield f"of the first {len(rows)} rows {sum(refused.values())} would be quarantined{f' ({reasons})' if reasons else ''}"


def _sample(source: Source, catalog: CatalogSettings) -> list[dict[str, Any]]:
    plan = source.plan
    if plan is None:
        return [row.asDict() for row in source.frame.limit(SAMPLE).collect()]
    options = feed_options(catalog)
    convert = SourceRows(options)
    raw = ((n * PART_ROWS + i, row) for n, part in enumerate(plan.parts) for i, row in enumerate(read(part, plan.format, options)))
    rows = [convert(row, position) for position, row in islice(raw, SAMPLE)]
    return _with_inherited(rows, catalog.inherit) if catalog.inherit else rows


def _with_inherited(rows: list[dict[str, Any]], fields: tuple[str, ...]) -> list[dict[str, Any]]:
    first: dict[tuple[str, str], Any] = {}
    for row in rows:
        for field in fields:
            if row["group_id"] and row[field] is not None:
                first.setdefault((row["group_id"], field), row[field])
    return [row | {f: row[f] if row[f] is not None else first.get((row["group_id"], f)) for f in fields} for row in rows]


def _examined(examiner: Examiner, row: dict[str, Any]) -> dict[str, Any]:
    """The row with `reason`, and with `picture`: whether its picture is there."""
    item = row["item_id"]
    if not row["reason"] and item is None:
        return row | {"reason": "missing_id", "detail": "the row has no id", "picture": "not looked for"}
    if not row["reason"] and (len(item) > MAX_ID or any(unicodedata.category(c) == "Cc" for c in item)):
        return row | {"reason": "bad_id", "detail": BAD_ID, "picture": "not looked for"}
    return row | examiner.looked_for(row)


def _shown(row: dict[str, Any]) -> str:
    levels = row["category"].split(" > ") if row["category"] else []
    fate = f"; quarantined: {row['reason']} ({row['detail']})" if row["reason"] else ""
    return f"  {row['item_id'] or '(no id)'}: title {row['title']!r}, category {levels}, picture {row['picture']}{fate}"
