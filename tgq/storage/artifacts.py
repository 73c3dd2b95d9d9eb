"""Arrow and JSON files in the warehouse folder. Local Arrow files are memory-mapped, so that workers share their pages."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pyarrow as pa

from tgq.storage.files import Files
from tgq.storage.stores import asked, file_system


def exists(path: str) -> bool:
    """Whether the file exists."""
    files, name = _split(path)
    return files.size(name) is not None


def read_json(path: str) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: it does not exist.
    """
    files, name = _split(path)
    return json.loads(files.read(name))


def write_json(path: str, value: Any) -> None:
    """Write a JSON file atomically."""
    files, name = _split(path)
    files.write(name, (json.dumps(value, indent=1, sort_keys=True, default=str) + "\n").encode())


def write_table(path: str, table: pa.Table) -> None:
    """Write an Arrow IPC file of one record batch, atomically."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    files, name = _split(path)
    files.write(name, memoryview(sink.getvalue()))


def read_table(path: str) -> pa.Table:
    """Read an Arrow IPC file. Of a local file only the columns that are used are loaded."""
    files, name = _split(path)
    source = pa.memory_map(path) if "://" not in path else pa.BufferReader(files.read(name))
    return pa.ipc.open_file(source).read_all()


def matrix_column(values: np.ndarray) -> pa.FixedSizeListArray:
    """A matrix [n, D] as an Arrow column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def column_matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """An Arrow column of fixed-size lists as a matrix [n, width]; not copied if it is one chunk."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, width) for chunk in column.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def _split(path: str) -> tuple[Files, str]:
    folder, name = os.path.split(path)
    return Files(folder), name


def remove_folder(path: str) -> None:
    """Delete a folder and its contents, if it exists."""
    system, inner = file_system(path)
    with asked(path):
        if system.exists(inner):
            system.rm(inner, recursive=True)
