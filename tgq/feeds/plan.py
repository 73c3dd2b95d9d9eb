"""What is read of a feed: its parts in order, with its columns matched and everything that is to be said about them.

Cost: a look at the beginning of each file; what is kept grows with the number of files, not of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tgq.errors import SourceError
from tgq.feeds.columns import Matched, match, required
from tgq.feeds.feed import inspect
from tgq.feeds.files import FeedFile
from tgq.feeds.options import FeedOptions
from tgq.feeds.rows import Inspected, Part

SHOWN = 3  # files that a message names
CONTENT = ("title", "brand", "category", "attributes", "image_uri", "image_bytes")
Look = Callable[[Sequence[FeedFile]], Iterable[Inspected]]


@dataclass(frozen=True)
class Plan:
    """A feed that can be read.

    Attributes:
        format: csv, jsonl, parquet or xml.
        parts: what the tasks read, in the feed's order.
        columns: the names of all files.
        rows: how many rows there are; an estimate unless the format is Parquet.
        size: bytes on disk.
        notes: what its owner should know: names that were matched loosely, fields without a column, files that differ.
    """

    format: str
    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    rows: int
    size: int
    notes: tuple[str, ...] = ()


def plan_feed(files: Sequence[FeedFile], format: str, options: FeedOptions, place: str, look: Look | None = None) -> Plan:
    """Look at every file and match its columns.

    Args:
        files: in the feed's order.
        options: which columns are read, and how.
        place: the catalog's path, for messages.
        look: does the looking, in parallel where there are many files; one after the other by default.

    Raises:
        SourceError: a file cannot be read, nothing in it reads as `format`, a column is missing or ambiguous, or has a type
            that cannot be used.
    """
    found = list(look(files) if look else (inspect(f, format, options) for f in files))
    columns = tuple(dict.fromkeys(name for one in found for name in one.columns))
    if not columns:
        raise SourceError(f"{place} holds nothing that reads as {format}", "check catalog.format and the file")
    by_names: dict[tuple[str, ...], Matched] = {}
    for file, one in zip(files, found, strict=True):
        if one.parts:
            check_types(one.types, by_names.setdefault(one.columns, match(one.columns, options, file.uri)), file.uri)
    whole = match_all(columns, list(by_names.values()), options, place)
    # the names of JSON come from a sample of its objects, so a name that was not seen may still be there
    different = _different(files, found, by_names, whole) if format != "jsonl" else []
    notes = (*notes_of(whole, options), *different)
    parts = tuple(part for one in found for part in one.parts)
    return Plan(format, parts, columns, sum(one.rows for one in found if one.parts), sum(f.size for f in files), notes)


def match_all(columns: Sequence[str], matches: Sequence[Matched], options: FeedOptions, place: str) -> Matched:
    """All files' matches as one; a field must stand in one of them.

    Raises:
        SourceError: a required column is missing everywhere, or only the id is there.
    """
    fields: dict[str, tuple[tuple[str, ...], ...]] = {}
    for one in matches:
        for name, paths in one.fields.items():
            fields[name] = tuple(dict.fromkeys((*fields.get(name, ()), *paths)))
    renamed = tuple(dict.fromkeys(r for one in matches for r in one.renamed))
    absent = tuple((name, names) for name, names in options.columns.items() if name not in fields)
    for name, names in absent:
        if name in required(options):
            setting = f"catalog.columns.{name} names the column '{' or '.join(names)}'"
            if name.startswith("slices."):
                setting = f"catalog.slice_columns names {names[0]}"
            raise SourceError(f"{setting}, which {place} does not have", f"its columns are {', '.join(columns)}")
    content = [f for f in options.columns if f in CONTENT or f.startswith("attributes.")]
    if content and not any(name in fields for name in content):
        raise SourceError(
            f"none of the mapped columns but the id is in {place}, which has {', '.join(columns)}",
            "map at least an image or a text column in catalog.columns",
        )
    return Matched(fields, renamed, absent)


def check_types(types: Mapping[str, pa.DataType], matched: Matched, place: str) -> None:
    """Refuse columns whose type no row could fill.

    Raises:
        SourceError: a category that is an object, or picture bytes of a type that holds none.
    """
    for field, path in ((f, p) for f, paths in matched.fields.items() for p in paths if len(p) == 1):
        kind = types.get(path[0])
        if kind is None or pa.types.is_null(kind):
            continue
        if field == "category" and (pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_binary(kind)):
            raise SourceError(f"the category column '{path[0]}' of {place} is of type {kind}", "map a text or an array of levels")
        if field == "image_bytes" and (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind)):
            raise SourceError(f"the image column '{path[0]}' of {place} is of type {kind}", "map a binary column, or base64 text")


def notes_of(matched: Matched, options: FeedOptions) -> list[str]:
    """Sentences about names that were matched loosely, and about fields that have no column."""
    notes = [f"the column '{found}' is read as '{wanted}' (catalog.columns.{field})" for field, wanted, found in matched.renamed]
    absent = [name for name, _ in matched.absent if name in options.optional and name in CONTENT and not name.startswith("image")]
    if absent:
        notes.append(f"no column for {', '.join(absent)}: these fields stay empty; map them in catalog.columns if the catalog has them")
    if "image_uri" in options.columns and not {"image_uri", "image_bytes"} & set(matched.fields):
        notes.append("no column for pictures: items are embedded by their text only; map catalog.columns.image_uri if the catalog has pictures")
    return notes


def _different(files: Sequence[FeedFile], found: Sequence[Inspected], by_names: Mapping[tuple[str, ...], Matched], whole: Matched) -> list[str]:
    """A sentence for each field that only some files have."""
    notes = []
    for field in whole.fields:
        without = [f.name for f, one in zip(files, found, strict=True) if one.parts and field not in by_names[one.columns].fields]
        if without:
            more = f" and {len(without) - SHOWN} more files" if len(without) > SHOWN else ""
            notes.append(f"no column for {field} in {', '.join(without[:SHOWN])}{more}: it stays empty there")
    return notes
