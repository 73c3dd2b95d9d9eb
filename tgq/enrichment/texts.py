"""The texts of the active items, as far as the encoder may read them, and the hash by which a change of them is found. All in Spark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.feeds.values import LEVELS
from tgq.refinement.refiner import ItemText
from tgq.settings.sections import MetadataSettings

FIELDS = ("title", "brand", "category", "attributes")


def with_readable_texts(items: DataFrame, metadata: MetadataSettings) -> DataFrame:
    """`catalog_items` rows with `texts`: a struct of FIELDS less what the settings leave out, as `readable_fields` has them; and `text_hash` of them.

    Attributes are hashed in the order of their names, so that the order of a map is no change.
    """
    values: dict[str, Column] = {name: F.col(name) if name in metadata.fields else F.lit(None).cast(items.schema[name].dataType) for name in FIELDS}
    if metadata.category_levels:
        values["category"] = F.array_join(F.slice(F.split(values["category"], LEVELS), 1, metadata.category_levels), LEVELS)
    if metadata.attributes is not None:
        chosen = list(metadata.attributes)
        values["attributes"] = F.map_filter(values["attributes"], lambda name, _: name.isin(chosen))
    texts = F.struct(*(column.alias(name) for name, column in values.items()))
    listed = F.array_sort(F.map_entries("texts.attributes"))
    whole = F.to_json(F.struct("texts.title", "texts.brand", "texts.category", listed.alias("attributes")))
    return items.withColumn("texts", texts).withColumn("text_hash", F.sha2(whole, 256))


def refined_from(sees_pictures: bool) -> Column:
    """The hash of what a refined title follows from: `text_hash`, or one of it and the picture for a refiner that sees pictures."""
    return F.coalesce(F.sha2(F.concat("text_hash", "image_hash"), 256), F.col("text_hash")) if sees_pictures else F.col("text_hash")


def item_text(texts: Mapping[str, Any], picture: bytes | None = None) -> ItemText:
    """The struct `texts` of a row, and what a language model sees of its picture, as refiners and language models read it."""
    attributes = {name: value for name, value in texts["attributes"] or () if value}
    return ItemText(texts["title"] or "", texts["brand"] or "", texts["category"] or "", attributes, picture)
