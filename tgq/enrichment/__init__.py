"""Enrichment of items between validation and embedding, as Spark jobs. Off unless the settings name a part of it."""
