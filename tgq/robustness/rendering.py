"""Items as a worker renders them for nuisances: decoded pictures, and the other products that appear in their views."""

from __future__ import annotations

import functools
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions
from tgq.nuisances import Item
from tgq.nuisances.draws import seeded
from tgq.storage.stores import file_system

COLUMNS = ("item_id", "title", "brand", "category", "attributes", "group_id", "image_uri", "image_bytes")  # of catalog_items
CLEAN = "clean"  # name of the undisturbed view
DONORS = 64  # items whose names and pictures appear in the views of others
OTHERS = 3  # donors per item


class ItemRenderer:
    """Decodes the items of one task and their donors.

    Args:
        side: pixels per side of the tower's input; pictures are scaled down to at most twice that.
        donors: folder of Parquet (COLUMNS) with the items whose names and pictures appear in the views of others.
    """

    def __init__(self, fetch: FetchOptions, limits: ImageLimits, side: int, donors: str, seed: int):
        self.limits, self.side, self.donors, self.seed = limits, side, donors, seed
        self.fetcher = Fetcher(fetch)
        self.pictures: dict[str, Image.Image | None] = {}  # of the donors, by item id

    def item(self, row: dict[str, Any]) -> Item:
        """A row of COLUMNS with its picture.

        Raises:
            ImageError: the picture cannot be read.
        """
        return _item(row, self._picture(row))

    def others(self, row: dict[str, Any]) -> list[Item]:
        """OTHERS donors for an item, of other products. They follow from item id and seed, not from the partitioning."""
        rows = [other for other in _donors(self.donors) if not _same_product(row, other)]
        chosen = seeded("others", row["item_id"], self.seed).sample(rows, min(OTHERS, len(rows)))
        for other in chosen:
            if other["item_id"] not in self.pictures:
                try:
                    self.pictures[other["item_id"]] = self._picture(other)
                except ImageError:  # the name is used alone; the error is reported where the donor itself is an item
                    self.pictures[other["item_id"]] = None
        return [_item(other, self.pictures[other["item_id"]]) for other in chosen]

    def _picture(self, row: dict[str, Any]) -> Image.Image | None:
        """The picture, decoded as in the nightly worker and no larger than a view needs; None for an item without one."""
        data = row["image_bytes"] or (self.fetcher.read(row["image_uri"]) if row["image_uri"] else None)
        if not data:
            return None
        image = decode_image(data, self.limits, target=self.side)
        scale = 2 * self.side / min(image.size)
        return image if scale >= 1 else image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)


def write_donors(items: DataFrame, path: str, seed: int) -> None:
    """Write DONORS of the given `catalog_items` rows, drawn by a hash of their ids; those with a picture and a title come first."""
    unfit = (F.col("image_uri").isNull() & F.col("image_bytes").isNull()) | F.col("title").isNull()
    order = unfit, F.xxhash64("item_id", F.lit(f"cast {seed}")), "item_id"
    drawn = items.select("item_id", "title", "image_uri", "image_bytes").orderBy(*order).limit(DONORS).select("item_id")
    items.select(*COLUMNS).join(drawn, "item_id").coalesce(1).write.mode("overwrite").parquet(path)


@functools.lru_cache(maxsize=1)
def _donors(path: str) -> list[dict[str, Any]]:
    """The donors, sorted by id. Read once per process."""
    system, inner = file_system(path)
    return sorted(pq.read_table(inner, filesystem=system, columns=list(COLUMNS)).to_pylist(), key=lambda row: row["item_id"])


def _same_product(row: dict[str, Any], other: dict[str, Any]) -> bool:
    same_group = row["group_id"] is not None and row["group_id"] == other["group_id"]
    return same_group or row["item_id"] == other["item_id"] or row["title"] == other["title"]


def _item(row: dict[str, Any], image: Image.Image | None) -> Item:
    return Item(row["item_id"], image, row["title"] or "", row["brand"] or "", row["category"] or "", dict(row["attributes"] or {}))
