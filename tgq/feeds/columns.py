"""Which column of a file is which field: by exact name, else by the name without regard to case and blanks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tgq.errors import SourceError
from tgq.feeds.options import FeedOptions

Path = tuple[str, ...]  # a column, or a column and names inside of it
MEMO = 10_000  # sets of names that are remembered; JSON may have a new one in every object


def bare(name: str) -> str:
    """A name for comparison: NFC, lower case, runs of blanks as one, none at the edges."""
    return " ".join(unicodedata.normalize("NFC", name).replace("\ufeff", "").casefold().split())


def same_name(column: str, name: str) -> bool:
    """Whether a column is the one named, or nearly."""
    return bare(column) == bare(name.removesuffix("?"))


@dataclass(frozen=True)
class Matched:
    """Where the fields stand.

    Attributes:
        fields: field -> the columns that may fill it, in order of preference.
        renamed: (field, name looked for, name found) where only case or blanks differed.
        absent: fields without a column, with the names looked for.
    """

    fields: dict[str, tuple[Path, ...]]
    renamed: tuple[tuple[str, str, str], ...]
    absent: tuple[tuple[str, tuple[str, ...]], ...]


def match(columns: Sequence[str], options: FeedOptions, place: str) -> Matched:
    """Find every field's columns among a file's.

    Raises:
        SourceError: two columns could be meant.
    """
    fields: dict[str, tuple[Path, ...]] = {}
    renamed, absent = [], []
    for field, names in options.columns.items():
        found = []
        for name in names:
            wanted = name.removesuffix("?")
            path = find(columns, wanted, place, field)
            if path:
                found.append(path)
                if path[0] != wanted and not wanted.startswith(path[0] + "."):
                    renamed.append((field, wanted, path[0]))
        if found:
            fields[field] = tuple(found)
        else:
            absent.append((field, names))
    return Matched(fields, tuple(renamed), tuple(absent))


class Matcher:
    """Matches rows by their own names. A set of names is matched once, because a feed repeats few of them.

    Args:
        options: which columns are read.
    """

    def __init__(self, options: FeedOptions):
        self._options = options
        self._memo: dict[tuple[str, ...], Matched | SourceError] = {}

    def __call__(self, names: tuple[str, ...]) -> Matched:
        """Find the fields of a row with these names.

        Raises:
            SourceError: two of the names could be meant.
        """
        found = self._memo.get(names)
        if found is None:
            try:
                found = match(names, self._options, "the row")
            except SourceError as e:
                found = e
            if len(self._memo) < MEMO:
                self._memo[names] = found
        if isinstance(found, SourceError):
            raise found
        return found


def cell(row: Mapping[str, Any], path: Path) -> Any:
    """What stands in a row at a path; None where there is nothing."""
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def find(columns: Sequence[str], name: str, place: str = "the catalog", field: str = "") -> Path | None:
    """The column of that name, exactly or nearly; 'image.bytes' is also `bytes` inside of the column `image`.

    Raises:
        SourceError: several columns have the name.
    """
    exact = [c for c in columns if c == name]
    near = exact or [c for c in columns if bare(c) == bare(name)]
    if len(near) > 1:
        shown = ", ".join(f"'{c}'" for c in near)
        raise SourceError(
            f"{len(near)} columns of {place} could be '{name}'{f' (catalog.columns.{field})' if field else ''}: {shown}",
            "rename one of them, or name the right one in catalog.columns",
        )
    if near:
        return (near[0],)
    outer, dot, inner = name.partition(".")
    if dot and (path := find(columns, outer, place, field)):
        return (*path, *inner.split("."))
    return None


def top_level(columns: Sequence[str], options: FeedOptions) -> list[str]:
    """The columns that have to be read, each once."""
    matched = match(columns, options, "the file")
    return list(dict.fromkeys(path[0] for paths in matched.fields.values() for path in paths))


def required(options: FeedOptions) -> Iterable[str]:
    """Fields that must have a column: the id, and those that are not optional and have a name that does not end in '?'."""
    needed = (f for f, names in options.columns.items() if f not in options.optional and not all(n.endswith("?") for n in names))
    return dict.fromkeys((*(f for f in options.columns if f == "item_id"), *needed))
