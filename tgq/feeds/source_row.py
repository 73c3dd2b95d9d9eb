"""A raw row of any feed as a row in our columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from tgq.errors import SourceError
from tgq.feeds import values
from tgq.feeds.columns import Matcher, Path, cell
from tgq.feeds.options import FeedOptions
from tgq.feeds.readers.encodings import shown
from tgq.feeds.rows import BAD_TEXT, MALFORMED, RawRow

_TEXT, _MAP = pa.string(), pa.map_(pa.string(), pa.string())
SOURCE = pa.schema([
    ("item_id", _TEXT), ("title", _TEXT), ("brand", _TEXT), ("category", _TEXT), ("attributes", _MAP), ("image_uri", _TEXT),
    ("image_bytes", pa.binary()), ("additional_images", pa.list_(_TEXT)), ("group_id", _TEXT), ("variant_id", _TEXT), ("slices", _MAP),
    ("reason", _TEXT), ("detail", _TEXT), ("raw", _TEXT), ("missing_words", pa.int32()), ("position", pa.int64()),
])  # fmt: skip
TEXTS = ("item_id", "title", "brand", "group_id", "variant_id")
MAY_BE_A_WORD = ("title", "brand", "category", "attributes", "image_uri", "group_id", "variant_id")
ATTRIBUTE, SLICE = "attributes.", "slices."
PART_ROWS = 2**40  # positions: the part's number times this, plus the row's number in it
RAW = 2000
Fields = Mapping[str, tuple[Path, ...]]
_Reader = Callable[[dict[str, Any], Fields, Mapping[str, Any]], None]


def kept(row: Mapping[str, Any]) -> str:
    """What the quarantine keeps of a row's cells."""
    return shown(repr({name: value[:RAW] if isinstance(value, str | bytes) else value for name, value in row.items()}))[:RAW]


class SourceRows:
    """Turns raw rows into rows of SOURCE; what cannot be read becomes `reason` and `detail`, never an exception.

    Args:
        options: which columns are read, and what cells mean.
    """

    def __init__(self, options: FeedOptions):
        self.options = options
        self._match = Matcher(options)
        self._readers: tuple[tuple[str, _Reader], ...] = (
            *((name, partial(self._text, name)) for name in TEXTS),
            ("category", self._category), ("attributes", self._attributes), ("image", self._image), ("slices", self._slices),
        )  # fmt: skip

    def __call__(self, raw: RawRow, position: int) -> dict[str, Any]:
        out: dict[str, Any] = dict.fromkeys(SOURCE.names)
        out.update(position=position, missing_words=0, additional_images=[], reason=raw.reason, detail=raw.detail)
        out["raw"] = shown(raw.raw)[:RAW] if raw.raw else None
        try:
            fields = self._match(tuple(raw.values)).fields
        except SourceError as e:
            out.update(reason=out["reason"] or MALFORMED, detail=out["detail"] or e.found)
            return out
        for name, read in self._readers:
            try:
                read(out, fields, raw.values)
            except (values.BadValue, RecursionError) as e:
                out.update(reason=out["reason"] or getattr(e, "reason", BAD_TEXT), detail=out["detail"] or f"{name}: {e}")
                out["raw"] = out["raw"] or kept(raw.values)
        return out

    def _value(self, out: dict[str, Any], field: str, fields: Fields, row: Mapping[str, Any]) -> Any:
        """The first filled cell of the field's columns; a word that means "missing" is no value and is counted."""
        for path in fields.get(field, ()):
            value = cell(row, path)
            if value is None or value != value or value == "":
                continue
            if isinstance(value, str) and len(value) > values.LONGEST:
                return value  # no word for "missing", and refused by whoever asked
            if isinstance(value, str) and field in MAY_BE_A_WORD and value.strip().casefold() in self.options.missing:
                out["missing_words"] += 1
                continue
            if isinstance(value, str) and not value.strip():
                continue
            return value
        return None

    def _text(self, name: str, out: dict[str, Any], fields: Fields, row: Mapping[str, Any]) -> None:
        out[name] = values.text(self._value(out, name, fields, row))

    def _category(self, out: dict[str, Any], fields: Fields, row: Mapping[str, Any]) -> None:
        out["category"] = values.category(self._value(out, "category", fields, row), self.options.category_separator, self.options.category_list_separator)

    def _attributes(self, out: dict[str, Any], fields: Fields, row: Mapping[str, Any]) -> None:
        found = values.attributes(self._value(out, "attributes", fields, row))
        own = {name.removeprefix(ATTRIBUTE): self._value(out, name, fields, row) for name in fields if name.startswith(ATTRIBUTE)}
        if any(v is not None for v in own.values()):
            found = (found or {}) | (values.attributes({k: v for k, v in own.items() if str(v).strip().casefold() not in self.options.missing}) or {})
        out["attributes"] = None if found is None else list(found.items())

    def _image(self, out: dict[str, Any], fields: Fields, row: Mapping[str, Any]) -> None:
        address, data, more = values.picture(self._value(out, "image_uri", fields, row))
        inline = values.image_bytes(self._value(out, "image_bytes", fields, row))
        second, _, listed = values.picture(self._value(out, "additional_images", fields, row))
        out.update(image_uri=address, image_bytes=inline or data, additional_images=[*more, *([second] if second else []), *listed])

    def _slices(self, out: dict[str, Any], fields: Fields, row: Mapping[str, Any]) -> None:
        own = [name for name in self.options.columns if name.startswith(SLICE)]
        if own:
            out["slices"] = [(name.removeprefix(SLICE), values.text(self._value(out, name, fields, row))) for name in own]
