"""CSV, record by record: cells are matched by name, and a record that is not whole is refused alone.

A quote that is never closed would swallow every line behind it. So a record that spans lines and does not come out whole is
taken back: its first line is refused, and reading goes on with its second. Cost: one pass, memory of one record.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence

from tgq.errors import SourceError
from tgq.feeds.columns import same_name
from tgq.feeds.files import FeedFile, head, opened
from tgq.feeds.options import CsvOptions, FeedOptions
from tgq.feeds.readers.encodings import encoding_of, is_bad, shown
from tgq.feeds.readers.lines import byte_ranges, text_lines
from tgq.feeds.rows import LONGEST_ROW, Inspected, Part, RawRow, malformed

SEPARATORS = ",\t;|"
HINT = re.compile(r'"?sep=(.)"?\s*')  # the line by which Excel tells the separator
END = "unexpected end of data"  # what the csv module says of a quote that is open at the end
CELLS = "cells where the header has"
NOT_CLOSED = "a quote opens here that is not closed: mend the row, or set catalog.csv.quote to null where quotes mean nothing"
RAW = 2000  # characters of a refused record that are kept


class Records:
    """Records of one file with the lines that each was made of.

    Iterating yields (cells, lines, error): error is None for a whole record.
    """

    def __init__(self, lines: Iterator[str], options: CsvOptions, sep: str):
        csv.field_size_limit(LONGEST_ROW)
        self._lines, self._again, self._taken = lines, deque[str](), list[str]()
        self._options = options
        doubled = options.escape in ("", options.quote)
        self._dialect = {
            "delimiter": sep, "strict": True, "doublequote": doubled, "escapechar": None if doubled else options.escape,
            **({"quotechar": options.quote} if options.quote else {"quoting": csv.QUOTE_NONE}),
        }  # fmt: skip
        self._reader = csv.reader(_Feed(self), **self._dialect)  # type: ignore[arg-type]
        self._plain = {"delimiter": sep, "quoting": csv.QUOTE_NONE}
        self.width: int | None = None

    def next_line(self) -> str:
        """The next physical line, for the reader."""
        if sum(map(len, self._taken)) > LONGEST_ROW or len(self._taken) > self._options.max_cell_lines or (self._taken and not self._options.multiline):
            raise StopIteration  # the quote counts as never closed
        line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append(line)
        if len(line) > LONGEST_ROW:
            raise csv.Error(f"a line of more than {LONGEST_ROW >> 20} MiB")
        return line

    def push_back(self, lines: Sequence[str]) -> None:
        """Let these lines be the next ones."""
        self._again.extendleft(reversed(lines))

    def __iter__(self) -> Iterator[tuple[list[str], list[str], str | None]]:
        while True:
            self._taken = []
            try:
                cells, error = next(self._reader), None
            except StopIteration:
                return
            except csv.Error as e:
                cells, error = [], str(e)
            taken = self._taken
            if error == END:
                error = NOT_CLOSED
            if error is None and not cells:
                continue  # an empty line
            if error is None and self.width is not None and len(cells) != self.width:
                error = f"{len(cells)} {CELLS} {self.width}"
            if len(taken) > 1 and (self._resumes(taken, error) if error else self._swallows(taken)):
                error = NOT_CLOSED
                self.push_back(taken[1:])
                taken = taken[:1]
            yield cells, taken, error

    def _resumes(self, lines: list[str], error: str) -> bool:
        """Whether rows stand on the later lines of a broken record: its quotes are wrong, or a line alone is whole."""
        return CELLS not in error or any(self._count(line) == self.width for line in lines[1:])

    def _swallows(self, lines: list[str]) -> bool:
        """Whether each line of a whole record would be a row by itself: then its quotes come from two different rows."""
        return self.width is not None and self.width > 2 and all(self._count(line, plain=True) == self.width for line in lines)

    def _count(self, line: str, plain: bool = False) -> int:
        try:
            return len(next(csv.reader([line], **(self._plain if plain else self._dialect)), ()))
        except csv.Error:
            return 0


class _Feed:
    """An iterator that may end and go on, which a generator cannot."""

    def __init__(self, records: Records):
        self._records = records

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        return self._records.next_line()


def inspect(file: FeedFile, options: FeedOptions) -> Inspected:
    """The header, and how the file is read in parts.

    Raises:
        SourceError: it has no header with the id's column, or its encoding is not known.
    """
    beginning = head(file)
    encoding = encoding_of(file, beginning, options.encoding)
    lines = list(io.StringIO(beginning.decode(encoding, "ignore"), newline=""))
    sep = _separator(lines, file, options)
    names = _header(Records(_unhinted(iter(lines)), options.csv, sep), file, options)
    rest = beginning.count(b"\n")
    rows = round(file.size * (4 if file.compression else 1) / max(len(beginning), 1) * rest) if rest else 1
    splits = not options.csv.multiline and file.compression is None and encoding in ("utf-8", "utf-8-sig")
    mode = f"{encoding} {sep}"
    ranges = byte_ranges(file.size, options.part_bytes) if splits else [(0, None)]
    return Inspected(names, tuple(Part(file, start, end, mode) for start, end in ranges) if beginning else (), rows, {})


def read(part: Part, options: FeedOptions) -> Iterator[RawRow]:
    """The part's rows by the header's names.

    Raises:
        SourceError: the file cannot be read or decoded.
    """
    encoding, sep = part.mode[:-2], part.mode[-1]
    first = Part(part.file, 0, part.end, part.mode)
    with opened(part.file) as stream:
        lines = text_lines(stream, part, encoding)
        records = Records(lines if part.start else _unhinted(lines), options.csv, sep)
        if part.start:
            with opened(part.file) as again:
                names = _header(Records(_unhinted(text_lines(again, first, encoding)), options.csv, sep), part.file, options)
            records.width = len(names)
        else:
            names = _header(records, part.file, options)
        unique = [name if name not in names[:n] else f"{name}\0{n}" for n, name in enumerate(names)]
        for cells, taken, error in records:
            if error:
                raw = shown("".join(taken))[:RAW]
                yield malformed(error, raw)
            else:
                yield RawRow(dict(zip(unique, cells, strict=True)))


def _separator(lines: list[str], file: FeedFile, options: FeedOptions) -> str:
    """The setting; Excel's hint; the tab of a .tsv; else what splits the header so that one name is the id's, or into the most names."""
    if options.csv.sep:
        return options.csv.sep
    if lines and (hint := HINT.fullmatch(lines[0])):
        return hint[1]
    if file.suffix in (".tsv", ".tab"):
        return "\t"

    def quality(sep: str) -> tuple[bool, int]:
        cells = next(iter(Records(iter(lines), options.csv, sep)), ((), (), None))[0]
        ids = options.columns.get("item_id", ())
        return any(same_name(c, i) for c in cells for i in ids), len(cells)

    return max(SEPARATORS, key=quality)


def _unhinted(lines: Iterator[str]) -> Iterator[str]:
    """The lines without Excel's hint at the separator."""
    first = next(lines, None)
    if first is not None and not HINT.fullmatch(first):
        yield first
    yield from lines


def _header(records: Records, file: FeedFile, options: FeedOptions) -> tuple[str, ...]:
    """The names on the first line; sets the records' width.

    Raises:
        SourceError: no name there is the id's, so that the line is no header.
    """
    found = next(iter(records), None)
    if found is None:
        return ()
    cells, lines, error = found
    if not options.csv.header:
        records.push_back(lines)
        records.width = len(cells)
        return tuple(f"_c{n}" for n in range(len(cells)))
    cells = [cell.removeprefix("\ufeff") for cell in cells]
    ids = options.columns.get("item_id", ())
    if error or (ids and not any(same_name(cell, name) for cell in cells for name in ids)):
        line = shown("".join(lines)).strip()[:120]
        if any(is_bad(cell) for cell in cells):
            line += " (not UTF-8)"
        raise SourceError(
            f"the first line of {file.uri} names no column {' or '.join(ids) or 'at all'}; it is: {line}",
            "give each CSV file its header, map the id's column in catalog.columns.item_id, or set catalog.csv.sep or catalog.csv.header=false",
        )
    records.width = len(cells)
    return tuple(cells)
