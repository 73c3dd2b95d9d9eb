"""One row as a reader gives it, and what a reader learns of a file before it reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from tgq.feeds.files import FeedFile

MALFORMED, BAD_TEXT, TOO_LONG = "malformed_row", "bad_text", "text_too_long"
LONGEST_ROW = 2**27  # bytes of a line, or characters of a record or an object; a picture in base64 makes a long row


class RawRow(NamedTuple):
    """A row by the file's own column names, or the reason why it is none with the text that stands there."""

    values: Mapping[str, Any]
    reason: str | None = None
    detail: str | None = None
    raw: str | None = None


def malformed(detail: str, raw: str) -> RawRow:
    """A row that cannot be told apart into cells."""
    return RawRow({}, MALFORMED, detail, raw)


@dataclass(frozen=True)
class Part:
    """What one task reads: a whole file, a range of its bytes, or a range of its row groups."""

    file: FeedFile
    start: int = 0
    end: int | None = None
    mode: str = ""


@dataclass(frozen=True)
class Inspected:
    """What a look at the beginning of a file told.

    Attributes:
        columns: names in the file's order; of JSON, those of its first objects.
        parts: what to read, in order.
        rows: how many rows there are: exact for Parquet, else an estimate from the file's size.
        types: Arrow types, where the format has any.
    """

    columns: tuple[str, ...]
    parts: tuple[Part, ...]
    rows: int
    types: Mapping[str, pa.DataType]
