"""A loop in one process with all cores in torch: reads, decodes and encodes batch by batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from encoding import BATCH, COLUMNS, cores, encode, encoder


def main(items: str, folder: str, out: str) -> None:
    model, table = encoder(folder, cores()), pq.read_table(items)
    schema = pa.schema([("item_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
    with pq.ParquetWriter(out, schema) as writer:
        for part in table.to_batches(BATCH):
            paths, metadata, titles = (part[name].to_pylist() for name in COLUMNS)
            vectors = encode(model, [Path(path).read_bytes() for path in paths], metadata, titles)
            writer.write_table(pa.table([part["item_id"], pa.array(list(vectors), pa.list_(pa.float32()))], schema=schema))


if __name__ == "__main__":
    main(*sys.argv[1:])
