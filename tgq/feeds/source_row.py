"""A raw row of any feed as a row in our columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tgq.errors import SourceError
from tgq.feeds import values
from tgq.feeds.columns import Matched, Path, match
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
MEMO = 10_000  # sets of names, of which JSON may have a new one in every object


@dataclass
class SourceRows:
    """Turns raw rows into rows of SOURCE; what cannot be read becomes `reason` and `detail`, never an exception.

    Args:
        options: which columns are read, and what cells mean.
    """

    options: FeedOptions
    _memo: dict[tuple[str, ...], Matched | SourceError] = field(default_factory=dict)

    def __call__(self, raw: RawRow, position: int) -> dict[str, Any]:
        out: dict[str, Any] = dict.fromkeys(SOURCE.names)
        out.update(position=position, missing_words=0, additional_images=[], reason=raw.reason, detail=raw.detail)
        out["raw"] = shown(raw.raw)[:RAW] if raw.raw else None
        matched = self._matched(tuple(raw.values))
        if isinstance(matched, SourceError):
            out.update(reason=out["reason"] or MALFORMED, detail=out["detail"] or matched.found)
            return out
        for name, read in self._readers.items():
            try:
                read(out, matched.fields, raw.values)
            except (values.BadValue, RecursionError) as e:
                out.update(reason=out["reason"] or BAD_TEXT, detail=out["detail"] or f"{name}: {e}")
                out["raw"] = out["raw"] or shown(repr(dict(raw.values)))[:RAW]
        return out

    @property
    def _readers(self) -> Mapping[str, Callable[[dict[str, Any], dict[str, tuple[Path, ...]], Mapping[str, Any]], None]]:
        return {"item_id": self._texts, "category": self._category, "attributes": self._attributes, "image": self._image, "slices": self._slices}

    def _matched(self, names: tuple[str, ...]) -> Matched | SourceError:
        found = self._memo.get(names)
        if found is None:
            try:
                found = match(names, self.options, "the row")
            except SourceError as e:
                found = e
            if len(self._memo) < MEMO:
                self._memo[names] = found
        return found

    def _value(self, out: dict[str, Any], field: str, fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> Any:
        """The first filled cell of the field's columns; a word that means "missing" is no value and is counted."""
        for path in fields.get(field, ()):
            value: Any = row
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is None or value != value or value == "":
                continue
            if isinstance(value, str) and field in MAY_BE_A_WORD and value.strip().casefold() in self.options.missing:
                out["missing_words"] += 1
                continue
            if isinstance(value, str) and not value.strip():
                continue
            return value
        return None

    def _texts(self, out: dict[str, Any], fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> None:
        bad = None
        for name in TEXTS:
            try:
                out[name] = values.text(self._value(out, name, fields, row))
            except values.BadValue as e:
                bad = bad or values.BadValue(f"{name}: {e}")
        if bad:
            raise bad

    def _category(self, out: dict[str, Any], fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> None:
        out["category"] = values.category(self._value(out, "category", fields, row), self.options.category_separator, self.options.category_list_separator)

    def _attributes(self, out: dict[str, Any], fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> None:
        found = values.attributes(self._value(out, "attributes", fields, row))
        own = {name.removeprefix(ATTRIBUTE): self._value(out, name, fields, row) for name in fields if name.startswith(ATTRIBUTE)}
        if any(v is not None for v in own.values()):
            found = (found or {}) | (values.attributes({k: v for k, v in own.items() if str(v).strip().casefold() not in self.options.missing}) or {})
        out["attributes"] = None if found is None else list(found.items())

    def _image(self, out: dict[str, Any], fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> None:
        address, data, more = values.picture(self._value(out, "image_uri", fields, row))
        inline = values.image_bytes(self._value(out, "image_bytes", fields, row))
        second, _, listed = values.picture(self._value(out, "additional_images", fields, row))
        out.update(image_uri=address, image_bytes=inline or data, additional_images=[*more, *([second] if second else []), *listed])

    def _slices(self, out: dict[str, Any], fields: dict[str, tuple[Path, ...]], row: Mapping[str, Any]) -> None:
        own = [name for name in self.options.columns if name.startswith(SLICE)]
        if own:
            out["slices"] = [(name.removeprefix(SLICE), values.text(self._value(out, name, fields, row))) for name in own]
