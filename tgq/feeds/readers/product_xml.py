"""XML product feeds (RSS 2.0 and Atom with Google's namespace): each <item> or <entry> is a row.

Entities and external documents are refused (defusedxml). Cost: one pass, memory of one item.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from tgq.errors import SourceError
from tgq.feeds.files import FeedFile, opened
from tgq.feeds.options import FeedOptions
from tgq.feeds.rows import LONGEST_ROW, Inspected, Part, RawRow, malformed

ITEMS = ("item", "entry", "product", "offer")
SAMPLE = 200


def inspect(file: FeedFile, options: FeedOptions) -> Inspected:
    """The names in the first items. One task reads the whole file."""
    part, names, found = Part(file), dict[str, None](), 0
    for row in islice(read(part, options), SAMPLE):
        names.update(dict.fromkeys(row.values))
        found += 1
    return Inspected(tuple(names), (part,), max(found, file.size // 1000), {})


def read(part: Part, options: FeedOptions) -> Iterator[RawRow]:
    """Each item's children by name without namespace; one that stands there several times is a list.

    Raises:
        SourceError: the file is not well-formed, or has no items.
    """
    found = 0
    try:
        with opened(part.file) as opened_file:
            inside, stream = 0, _Bounded(opened_file, part.file)
            for event, element in iterparse(stream, events=("start", "end"), forbid_dtd=False):
                name = _name(element)
                if name in ITEMS:
                    inside += 1 if event == "start" else -1
                    if event == "end" and not inside:
                        found += 1
                        yield _row(element)
                        element.clear()
                        stream.since = 0
                elif event == "end" and not inside:
                    element.clear()
    except ParseError as e:
        raise SourceError(f"{part.file.uri} is not well-formed XML: {e}", "write the feed again; nothing behind that line can be read") from e
    except DefusedXmlException as e:
        what = f"{part.file.uri} is refused: it defines entities or names external documents ({type(e).__name__})"
        raise SourceError(what, "write the feed without them") from e
    if not found:
        raise SourceError(f"{part.file.uri} has no <{'>, <'.join(ITEMS[:2])}>", "name a product feed, in RSS 2.0 or Atom")


class _Bounded:
    """A stream that ends with an error if the parser finds no end of an item in LONGEST_ROW bytes: it would keep all of them."""

    def __init__(self, stream: IO[bytes], file: FeedFile):
        self._stream, self._file, self.since = stream, file, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.since += len(data)
        if self.since > LONGEST_ROW:
            raise SourceError(f"{self._file.uri} has an item of more than {LONGEST_ROW >> 20} MiB", "write the feed again")
        return data


def _row(element: Element) -> RawRow:
    try:
        return RawRow(_children(element))
    except RecursionError:
        return malformed("nested too deeply", f"<{_name(element)}>")


def _children(element: Element) -> dict[str, Any]:
    values: dict[str, Any] = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for child in element:
        name = _name(child)
        value: Any = _children(child) if len(child) else (child.text or "").strip() or child.get("href")
        if name not in values:
            values[name] = value
        elif isinstance(values[name], list):
            values[name].append(value)
        else:
            values[name] = [values[name], value]
    return values


def _name(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
