"""Lines of a text file, or of a range of its bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO

from tgq.errors import SourceError
from tgq.feeds.readers.encodings import SETTING
from tgq.feeds.rows import Part


def byte_ranges(size: int, part_bytes: int) -> list[tuple[int, int | None]]:
    """(start, end) of parts of about `part_bytes`; the last has no end."""
    starts = range(0, max(size, 1), part_bytes)
    return [(start, start + part_bytes if start + part_bytes < size else None) for start in starts]


def byte_lines(stream: IO[bytes], part: Part) -> Iterator[bytes]:
    """The lines that begin in the part, without skipping any: a line belongs to the part that holds its first byte."""
    position = part.start
    if part.start:
        stream.seek(part.start - 1)
        position += len(stream.readline()) - 1
    while part.end is None or position < part.end:
        line = stream.readline()
        if not line:
            return
        position += len(line)
        yield line


def text_lines(stream: IO[bytes], part: Part, encoding: str) -> Iterator[str]:
    """The part's lines with their ends (LF, CRLF or CR).

    A byte that is not UTF-8 becomes a lone surrogate, so that its row can be refused alone.

    Raises:
        SourceError: the file is not in its encoding, where one bad byte spoils all that follows (UTF-16).
    """
    if part.start or part.end is not None:
        for line in byte_lines(stream, part):
            yield line.decode("utf-8-sig" if not part.start else "utf-8", "surrogateescape")
        return
    wide = encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
    text = io.TextIOWrapper(stream, encoding, errors="strict" if wide else "surrogateescape", newline="")
    try:
        yield from text
    except UnicodeError as e:
        raise SourceError(f"{part.file.uri} is not {encoding}: {e}", f"set {SETTING} to the file's encoding") from e
