"""A catalog of views, which training reads like any other source: each item unchanged and under several nuisances.

An item and its views form one group, together with the items of the same group. As in every catalog, two members of a group are
positives of each other unless they have the same image, as two views of the metadata have. Cost on the executors: one fetch and
decode per item, and one JPEG per view (about 25 kB).
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.enriched import as_read
from tgq.catalog.reading.location import fetch_options, folder_of
from tgq.images.decode import ImageError, ImageLimits
from tgq.images.permitted import FetchOptions
from tgq.nuisances import NUISANCES, Item, apply
from tgq.nuisances.draws import seeded
from tgq.robustness.rendering import CLEAN, COLUMNS, ItemRenderer, write_donors
from tgq.run.job_progress import job_progress
from tgq.run.night import Night
from tgq.settings.sections import CatalogSettings, ColumnMapping, PairSettings, Settings, WarehouseSettings
from tgq.training_job.training_set import split_unit

TABLE = "catalog.parquet"
TASK_ITEMS = 64
QUALITY = 92  # of the views' JPEG encoding
TEXTS = ("item_id", "title", "brand", "category", "group_id", "view")
ROW = pa.schema([*((name, pa.string()) for name in TEXTS), ("attributes", pa.map_(pa.string(), pa.string())), ("image_bytes", pa.binary())])


@dataclass(frozen=True)
class _ViewTask:
    """The Spark task that makes views; all fields are plain values so that Spark can serialise them."""

    fetch: FetchOptions
    limits: ImageLimits
    donors: str  # Parquet folder of the items whose titles and images some nuisances copy
    views: int
    seed: int
    side: int

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """For rows with COLUMNS, the rows of their views with schema ROW: the unchanged item, then `views` applicable nuisances.

        The nuisances are drawn at random from the item id and the seed. An item whose image cannot be read has no views; the
        warehouse's own run quarantines it with its reason.
        """
        renderer = ItemRenderer(self.fetch, self.limits, self.side, self.donors, self.seed)
        for batch in batches:
            rows: list[dict[str, Any]] = []
            for row in batch.to_pylist():
                try:
                    item = renderer.item(row)
                except ImageError:
                    continue
                rows += [_row(name, view, row["group_id"]) for name, view in self._views(item, renderer.others(row))]
            yield pa.RecordBatch.from_pylist(rows, ROW)

    def _views(self, item: Item, others: list[Item]) -> Iterator[tuple[str, Item]]:
        yield CLEAN, item
        names = sorted(NUISANCES)
        shuffled = seeded("views", item.item_id, self.seed).sample(names, len(names))
        applied = ((name, apply(name, item, others, self.seed)) for name in shuffled)
        yield from itertools.islice(((name, view) for name, view in applied if view and (view.image or view.title or view.category)), self.views)


def write_view_catalog(night: Night, items: DataFrame, folder: str, views: int, seed: int, side: int) -> None:
    """Write the table TABLE in `folder` with schema ROW: the given items and `views` views of each.

    The item id of a view is `view~item_id`. Its `group_id` is the item's group id, or the item id without a group.

    Args:
        items: rows of `catalog_items`.
        views: views per item; fewer if fewer nuisances apply.
        side: pixels per side of the vision tower's input.
    """
    donors, total, items = night.staging("cast"), items.count(), as_read(items)
    write_donors(items, donors, seed)
    images = night.settings.images
    limits = ImageLimits(max_bytes=images.max_bytes, max_pixels=images.max_pixels)
    task = _ViewTask(fetch_options(folder_of(night.spark, night.settings.catalog), images), limits, donors, views, seed, side)
    rows = items.withColumn("group_id", split_unit()).select(*COLUMNS).repartition(-(-total // TASK_ITEMS), "item_id")
    with job_progress(night, "views", total) as done:

        def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in task.run(batches):
                done.add(sum(view == CLEAN for view in batch["view"].to_pylist()))
                yield batch

        rows.mapInArrow(run, from_arrow_schema(ROW)).write.mode("overwrite").parquet(f"{folder}/{TABLE}")


def view_settings(settings: Settings, folder: str, warehouse: str, max_gb: float) -> Settings:
    """Settings of a view catalog with its own warehouse; metadata and split are those of the source's settings."""
    columns = ColumnMapping(group_id="group_id", image_uri=None)
    changed = {
        "catalog": CatalogSettings(path=folder, table=TABLE, columns=columns),
        "pairs": PairSettings(source="group", test_share=settings.pairs.test_share),
        "warehouse": WarehouseSettings(path=warehouse),
        "features": settings.features.model_copy(update={"max_gb": max_gb}),
    }
    return settings.model_copy(update=changed)


def _row(name: str, view: Item, group: str) -> dict[str, Any]:
    texts = {field: getattr(view, field) or None for field in ("title", "brand", "category")}
    attributes = {key: str(value) for key, value in view.attributes.items()}
    image = view.image and _jpeg(view.image)
    return {"item_id": f"{name}~{view.item_id}", "group_id": group, "view": name, "image_bytes": image, "attributes": attributes, **texts}


def _jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.convert("RGB").save(data, "JPEG", quality=QUALITY)
    return data.getvalue()
