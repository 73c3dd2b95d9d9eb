"""Readers by format."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from tgq.feeds.files import FeedFile
from tgq.feeds.options import FeedOptions
from tgq.feeds.readers import delimited, json_objects, parquet, product_xml
from tgq.feeds.rows import Inspected, Part, RawRow

READERS: dict[str, ModuleType] = {"csv": delimited, "jsonl": json_objects, "parquet": parquet, "xml": product_xml}


def inspect(file: FeedFile, format: str, options: FeedOptions) -> Inspected:
    """A look at the beginning of a file.

    Raises:
        SourceError: it cannot be read as `format`.
    """
    found: Inspected = READERS[format].inspect(file, options)
    return Inspected((*found.columns, *(name for name, _ in file.partition if name not in found.columns)), found.parts, found.rows, found.types)


def read(part: Part, format: str, options: FeedOptions) -> Iterator[RawRow]:
    """A part's rows, with the partition values of its folders as text.

    Raises:
        SourceError: the file cannot be read to its end.
    """
    partition = dict(part.file.partition)
    for row in READERS[format].read(part, options):
        yield row._replace(values={**row.values, **partition}) if partition else row
