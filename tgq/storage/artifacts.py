"""Arrow tables and JSON as side files of the warehouse. A local table is read by memory map, so that workers share its pages."""

from __future__ import annotations

import json
import os
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from tgq.storage.files import Files


def exists(path: str) -> bool:
    """Whether there is a file."""
    files, name = _split(path)
    return files.size(name) is not None


def read_json(path: str) -> Any:
    """A JSON file; FileNotFoundError where there is none."""
    files, name = _split(path)
    return json.loads(files.read(name))


def write_json(path: str, value: Any) -> None:
    """A JSON file, whole or not at all."""
    files, name = _split(path)
    files.write(name, (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode())


def write_table(path: str, table: pa.Table) -> None:
    """An Arrow IPC file of one record batch, whole or not at all."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    files, name = _split(path)
    files.write(name, memoryview(sink.getvalue()))


def read_table(path: str) -> pa.Table:
    """An Arrow IPC file; of a local one, only the columns that are touched are read."""
    files, name = _split(path)
    source = pa.memory_map(path) if "://" not in path else pa.BufferReader(files.read(name))
    return pa.ipc.open_file(source).read_all()


def matrix_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """A matrix [n, D] as an Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def column_matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """An Arrow column of fixed-size lists as a matrix [n, width], without a copy where it is one chunk."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _split(path: str) -> tuple[Files, str]:
    folder, name = os.path.split(path)
    return Files(folder), name


def remove_folder(path: str) -> None:
    """Delete a folder with all that is in it; nothing happens where there is none."""
    system, inner = fsspec.core.url_to_fs(path)
    if system.exists(inner):
        system.rm(inner, recursive=True)
