"""The one text that stands for an item's metadata, and nothing else decides its form."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

SEPARATOR = " | "


def normalise(value: object) -> str:
    """Unicode NFC, runs of whitespace as one space, no space at either end; `None` is the empty string."""
    return "" if value is None else " ".join(unicodedata.normalize("NFC", str(value)).split())


def metadata_text(
    title: str | None, brand: str | None, category: str | None, attributes: Mapping[str, str] | None
) -> str:
    """`title | brand | category | attributes`, in that fixed order.

    Attributes are `name: value` joined by commas and sorted by name, so that a map's order never changes an
    embedding. Absent fields leave no separator behind; an item without any field gives the empty string.
    """
    pairs = ((normalise(name), normalise(value)) for name, value in (attributes or {}).items())
    listed = ", ".join(f"{name}: {value}" for name, value in sorted(pairs) if value)
    return SEPARATOR.join(part for part in (normalise(title), normalise(brand), normalise(category), listed) if part)
