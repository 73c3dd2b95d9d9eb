"""The format of an item's metadata text. This module is the only place that defines it."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

SEPARATOR = " | "


def normalise(value: object) -> str:
    """The value as text in Unicode NFC, with single spaces and none at either end; `None` gives the empty string."""
    return "" if value is None else " ".join(unicodedata.normalize("NFC", str(value)).split())


def metadata_text(
    title: str | None, brand: str | None, category: str | None, attributes: Mapping[str, str] | None
) -> str:
    """The metadata text `title | brand | category | attributes`, in this fixed order.

    Attributes are written as `name: value`, joined by commas and sorted by name, so that the order of the map never changes an
    embedding. A missing field adds no separator. An item without any field gives the empty string.
    """
    pairs = ((normalise(name), normalise(value)) for name, value in (attributes or {}).items())
    listed = ", ".join(f"{name}: {value}" for name, value in sorted(pairs) if value)
    return SEPARATOR.join(part for part in (normalise(title), normalise(brand), normalise(category), listed) if part)
