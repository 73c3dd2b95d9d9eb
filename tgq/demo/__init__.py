"""The demo catalog: drawn products, with the truth about every picture and text."""

from tgq.demo.catalog import CatalogSummary, draw_catalog

__all__ = ["CatalogSummary", "draw_catalog"]
