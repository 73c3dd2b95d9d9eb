"""How enrichment reaches all readers of an item: by columns of `catalog_items`.

`metadata_text`, `encoder_title` and `content_hash` are always what the encoder reads, whatever the enrich step has changed of it. So every
reader agrees, and an item is embedded again if and only if its enrichment changed what the encoder reads. `source_hash` is the content hash
of the item as its source row gives it, and ingest compares that one: an enriched item is not changed in the catalog.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.storage.warehouse import Warehouse

REFINED, GENERATED = "refined_title", "generated_attributes"
DERIVED = ("metadata_text", "encoder_title", "content_hash", REFINED, GENERATED, "source_hash")  # follow from the source row and the enrichment
_NOTE = "enriched "


def as_read(items: DataFrame) -> DataFrame:
    """`catalog_items` rows with the title and the attributes that the encoder reads in place of the shop's. Versions of the table that know no others
    have the shop's."""
    if REFINED in items.columns:
        items = items.withColumn("title", F.coalesce(REFINED, "title"))
    if GENERATED in items.columns:
        own = F.map_filter("attributes", lambda key, _: ~F.array_contains(F.map_keys(GENERATED), key))  # one of the same name has no value
        both = F.when(F.col("attributes").isNull(), F.col(GENERATED)).otherwise(F.map_concat(own, GENERATED))
        items = items.withColumn("attributes", F.when(F.col(GENERATED).isNull(), F.col("attributes")).otherwise(both))
    return items


def ingested_version(warehouse: Warehouse) -> int:
    """The Delta version of `catalog_items` that the last change by another step than enrich made.

    What depends on columns that enrichment does not touch, such as pairs, has this version as its key. Cost: the last entries of the log.
    """
    note = warehouse.note_of("catalog_items") or ""
    return int(note.removeprefix(_NOTE)) if note.startswith(_NOTE) else warehouse.version("catalog_items")


def write_enriched(warehouse: Warehouse, rows: DataFrame) -> None:
    """Write columns of DERIVED for items by their ids, in one commit."""
    warehouse.update(rows, "catalog_items", "item_id", f"{_NOTE}{ingested_version(warehouse)}")
