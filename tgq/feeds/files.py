"""The files of a feed: which ones a folder holds, their partition values, and their bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import unquote

import fsspec

from tgq.errors import SourceError
from tgq.storage.stores import file_system

FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv", ".tab": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".xml": "xml", ".delta": "delta",
}  # fmt: skip
SNIFFED = ".txt"  # a table only where nothing else in the folder is one
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
HEAD_BYTES = 2**18


@dataclass(frozen=True)
class FeedFile:
    """One file: its URI or absolute path, size in bytes, and the `name=value` parts of its folders, as text."""

    uri: str
    size: int
    partition: tuple[tuple[str, str | None], ...] = ()

    @property
    def name(self) -> str:
        """The last part of its path, for messages."""
        return self.uri.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """'.csv' of 'items.csv.gz' too."""
        return suffix(self.name)

    @property
    def compression(self) -> str | None:
        """fsspec's name for the compression that the file's name tells."""
        return COMPRESSED.get(PurePosixPath(self.name.lower()).suffix)


def suffix(name: str) -> str:
    """The suffix in lower case, without that of a compression."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in (*COMPRESSED, ".snappy") else path.suffix


def is_hidden(name: str) -> bool:
    """Whether writers and systems keep something of their own there: `_SUCCESS`, `._1.jpg`, `.DS_Store`."""
    return name.startswith((".", "_")) and "=" not in name


def feed_files(uri: str, only: frozenset[str] | None = None) -> list[FeedFile]:
    """The files of a table, sorted by path: the file itself, or those in a folder and in its `name=value` folders.

    Args:
        only: suffixes that count; None: all files.

    Cost: one listing a folder.
    """
    system, path = _system(uri)
    if not system.isdir(path):
        return [_file(system, system.info(path), ())]
    return sorted(_walk(system, path.rstrip("/"), only, ()), key=lambda f: f.uri)


def version(file: FeedFile) -> str:
    """A text that changes with the file: of its size and time, or of the tag that its object store gives. Cost: one stat."""
    system, path = _system(file.uri)
    return str(system.ukey(path))


def _walk(system: Any, folder: str, only: frozenset[str] | None, partition: tuple[tuple[str, str | None], ...]) -> Iterator[FeedFile]:
    for entry in system.ls(folder, detail=True):
        name = str(entry["name"]).rstrip("/").rpartition("/")[2]
        if is_hidden(name):
            continue
        if entry["type"] == "directory" or (entry["type"] != "file" and system.isdir(entry["name"])):  # a link may lead to a folder
            key, equals, value = name.partition("=")
            if equals:
                value = unquote(value)
                yield from _walk(system, entry["name"], only, (*partition, (unquote(key), None if value == NO_VALUE else value)))
        elif only is None or suffix(name) in only:
            yield _file(system, entry, partition)


def _file(system: Any, entry: dict[str, Any], partition: tuple[tuple[str, str | None], ...]) -> FeedFile:
    local = "file" in (system.protocol if isinstance(system.protocol, tuple | list) else (system.protocol,))
    return FeedFile(str(entry["name"]) if local else system.unstrip_protocol(entry["name"]), int(entry.get("size") or 0), partition)


def _system(uri: str) -> tuple[Any, str]:
    if uri.startswith("file:"):
        uri = "/" + uri[5:].lstrip("/")
    if "://" not in uri:
        return fsspec.filesystem("file"), uri  # a path may hold '::' or '#', which mean something in a URL
    return file_system(uri)


@contextmanager
def opened(file: FeedFile) -> Iterator[IO[bytes]]:
    """Its bytes, decompressed.

    Raises:
        SourceError: it cannot be read, or its compressed data is damaged.
    """
    system, path = _system(file.uri)
    try:
        with system.open(path, "rb", compression=file.compression) as stream:
            yield stream
    except (OSError, EOFError) as e:
        what = getattr(e, "strerror", None) or " ".join(str(e).split())[:200]
        raise SourceError(f"{file.uri} cannot be read: {what}", "write the file again, or check its permissions") from e
    except Exception as e:
        if type(e).__module__.partition(".")[0] in ("zlib", "lzma", "zstandard", "compression", "_lzma"):
            raise SourceError(f"{file.uri} is damaged: {e}", "write the file again") from e
        raise


def head(file: FeedFile, size: int = HEAD_BYTES) -> bytes:
    """The first bytes, decompressed."""
    with opened(file) as stream:
        return io.BytesIO(stream.read(size)).getvalue()
