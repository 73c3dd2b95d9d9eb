"""Columns that a later version added to a table. A warehouse of an earlier version gets them, empty, when a run opens it."""

from __future__ import annotations

ADDED_COLUMNS = {"catalog_items": ("additional_images", "refined_title", "source_hash"), "retrieval_metrics": ("task",)}
