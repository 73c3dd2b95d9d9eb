"""A scalar pandas_udf on a local Spark session, as a tutorial has it: the model loaded once per worker of one core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"

import pandas as pd
from encoding import BATCH, cores
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf
from pyspark.sql.types import ArrayType, FloatType


def main(items: str, folder: str, out: str) -> None:
    @pandas_udf(ArrayType(FloatType()))
    def vectors(paths: pd.Series, metadata: pd.Series, titles: pd.Series) -> pd.Series:
        from encoding import encode, encoder

        model, found = encoder(folder, 1), []
        for start in range(0, len(paths), BATCH):
            part = slice(start, start + BATCH)
            found += list(encode(model, [Path(path).read_bytes() for path in paths[part]], list(metadata[part]), list(titles[part])))
        return pd.Series(found)

    spark = SparkSession.builder.master(f"local[{cores()}]").config("spark.ui.enabled", "false").getOrCreate()
    rows = spark.read.parquet(items).repartition(4 * cores())
    rows.select("item_id", vectors("path", "metadata_text", "encoder_title").alias("embedding")).write.parquet(out)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
