"""Lines of a text file, or of a range of its bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from tgq.errors import SourceError
from tgq.feeds.readers.encodings import SETTING
from tgq.feeds.rows import LONGEST_ROW, Part

CHUNK = 2**20


def byte_ranges(size: int, part_bytes: int) -> list[tuple[int, int | None]]:
    """(start, end) of parts of about `part_bytes`; the last has no end."""
    starts = range(0, max(size, 1), part_bytes)
    return [(start, start + part_bytes if start + part_bytes < size else None) for start in starts]


def byte_lines(stream: IO[bytes], part: Part) -> Iterator[bytes]:
    """The lines that begin in the part, without skipping any: a line belongs to the part that holds its first byte.

    Of a line of more than LONGEST_ROW bytes so many and one are given, so that a packed file without line ends does not fill the memory.
    """
    position = part.start
    if part.start:
        stream.seek(part.start - 1)
        position += _skip(stream, b"") - 1
    while part.end is None or position < part.end:
        line = stream.readline(LONGEST_ROW + 1)
        if not line:
            return
        position += len(line) + (_skip(stream, line) if len(line) > LONGEST_ROW else 0)
        yield line


def _skip(stream: IO[Any], line: str | bytes) -> int:
    """Read to the end of a line of which `line` was read; the length of what was read."""
    skipped, ends = 0, ("\n", "\r") if isinstance(line, str) else (b"\n",)
    while not line or line[-1:] not in ends:
        line = stream.readline(CHUNK)
        if not line:
            break
        skipped += len(line)
    return skipped


def text_lines(stream: IO[bytes], part: Part, encoding: str) -> Iterator[str]:
    """The part's lines with their ends (LF, CRLF or CR), long ones cut as by `byte_lines`.

    A byte that is not UTF-8 becomes a lone surrogate, so that its row can be refused alone.

    Raises:
        SourceError: the file is not in its encoding, where one bad byte spoils all that follows (UTF-16).
    """
    if part.start or part.end is not None:
        for line in byte_lines(stream, part):
            yield line.decode("utf-8-sig" if not part.start else "utf-8", "surrogateescape")
        return
    with _decoded(stream, part, encoding) as text:
        while whole := text.readline(LONGEST_ROW + 1):
            if len(whole) > LONGEST_ROW:
                _skip(text, whole)
            yield whole


def text_pieces(stream: IO[bytes], part: Part, encoding: str) -> Iterator[str]:
    """The text of a whole file in pieces, wherever its lines end. Raises as `text_lines`."""
    with _decoded(stream, part, encoding) as text:
        while piece := text.read(CHUNK):
            yield piece


@contextmanager
def _decoded(stream: IO[bytes], part: Part, encoding: str) -> Iterator[io.TextIOWrapper]:
    wide = encoding.startswith(("utf-16", "utf-32", "utf_16", "utf_32"))
    try:
        yield io.TextIOWrapper(stream, encoding, errors="strict" if wide else "surrogateescape", newline="")
    except UnicodeError as e:
        raise SourceError(f"{part.file.uri} is not {encoding}: {e}", f"set {SETTING} to the file's encoding") from e
