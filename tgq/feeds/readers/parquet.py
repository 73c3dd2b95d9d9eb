"""Parquet: the mapped columns of each file, by name, whatever types the others have.

Cost: the footer of each file beforehand; then the pages of the mapped columns.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tgq.errors import SourceError
from tgq.feeds.columns import top_level
from tgq.feeds.files import FeedFile, opened
from tgq.feeds.options import FeedOptions
from tgq.feeds.rows import BAD_TEXT, Inspected, Part, RawRow

BATCH_ROWS, BATCH_BYTES = 512, 2**28


def inspect(file: FeedFile, options: FeedOptions) -> Inspected:
    """Columns, types and rows from the footer; parts of whole row groups.

    Raises:
        SourceError: it is no Parquet file.
    """
    with _readable(file) as parquet:
        schema, meta = parquet.schema_arrow, parquet.metadata
        parts, start, size = [], 0, 0
        for group in range(meta.num_row_groups):
            size += meta.row_group(group).total_byte_size
            if size >= options.part_bytes or group + 1 == meta.num_row_groups:
                parts.append(Part(file, start, group + 1))
                start, size = group + 1, 0
        return Inspected(tuple(schema.names), tuple(parts), meta.num_rows, {f.name: f.type for f in schema})


def read(part: Part, options: FeedOptions) -> Iterator[RawRow]:
    """The part's rows, of the mapped columns only.

    Raises:
        SourceError: the file is damaged.
    """
    with _readable(part.file, shared=True) as parquet:
        names = top_level(parquet.schema_arrow.names, options)
        groups = list(range(part.start, part.end or 0))
        rows = sum(parquet.metadata.row_group(g).num_rows for g in groups)
        if not names:
            yield from (RawRow({}) for _ in range(rows))
            return
        found = 0
        for batch in parquet.iter_batches(_batch_rows(parquet, groups), row_groups=groups, columns=names, use_threads=False):
            found += batch.num_rows
            yield from batch_rows(batch)
        if found != rows:
            raise SourceError(f"{part.file.uri} holds {found} rows where its footer says {rows}", "write the file again")


def _batch_rows(parquet: pq.ParquetFile, groups: list[int]) -> int:
    """Rows of a batch: BATCH_ROWS, fewer where rows are large on average."""
    sizes = [(parquet.metadata.row_group(g).total_byte_size, parquet.metadata.row_group(g).num_rows) for g in groups]
    largest = max((size / rows for size, rows in sizes if rows), default=0)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(largest, 1))))


def _texts(parquet: pq.ParquetFile) -> list[str]:
    """Top-level columns of text that have a dictionary."""
    if not parquet.metadata.num_row_groups:
        return []
    group = parquet.metadata.row_group(0)
    kinds = {f.name: f.type for f in parquet.schema_arrow}
    chunks = (group.column(n) for n in range(group.num_columns))
    return [c.path_in_schema for c in chunks if c.has_dictionary_page and pa.types.is_string(kinds.get(c.path_in_schema, pa.null()))]


def batch_rows(batch: pa.RecordBatch) -> Iterator[RawRow]:
    """The rows of an Arrow batch as Python values. Text that is not UTF-8 keeps its bytes as lone surrogates."""
    columns = [_values(column) for column in batch.columns]
    for cells in zip(*columns, strict=True):
        bad = next((c for c in cells if isinstance(c, _Bad)), None)
        if bad:
            yield RawRow({n: None if isinstance(c, _Bad) else c for n, c in zip(batch.schema.names, cells, strict=True)}, BAD_TEXT, bad.detail)
        else:
            yield RawRow(dict(zip(batch.schema.names, cells, strict=True)))


class _Bad:
    """A nested value that cannot be shown as Python's."""

    def __init__(self, detail: str):
        self.detail = detail


def _values(column: pa.Array) -> list[Any]:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        is_uuid = "uuid" in kind.extension_name
        column, kind = column.storage, kind.storage_type
        if is_uuid:
            return [None if v is None else str(uuid.UUID(bytes=v)) for v in column.to_pylist()]
    if pa.types.is_dictionary(kind):
        # each once: a long text that a million rows share must not become a million texts; and only those of this batch's rows
        used = column.indices.unique().drop_null()
        known = dict(zip(used.to_pylist(), _values(column.dictionary.take(used)), strict=True))
        return [None if n is None else known[n] for n in column.indices.to_pylist()]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        binary = column.cast(pa.large_binary()) if not pa.types.is_string_view(kind) else column.cast(pa.large_string()).cast(pa.large_binary())
        return [None if v is None else v.decode("utf-8", "surrogateescape") for v in binary.to_pylist()]
    if pa.types.is_fixed_size_binary(kind) and kind.byte_width == 16:
        return [None if v is None else _uuid_or_bytes(v) for v in column.to_pylist()]
    if pa.types.is_temporal(kind):
        try:
            return column.cast(pa.string()).to_pylist()
        except pa.ArrowException:  # a duration has no cast to text
            return [None if v is None else str(v) for v in column.cast(pa.int64()).to_pylist()]
    if pa.types.is_float16(kind):
        return column.cast(pa.float32()).to_pylist()
    try:
        return column.to_pylist()
    except (UnicodeError, ValueError, pa.ArrowException):
        return [_one(column[n]) for n in range(len(column))]


def _one(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (UnicodeError, ValueError, pa.ArrowException) as e:
        return _Bad(" ".join(str(e).split())[:200])


def _uuid_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return str(uuid.UUID(bytes=value))


@contextmanager
def _readable(file: FeedFile, shared: bool = False) -> Iterator[pq.ParquetFile]:
    """The file; with `shared`, columns of text that are written with a dictionary are read with it."""
    try:
        with opened(file) as stream:
            parquet = pq.ParquetFile(stream)
            if shared and (texts := _texts(parquet)):
                stream.seek(0)
                parquet = pq.ParquetFile(stream, read_dictionary=texts)
            yield parquet
    except (pa.ArrowException, OSError) as e:
        said = re.sub(r"\s+", " ", str(e))[:200]
        raise SourceError(f"{file.uri} cannot be read as Parquet: {said}", "write the file again, or set catalog.format") from e
