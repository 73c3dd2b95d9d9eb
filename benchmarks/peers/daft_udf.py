"""Daft: a `@daft.cls` with one process of one core per core."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

import daft
from daft import DataType, Series, col
from encoding import BATCH, COLUMNS, cores, encode, encoder


@daft.cls(max_concurrency=cores(), use_process=True)
class Encode:
    def __init__(self, folder: str):
        self.model = encoder(folder, 1)

    @daft.method.batch(return_dtype=DataType.list(DataType.float32()), batch_size=BATCH)
    def __call__(self, paths: Series, metadata: Series, titles: Series):
        return list(encode(self.model, [Path(path).read_bytes() for path in paths.to_pylist()], metadata.to_pylist(), titles.to_pylist()))


def main(items: str, folder: str, out: str) -> None:
    frame = daft.read_parquet(items).into_batches(BATCH)
    encoding = Encode(folder)
    frame.select(col("item_id"), encoding(*(col(name) for name in COLUMNS)).alias("embedding")).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
