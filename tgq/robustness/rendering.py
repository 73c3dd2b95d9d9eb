"""Where views are made: a task's items decoded, with other products for company. Shared by what measures views and what trains on them."""

from __future__ import annotations

import functools
from typing import Any

import fsspec
import pyarrow.parquet as pq
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions
from tgq.nuisances import Item
from tgq.nuisances.draws import seeded

COLUMNS = ("item_id", "title", "brand", "category", "attributes", "group_id", "image_uri", "image_bytes")  # of catalog_items
CLEAN = "clean"  # what the item as it is goes by, among its views
CAST = 64  # items whose names and pictures come into the others' views
OTHERS = 3  # of the cast, that an item meets


class Studio:
    """Items of one task, and the company that their views are made with.

    Args:
        side: pixels of the tower's input; a picture is kept at no more than twice that.
        cast: folder of Parquet (COLUMNS) with the items whose names and pictures come into the others' views.
    """

    def __init__(self, fetch: FetchOptions, limits: ImageLimits, side: int, cast: str, seed: int):
        self.limits, self.side, self.cast, self.seed = limits, side, cast, seed
        self.fetcher = Fetcher(fetch)
        self.pictures: dict[str, Image.Image | None] = {}  # of the cast

    def item(self, row: dict[str, Any]) -> Item:
        """A row of COLUMNS with its picture.

        Raises:
            ImageError: the picture cannot be read.
        """
        return _item(row, self._picture(row))

    def others(self, row: dict[str, Any]) -> list[Item]:
        """Other products for an item: the same ones in every partitioning."""
        rows = [other for other in _cast(self.cast) if not _same_product(row, other)]
        chosen = seeded("others", row["item_id"], self.seed).sample(rows, min(OTHERS, len(rows)))
        for other in chosen:
            if other["item_id"] not in self.pictures:
                try:
                    self.pictures[other["item_id"]] = self._picture(other)
                except ImageError:  # its name will do; it is told where it is itself an item
                    self.pictures[other["item_id"]] = None
        return [_item(other, self.pictures[other["item_id"]]) for other in chosen]

    def _picture(self, row: dict[str, Any]) -> Image.Image | None:
        """Decoded as the nightly worker does, and no larger than a view needs."""
        data = row["image_bytes"] or (self.fetcher.read(row["image_uri"]) if row["image_uri"] else None)
        if not data:
            return None
        image = decode_image(data, self.limits, target=self.side)
        scale = 2 * self.side / min(image.size)
        return image if scale >= 1 else image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.BICUBIC)


def write_cast(items: DataFrame, path: str, seed: int) -> None:
    """Draw CAST of some `catalog_items` rows by a hash of their ids, those with a picture and a title first."""
    unfit = (F.col("image_uri").isNull() & F.col("image_bytes").isNull()) | F.col("title").isNull()
    order = unfit, F.xxhash64("item_id", F.lit(f"cast {seed}")), "item_id"
    drawn = items.select("item_id", "title", "image_uri", "image_bytes").orderBy(*order).limit(CAST).select("item_id")
    items.select(*COLUMNS).join(drawn, "item_id").coalesce(1).write.mode("overwrite").parquet(path)


@functools.lru_cache(maxsize=1)
def _cast(path: str) -> list[dict[str, Any]]:
    """Once per process; in the order of the ids, whatever file a row came from."""
    system, inner = fsspec.core.url_to_fs(path)
    return sorted(pq.read_table(inner, filesystem=system, columns=list(COLUMNS)).to_pylist(), key=lambda row: row["item_id"])


def _same_product(row: dict[str, Any], other: dict[str, Any]) -> bool:
    same_group = row["group_id"] is not None and row["group_id"] == other["group_id"]
    return same_group or row["item_id"] == other["item_id"] or row["title"] == other["title"]


def _item(row: dict[str, Any], image: Image.Image | None) -> Item:
    return Item(row["item_id"], image, row["title"] or "", row["brand"] or "", row["category"] or "", dict(row["attributes"] or {}))
