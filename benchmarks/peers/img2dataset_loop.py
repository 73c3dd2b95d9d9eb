"""img2dataset into webdataset shards over HTTP from this machine, then a loop over the shards as clip-retrieval's inference has it.

img2dataset reads only URLs, so a server of this process serves the pictures. It stores them as they are (no resizing), because the
encoder's own preprocessing follows. The loop decodes on threads while the model runs, with all cores in torch.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from encoding import BATCH, cores, encode, encoder
from img2dataset import download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def main(items: str, folder: str, out: str) -> None:
    table = pq.read_table(items)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="/"))
    Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as scratch:
        urls = [f"http://127.0.0.1:{server.server_port}{quote(path)}" for path in table["path"].to_pylist()]
        pq.write_table(table.append_column("url", pa.array(urls)), f"{scratch}/urls.parquet")
        download(
            url_list=f"{scratch}/urls.parquet", input_format="parquet", url_col="url", output_folder=f"{scratch}/shards", output_format="webdataset",
            save_additional_columns=["item_id", "metadata_text", "encoder_title"], resize_mode="no", disable_all_reencoding=True,
            processes_count=cores(), thread_count=8, number_sample_per_shard=1000, enable_wandb=False, disallowed_header_directives=[],
        )  # fmt: skip
        shards = sorted(str(path) for path in Path(scratch, "shards").glob("*.tar"))
        model = encoder(folder, cores())
        samples = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
        schema = pa.schema([("item_id", pa.string()), ("embedding", pa.list_(pa.float32()))])
        with pq.ParquetWriter(out, schema) as writer, ThreadPoolExecutor(1) as ahead:
            rows: list[tuple] = []
            pending = None

            def write(batch):
                ids, pictures, metadata, titles = zip(*batch, strict=True)
                vectors = encode(model, pictures, metadata, titles)
                writer.write_table(pa.table([pa.array(ids), pa.array(list(vectors), pa.list_(pa.float32()))], schema=schema))

            for sample in samples:
                about = json.loads(sample["json"])
                picture = next(sample[kind] for kind in ("jpg", "png", "webp") if kind in sample)
                rows.append((about["item_id"], picture, about["metadata_text"], about["encoder_title"]))
                if len(rows) == BATCH:
                    if pending:
                        pending.result()
                    pending, rows = ahead.submit(write, rows), []
            if pending:
                pending.result()
            if rows:
                write(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
