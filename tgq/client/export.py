"""Exports published vectors with ids and metadata, for example to a vector database. A manifest describes the files.

    parquet   vectors.parquet: item_id, title, brand, category, embedding
    npy       vectors.npy [n, De] float32 and items.parquet, rows in the same order
    lance     a Lance dataset `vectors.lance` (needs the package pylance)

Cost: the metadata of the published items is held in memory; the vectors are streamed in batches. The folder is written atomically.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tgq.client.warehouse import Warehouse
from tgq.errors import UsageError, WarehouseError
from tgq.storage.files import sha256

QUERY = "SELECT item_id, title, brand, category, embedding FROM current_embeddings"
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Exported:
    """The result of an export."""

    folder: Path
    kind: str
    rows: int
    dim: int
    generation: str


def export(warehouse: Warehouse, folder: str | Path, kind: str = "parquet", progress: Callable[[int], None] = lambda rows: None) -> Exported:
    """Write the published vectors to a new folder.

    Args:
        kind: parquet, npy or lance.
        progress: called with the rows written so far.

    Raises:
        UsageError: the folder exists, the kind is unknown, or a package is missing.
        WarehouseError: nothing is published, or the folder cannot be written.
    """
    writers = {"parquet": _parquet, "npy": _npy, "lance": _lance}
    if kind not in writers:
        raise UsageError(f"there is no export to '{kind}'", f"choose one of {', '.join(writers)}")
    out = Path(folder).expanduser()
    if out.exists():
        raise UsageError(f"{out} exists", "give a new folder, or delete this one")
    published = warehouse.published
    if published is None:
        raise WarehouseError(f"nothing is published in {warehouse.root}", "run `tgq nightly` first")
    scratch = out.with_name(f".{out.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        rows = warehouse.sql("SELECT count(*) AS n FROM current_embeddings")["n"][0].as_py()
        batches = _with_width(warehouse.stream(QUERY))
        dim = batches.schema.field("embedding").type.list_size
        written = writers[kind](_counted(batches, progress), scratch, rows, dim)
        if written != rows:
            raise WarehouseError(f"{written} of {rows} rows were exported", "export again")
        files = {p.relative_to(scratch).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256(p.read_bytes())}
                 for p in sorted(scratch.rglob("*")) if p.is_file()}  # fmt: skip
        manifest = {"kind": kind, "rows": rows, "dim": dim, "generation": published.generation, "model_version": published.model_version,
                    "created_at": published.created_at, "metric": "cosine", "normalised": True, "files": files}  # fmt: skip
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        scratch.rename(out)
    except OSError as error:
        raise WarehouseError(f"{out} cannot be written ({error.strerror})", "choose another folder, or free disk space") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Exported(out, kind, rows, dim, published.generation)


def _with_width(batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The batches with embeddings as fixed-size lists, which vector databases read as vectors."""
    first = next((batch for batch in batches if batch.num_rows), None)
    width = len(first["embedding"][0]) if first is not None else 0
    fields = [f.with_type(pa.list_(pa.float32(), width)) if f.name == "embedding" else f for f in batches.schema]
    schema = pa.schema(fields)

    def fixed() -> Iterator[pa.RecordBatch]:
        if first is not None:
            yield convert(first)
        for batch in batches:
            if batch.num_rows:
                yield convert(batch)

    def convert(batch: pa.RecordBatch) -> pa.RecordBatch:
        values = batch["embedding"].flatten()
        if len(values) != batch.num_rows * width:
            raise WarehouseError("the published vectors differ in width", "run `tgq nightly` again")
        columns = [pa.FixedSizeListArray.from_arrays(values, width) if f.name == "embedding" else batch[f.name] for f in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, fixed())


def _counted(batches: pa.RecordBatchReader, progress: Callable[[int], None]) -> pa.RecordBatchReader:
    def run() -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in batches:
            yield batch
            done += batch.num_rows
            progress(done)

    return pa.RecordBatchReader.from_batches(batches.schema, run())


def _parquet(batches: pa.RecordBatchReader, folder: Path, rows: int, dim: int) -> int:
    written = 0
    with pq.ParquetWriter(folder / "vectors.parquet", batches.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            written += batch.num_rows
    return written


def _npy(batches: pa.RecordBatchReader, folder: Path, rows: int, dim: int) -> int:
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(rows, dim))
    schema, written = pa.schema([f for f in batches.schema if f.name != "embedding"]), 0
    with pq.ParquetWriter(folder / "items.parquet", schema, compression="zstd") as writer:
        for batch in batches:
            vectors[written : written + batch.num_rows] = batch["embedding"].flatten().to_numpy().reshape(batch.num_rows, dim)
            writer.write_batch(batch.select(schema.names))
            written += batch.num_rows
    vectors.flush()
    return written


def _lance(batches: pa.RecordBatchReader, folder: Path, rows: int, dim: int) -> int:
    try:
        import lance
    except ImportError:
        raise UsageError("export to lance needs the package pylance", "install it: pip install 'tgq[lance]'") from None
    return lance.write_dataset(batches, str(folder / "vectors.lance")).count_rows()
