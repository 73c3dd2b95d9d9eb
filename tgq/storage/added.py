"""Columns and tables that a later version added. A warehouse of an earlier version gets them, empty, when a run opens it."""

from __future__ import annotations

ADDED_COLUMNS = {"catalog_items": ("additional_images", "refined_title", "source_hash", "generated_attributes"), "retrieval_metrics": ("task",)}
# that views name, with the types of DataFusion, for readers of a warehouse that no run of this version has opened
ADDED_TABLES = {"picture_clusters": {"image_hash": "VARCHAR", "canonical_hash": "VARCHAR", "distance": "INT", "pictures": "BIGINT", "run_id": "VARCHAR"}}
