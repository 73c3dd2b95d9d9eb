"""The demo catalog: drawn products with the truth about every picture and text. Needs Pillow, numpy and pyarrow only."""

from tgq.demo.catalog import CatalogSummary, draw_catalog

__all__ = ["CatalogSummary", "draw_catalog"]
