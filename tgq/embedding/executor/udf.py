"""`tgq_embed(...)` for SQL users: a pandas UDF over the same engine as the embed step."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

from tgq.embedding.executor.daemon import preloaded
from tgq.embedding.executor.worker import EmbedWorker
from tgq.settings.sections import Settings

COLUMNS = ("image_bytes", "metadata_text", "encoder_title")


def register_udf(spark: SparkSession, settings: Settings, model_folder: str, name: str = "tgq_embed") -> None:
    """Register `tgq_embed(image BINARY, metadata STRING, title STRING) -> ARRAY<FLOAT>`.

    Any argument may be null. The result is null if the picture cannot be decoded, or if there is neither a picture nor a text.

    >>> spark.sql("SELECT tgq_embed(NULL, metadata_text, encoder_title) FROM catalog_items")  # doctest: +SKIP
    """
    worker = EmbedWorker.of(settings, model_folder, None)

    @pandas_udf("array<float>")  # type: ignore[call-overload]  # pyspark declares no decorator with the return type alone
    def tgq_embed(batches: Iterator[tuple[pd.Series, pd.Series, pd.Series]]) -> Iterator[pd.Series]:
        engine = worker.engine()
        for series in batches:
            n = len(series[0])
            columns = {"item_id": pa.array([str(i) for i in range(n)]), "image_uri": pa.nulls(n, pa.string())}
            types = (pa.binary(), pa.string(), pa.string())
            columns |= {c: pa.Array.from_pandas(s, type=t) for c, s, t in zip(COLUMNS, series, types, strict=True)}
            columns["image_hash"] = pa.nulls(n, pa.string())
            vectors: dict[str, object] = {}
            for out in engine.run(iter([pa.RecordBatch.from_pydict(columns)])):
                embedded = out.filter(pc.equal(out["status"], "embedded"))
                vectors |= dict(zip(embedded["item_id"].to_pylist(), embedded["embedding"].to_pylist(), strict=True))
            yield pd.Series([vectors.get(str(i)) for i in range(n)])

    with preloaded(spark.sparkContext):
        spark.udf.register(name, tgq_embed)
