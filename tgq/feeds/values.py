"""Values of any type as tgq keeps them: text, category paths, pictures."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from tgq.encoder.text import normalise
from tgq.feeds.readers.encodings import is_bad
from tgq.feeds.rows import BAD_TEXT, TOO_LONG

LEVELS = " > "
LONGEST = 4_000_000  # characters of a field, all attributes together; what is longer is no text that anybody wrote
_EDGES = "\u200b\u2060\ufeff"  # blanks to a reader, though not to Python
_EXACT = 2**53
_SEVERAL = re.compile(r"\s*[,|]\s*(?=(?:https?:)?//)", re.IGNORECASE)  # addresses in one cell: each begins with its scheme
_DATA = re.compile(r"data:[\w.+/-]*;base64,", re.IGNORECASE)
_ADDRESS = ("src", "url", "uri", "path", "href", "link")  # where an object that stands for a picture has its address


class BadValue(ValueError):
    """A value that cannot be kept: its row is refused for `reason`."""

    reason = BAD_TEXT


class TooLong(BadValue):
    """A text of more than LONGEST characters."""

    reason = TOO_LONG

    def __init__(self, length: int):
        super().__init__(f"{length:,} characters, above the limit of {LONGEST:,}")


def _short(value: Any) -> Any:
    """The value; TooLong if it is text or bytes above the limit. Asked first, because every step on such a text copies it."""
    if isinstance(value, str | bytes | bytearray | memoryview) and len(value) > LONGEST:
        raise TooLong(len(value))
    return value


def text(value: Any) -> str | None:
    """As text without blanks at its edges; None for what is missing or blank.

    Whole doubles have no '.0' (pandas makes doubles of integer columns with gaps). Lists are joined by ', ', objects are JSON.

    Raises:
        BadValue: bytes that are not UTF-8.
        TooLong: more than LONGEST characters.
    """
    if _short(value) is None:
        return None
    if not isinstance(value, str):
        value = _short(_shown(value))
        if value is None:
            return None
    if is_bad(value):
        raise BadValue("text that is not UTF-8: set catalog.csv.encoding, or mend the export")
    stripped: str = value.strip().strip(_EDGES).strip()
    return stripped or None


def _shown(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple):
        return ", ".join(shown for shown in map(text, value) if shown)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dt.datetime):
        return value.isoformat(" ")
    return str(value)


def category(value: Any, separator: str, list_separator: str | None = None) -> str | None:
    """'a > b > c': levels from text by the separator, or from an array.

    Of an array of arrays, and of paths that the list separator stands between, the first is used.

    Raises:
        BadValue: an object, or text that is not UTF-8.
    """
    if isinstance(value, dict):
        raise BadValue("the category is an object: map its name in catalog.columns.category, or text, or an array of levels")
    if not isinstance(value, list | tuple):
        whole = text(value) or ""
        paths = whole.split(list_separator) if list_separator else [whole]
        return next((path for path in (category_path(p, separator) for p in paths) if path), None)
    nested = [v for v in value if isinstance(v, list | tuple)]
    return next((path for path in map(_path, nested) if path), None) if nested else _path(value)


def _path(levels: Sequence[Any]) -> str | None:
    cleaned = (normalise(text(level) or "") for level in levels)
    return _short(LEVELS.join(level for level in cleaned if level)) or None


def category_path(value: str | None, separator: str) -> str | None:
    """'a>b / c' by its separator to 'a > b / c': levels in NFC, trimmed, empty ones dropped; None where nothing is left."""
    return _path((value or "").split(separator))


def attributes(value: Any) -> dict[str, str] | None:
    """Attributes from a map, an object or JSON text: nested names joined by '.', lists by ', ', numbers without '.0', nulls dropped.

    Sorted by name. What is no object is kept whole under the name 'text'. Blank gives None.

    Raises:
        BadValue: text that is not UTF-8.
        TooLong: more than LONGEST characters in all.
    """
    if isinstance(_short(value), str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            pass
    if isinstance(value, list | tuple) and value and all(isinstance(v, tuple) and len(v) == 2 for v in value):
        value = dict(value)  # Arrow gives a map as a list of pairs
    if value is None or value != value:
        return None
    pairs = dict(_flat(value, "")) if isinstance(value, dict) else {"text": _flat_value(value)}
    if (length := sum(len(k) + len(v) for k, v in pairs.items())) > LONGEST:
        raise TooLong(length)
    if any(map(is_bad, (*pairs, *pairs.values()))):
        raise BadValue("attributes that are not UTF-8: set catalog.csv.encoding, or mend the export")
    return {normalise(k): normalise(v) for k, v in sorted(pairs.items()) if normalise(k) and normalise(v)}


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _flat_value(value)


def _flat_value(value: Any) -> str:
    if value is None or value == "NaN":  # some writers make that text of a double that is not a number
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(shown for shown in map(_flat_value, value) if shown)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown}" for name, shown in _flat(value, "") if shown)
    return value if isinstance(value, str) else _shown(value) or ""


def picture(value: Any) -> tuple[str | None, bytes | None, list[str]]:
    """(address, bytes, further addresses) of what a picture column holds.

    Text is a path or an address, several addresses may be joined by ',' or '|'. Bytes are a picture. An object has `bytes`,
    or its address under path, src, url, uri, href or link. Of a list the first picture counts.

    Raises:
        BadValue: text that is not UTF-8, or another type.
    """
    found = list(_pictures(value))
    address, data = found[0] if found else (None, None)
    return address, data, [a or f"{len(b or b'')} bytes" for a, b in found[1:]]


def _pictures(value: Any) -> Iterator[tuple[str | None, bytes | None]]:
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value):
            yield None, bytes(value)
    elif isinstance(value, str):
        for part in _SEVERAL.split(_short(value)):
            if address := text(part):
                yield address, None
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _pictures(inner)
    elif isinstance(value, dict):
        if data := image_bytes(value.get("bytes")):
            yield None, data
        else:
            yield from _pictures(next((value[name] for name in _ADDRESS if value.get(name)), None))
    elif value is not None and value == value:
        raise BadValue(f"the picture is of type {type(value).__name__}: map a path, an address or bytes")


def image_bytes(value: Any) -> bytes | None:
    """Bytes, from base64 where the value is text. Text that is not base64 stays as it is, and is refused as a picture.

    Raises:
        BadValue: another type.
    """
    if value is None or value != value:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value) or None
    if isinstance(value, dict):
        return image_bytes(value.get("bytes"))
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            return base64.b64decode(_DATA.sub("", value.strip(), count=1), validate=True) or None
        except (binascii.Error, ValueError):
            return value.encode("utf-8", "surrogateescape" if is_bad(value) else "strict")
    if isinstance(value, list | tuple) and all(isinstance(v, int) and 0 <= v < 256 for v in value):
        return bytes(value) or None
    raise BadValue(f"the picture's bytes are of type {type(value).__name__}: map a binary column, or base64 text")
