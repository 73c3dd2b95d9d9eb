"""One row's fields as tgq keeps them: category paths, flat attributes, and the texts that the encoder reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from tgq.encoder.text import metadata_text, normalise
from tgq.settings.sections import MetadataSettings

LEVELS = " > "


def category_path(value: str | None, separator: str) -> str | None:
    """'a>b / c' by its separator to 'a > b / c': levels in NFC, trimmed, empty ones dropped; None where nothing is left."""
    levels = (normalise(level) for level in (value or "").split(separator))
    return LEVELS.join(level for level in levels if level) or None


def flat_attributes(text: str | None) -> dict[str, str] | None:
    """Attributes from JSON text: nested names joined by '.', lists by ', ', numbers without '.0', nulls dropped, sorted by name.

    What is not a JSON object is kept whole under the name 'text'. Blank gives None.
    """
    if text is None or not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if value is None:
        return None
    pairs = dict(_flat(value, "")) if isinstance(value, dict) else {"text": _shown(value)}
    return {normalise(k): normalise(v) for k, v in sorted(pairs.items()) if normalise(k) and normalise(v)}


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == "NaN":  # Spark writes a double that is not a number as that text
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if not math.isfinite(value) else str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return ", ".join(shown for shown in map(_shown, value) if shown)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown}" for name, shown in _flat(value, "") if shown)
    return str(value)


def encoder_texts(row: dict[str, Any], metadata: MetadataSettings) -> tuple[str, str]:
    """(metadata_text, encoder_title): what the encoder may read of a row."""
    chosen = readable_fields(row, metadata)
    return metadata_text(**chosen), normalise(chosen["title"])


def readable_fields(row: dict[str, Any], metadata: MetadataSettings) -> dict[str, Any]:
    """title, brand, category and attributes of a row, less the fields, levels and attributes that the settings leave out."""
    chosen = {field: row[field] if field in metadata.fields else None for field in ("title", "brand", "category", "attributes")}
    if chosen["category"] and metadata.category_levels:
        chosen["category"] = LEVELS.join(chosen["category"].split(LEVELS)[: metadata.category_levels])
    if chosen["attributes"] and metadata.attributes is not None:
        chosen["attributes"] = {k: v for k, v in chosen["attributes"].items() if k in metadata.attributes}
    return chosen
