"""Side files of the warehouse (pool, shards, manifests) on whatever file system it lies: local, HDFS, object store.

A local file is read by memory map, so that workers of one machine share its pages. A file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa


def is_local(path: str) -> bool:
    """Whether a plain path, not a URI."""
    return "://" not in path


def exists(path: str) -> bool:
    """Whether there is a file."""
    if is_local(path):
        return os.path.isfile(path)
    system, inner = fsspec.core.url_to_fs(path)
    return system.isfile(inner)


def read_bytes(path: str) -> bytes:
    """The whole file; FileNotFoundError where there is none."""
    with fsspec.open(path, "rb") as file:
        return file.read()


def write_bytes(path: str, data: bytes | pa.Buffer) -> None:
    """Write a file at once: under a name of its own first, then renamed (an object store's put is atomic by itself)."""
    if not is_local(path):
        with fsspec.open(path, "wb") as file:
            file.write(data)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    scratch = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(scratch, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        if os.path.exists(scratch):
            os.unlink(scratch)
        raise


def read_json(path: str) -> Any:
    """A JSON file; FileNotFoundError where there is none."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """A JSON file, written at once."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode())


def write_table(path: str, table: pa.Table) -> None:
    """An Arrow IPC file of one record batch, written at once."""
    sink = pa.BufferOutputStream()
    table = table.combine_chunks()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(1, table.num_rows))
    write_bytes(path, sink.getvalue())


def read_table(path: str) -> pa.Table:
    """An Arrow IPC file; a local one is mapped, so only the columns that are touched are read."""
    source = pa.memory_map(path) if is_local(path) else pa.BufferReader(read_bytes(path))
    return pa.ipc.open_file(source).read_all()


def matrix_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """A matrix [n, D] as an Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def column_matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """An Arrow column of fixed-size lists as a matrix [n, width], without a copy where it is one chunk."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks) if chunks else np.empty((0, width), np.float32)


def remove_folder(path: str) -> None:
    """Delete a folder with all that is in it; nothing happens where there is none."""
    if is_local(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    system, inner = fsspec.core.url_to_fs(path)
    if system.exists(inner):
        system.rm(inner, recursive=True)
