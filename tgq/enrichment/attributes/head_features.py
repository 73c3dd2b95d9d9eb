"""What the attribute heads read of an item: cached features of its picture, and of its texts without attributes.

Both come from the feature cache, so the towers run once per picture, and the embed step finds there what the heads needed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.attributes.heads import ItemFeatures
from tgq.embedding.feature_cache import with_cached_features
from tgq.encoder.text import metadata_text
from tgq.registry.loading import towers_of
from tgq.run.night import Night

FEATURES = ("image_features", "text_features")  # float16, packed; null for a missing side


def as_asked(items: DataFrame) -> DataFrame:
    """`catalog_items` rows with `texts` (`with_readable_texts`) as the heads see them: `metadata_text` has no attributes, and the title is in it alone.

    A head must not read the attribute that it predicts. In training all attributes are hidden, so they are hidden later too.
    """

    def without_attributes(title, brand, category):  # Spark takes type hints for those of a pandas function
        return metadata_text(title, brand, category, None)

    text = F.udf(without_attributes, "string")("texts.title", "texts.brand", "texts.category")
    return items.withColumns({"metadata_text": text, "encoder_title": F.lit("")})


def with_head_features(night: Night, items: DataFrame, model_folder: str) -> DataFrame:
    """Rows of `as_asked` with FEATURES, as far as `run_towers` has cached them. Cost: a scan of two columns of the cache, without its tokens."""
    own = items.withColumnRenamed("text_hash", "own_hash")  # the cache has a column of that name
    found = with_cached_features(night, own, towers_of(model_folder)).select(*own.columns, *FEATURES)
    return found.withColumnRenamed("own_hash", "text_hash")


def features_of(rows: pa.Table | pa.RecordBatch, image_width: int, text_width: int) -> ItemFeatures:
    """The features of rows with FEATURES."""
    widths = zip(FEATURES, (image_width, text_width), strict=True)
    return ItemFeatures(*(_matrix(rows[name].to_pylist(), width) for name, width in widths))


def _matrix(packed: list[bytes | None], width: int) -> np.ndarray:
    blank = bytes(2 * width)
    return np.frombuffer(b"".join(one or blank for one in packed), "<f2").reshape(len(packed), width).astype(np.float32)
