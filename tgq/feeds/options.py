"""How feed files are to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CsvOptions:
    """The CSV dialect.

    Attributes:
        sep: one character; None finds it in the header among tab, comma, semicolon and bar.
        quote: the quote character; empty: quotes have no meaning.
        escape: the quote itself (a quote inside a cell is doubled), or another character that stands before it.
        header: whether each file begins with the names of its columns; without it they are `_c0`, `_c1`, ...
        multiline: whether a quoted cell may hold line breaks. Without it a large file is read by several tasks.
        max_cell_lines: line breaks in one record beyond which its quote counts as never closed.
    """

    sep: str | None = None
    quote: str = '"'
    escape: str = '"'
    header: bool = True
    multiline: bool = True
    max_cell_lines: int = 200


@dataclass(frozen=True)
class FeedOptions:
    """What is read of a feed.

    Attributes:
        columns: field -> the names that its column may have, the first filled one of a row counts. `attributes.<name>` is
            a field for each attribute that has a column of its own.
        optional: fields that may be absent. A name that ends in `?` may be absent too.
        encoding: of text files; None: by byte order mark, else UTF-8.
        csv: the dialect.
        category_separator: between the levels of a category path.
        category_list_separator: between several paths in one cell; None: a cell is one path.
        missing: texts, in lower case, that mean "no value" where they are a whole cell.
        part_bytes: about how much one task reads.
    """

    columns: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()
    encoding: str | None = None
    csv: CsvOptions = field(default_factory=CsvOptions)
    category_separator: str = ">"
    category_list_separator: str | None = None
    missing: frozenset[str] = frozenset()
    part_bytes: int = 64 * 2**20
