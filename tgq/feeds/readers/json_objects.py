"""JSON: one object a line, several on a line, objects over several lines, or one array.

Reading ends at the last byte of the file or at an error, never before. Cost: one pass, memory of one object; lines can be
read by several tasks, the other shapes by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from tgq.errors import SourceError
from tgq.feeds.files import HEAD_BYTES, FeedFile, head, opened
from tgq.feeds.options import FeedOptions
from tgq.feeds.readers.encodings import encoding_of, shown
from tgq.feeds.readers.lines import CHUNK, byte_lines, byte_ranges, text_lines, text_pieces
from tgq.feeds.rows import BAD_TEXT, LONGEST_ROW, Inspected, Part, RawRow, malformed

TOO_LARGE = f"of more than {LONGEST_ROW >> 20} MiB"
LINES, ARRAY, OBJECTS = "lines", "array", "objects"
RAW = 2000
SAMPLE = 500  # objects whose names are looked at beforehand
_BETWEEN = re.compile(r"[\s,\x1e]*")
_DECODER = json.JSONDecoder()


def inspect(file: FeedFile, options: FeedOptions) -> Inspected:
    """The names in the first objects, and how the file is read in parts.

    Raises:
        SourceError: the encoding is not known.
    """
    beginning = head(file)
    encoding = encoding_of(file, beginning, options.encoding, by_row=True)
    text = beginning.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "ignore")
    shape = _shape(text, len(beginning) == HEAD_BYTES)
    names: dict[str, None] = {}
    found = 0
    for row in _first_rows(text, shape):
        names.update(dict.fromkeys(row.values))
        found += not row.reason
    splits = shape == LINES and file.compression is None and encoding.startswith("utf-8")
    ranges = byte_ranges(file.size, options.part_bytes) if splits else [(0, None)]
    scale = file.size * (4 if file.compression else 1) / max(len(beginning), 1)
    rows = round(max(text.count("\n"), found) * scale) if shape == LINES else round(found * max(scale, 1))
    mode = f"{shape} {encoding}"
    return Inspected(tuple(names), tuple(Part(file, start, end, mode) for start, end in ranges) if text.strip() else (), max(rows, 1), {})


def read(part: Part, options: FeedOptions) -> Iterator[RawRow]:
    """The part's objects as rows.

    Raises:
        SourceError: the file cannot be read; an array or objects over several lines that break off.
    """
    shape, encoding = part.mode.split(" ")
    with opened(part.file) as stream:
        if shape == LINES and encoding.startswith("utf-8"):
            for number, data in enumerate(byte_lines(stream, part)):
                yield from _line(data.removeprefix(b"\xef\xbb\xbf") if not number and not part.start else data)
        elif shape == LINES:
            for line in text_lines(stream, part, encoding):
                yield from _objects(line) if len(line) <= LONGEST_ROW else [malformed(TOO_LARGE, line[:RAW])]
        else:
            yield from _Stream(stream, part, encoding, shape)


def _line(data: bytes) -> Iterator[RawRow]:
    """The rows of one line: usually one object."""
    if not data.strip():
        return
    if len(data) > LONGEST_ROW:
        yield malformed(TOO_LARGE, data[:RAW].decode("utf-8", "replace"))
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        yield RawRow({}, BAD_TEXT, f"the line is not UTF-8 (byte 0x{data[e.start]:02x})", data.decode("utf-8", "replace")[:RAW])
        return
    yield from _objects(text)


def _objects(text: str) -> Iterator[RawRow]:
    """Every object in the text; what is left where one breaks off is one malformed row."""
    try:
        yield from _rows(json.loads(text), text)
        return
    except RecursionError:
        yield malformed("nested too deeply", shown(text)[:RAW])
        return
    except ValueError:
        pass
    position, end = _BETWEEN.match(text).end(), len(text)  # type: ignore[union-attr]
    while position < end:
        try:
            value, after = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as e:
            yield malformed(f"not JSON: {e}", shown(text[position:]).strip()[:RAW])
            return
        yield from _rows(value, text[position:after])
        position = _BETWEEN.match(text, after).end()  # type: ignore[union-attr]


def _rows(value: Any, text: str) -> Iterator[RawRow]:
    if isinstance(value, dict):
        yield RawRow(value)
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        yield from map(RawRow, value)
    else:
        yield malformed("not a JSON object", shown(text).strip()[:RAW])


def _shape(text: str, is_cut: bool) -> str:
    stripped = text.lstrip("\ufeff \t\r\n")
    if stripped.startswith("["):
        try:
            value, end = _DECODER.raw_decode(stripped)
            return LINES if "\n" in stripped[end:].strip("\r") and stripped[end:].strip() else ARRAY
        except (ValueError, RecursionError):
            return ARRAY
    first = stripped.partition("\n")[0]
    try:
        _DECODER.raw_decode(first)
        return LINES
    except (ValueError, RecursionError):
        pass
    if not stripped.startswith("{"):
        return LINES
    try:
        _DECODER.raw_decode(stripped)
        return OBJECTS
    except RecursionError:
        return LINES
    except ValueError:
        return OBJECTS if is_cut and first.rstrip() == "{" else LINES


def _first_rows(text: str, shape: str) -> Iterator[RawRow]:
    """Some rows from the beginning of a file; its cut end is ignored."""
    if shape == LINES:
        for line in text.lstrip("\ufeff").splitlines()[:SAMPLE]:
            if line.strip():
                yield from _objects(line)
        return
    position = _BETWEEN.match(text, text.find("[") + 1 if shape == ARRAY else text.find("{")).end()  # type: ignore[union-attr]
    for _ in range(SAMPLE):
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return
        yield from _rows(value, "")
        position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]


class _Stream:
    """The objects of one array, or one behind the other, decoded while the text comes in."""

    def __init__(self, stream: IO[bytes], part: Part, encoding: str, shape: str):
        self._pieces = text_pieces(stream, part, encoding)
        self._file, self._is_array = part.file, shape == ARRAY
        self._text, self._position, self._line = "", 0, 1

    def __iter__(self) -> Iterator[RawRow]:
        self._more()
        self._text = self._text.removeprefix("\ufeff")
        self._skip()
        if self._is_array:
            self._position += 1  # the bracket
            self._skip()
        while not self._at_end():
            value, end = self._value()
            yield from _rows(value, self._text[self._position : end])
            self._position = end
            self._skip()

    def _at_end(self) -> bool:
        """Whether all is read.

        Raises:
            SourceError: the array is not closed, or something stands behind it.
        """
        if self._position < len(self._text) and not (self._is_array and self._text[self._position] == "]"):
            return False
        if not self._is_array:
            return True
        if self._position >= len(self._text):
            raise self._broken("the array is not closed: the file breaks off")
        self._position += 1
        self._skip()
        if self._position < len(self._text):
            raise self._broken("something stands behind the array")
        return True

    def _value(self) -> tuple[Any, int]:
        while True:
            try:
                return _DECODER.raw_decode(self._text, self._position)
            except RecursionError:
                raise self._broken("an object is nested too deeply") from None
            except ValueError as e:
                if not self._more():
                    raise self._broken(f"an object is broken ({e})") from None

    def _skip(self) -> None:
        """To the next character that is neither blank nor a comma."""
        while True:
            self._position = _BETWEEN.match(self._text, self._position).end()  # type: ignore[union-attr]
            if self._position < len(self._text) or not self._more():
                return

    def _more(self) -> bool:
        """Read on; what was used is given up."""
        self._line += self._text.count("\n", 0, self._position)
        pieces, size = [self._text[self._position :]], 0
        wanted = max(CHUNK, len(pieces[0]))  # twice as much each time, so that a long object is not decoded over and over
        if len(pieces[0]) > LONGEST_ROW:
            raise self._broken(f"an object {TOO_LARGE}")
        for piece in self._pieces:
            pieces.append(piece)
            size += len(piece)
            if size >= wanted:
                break
        self._text, self._position = "".join(pieces), 0
        return size > 0

    def _broken(self, what: str) -> SourceError:
        line = self._line + self._text.count("\n", 0, self._position)
        return SourceError(f"{self._file.uri}, line {line}: {what}", "write the file again; with one object a line a broken one costs one row")
