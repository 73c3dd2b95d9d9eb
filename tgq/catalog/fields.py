"""What the encoder may read of an item: the fields, category levels and attributes that the settings choose."""

from __future__ import annotations

import hashlib
from typing import Any

from tgq.encoder.text import metadata_text, normalise
from tgq.feeds.values import LEVELS
from tgq.settings.sections import MetadataSettings


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


def content_hash(image_hash: str | None, text: str, title: str, crop: str | None = None) -> str:
    """A hash of all that the encoder reads of an item: the picture, the metadata text, the title, and the version of the picture's crop if it has one."""
    return hashlib.sha256("\x1f".join((image_hash or "", text, title, *([crop] if crop else []))).encode()).hexdigest()
