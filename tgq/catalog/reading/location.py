"""Where a catalog lies: found in a folder, a file or a URI, with its format and what picture paths are relative to."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyspark.sql import SparkSession

from tgq.catalog.reading.read_errors import reading
from tgq.errors import SourceError
from tgq.feeds.files import FORMATS, SNIFFED, feed_files, is_hidden, suffix
from tgq.images.decode import ImageError
from tgq.images.permitted import FetchOptions
from tgq.settings.sections import CatalogSettings, ImageSettings
from tgq.storage.paths import absolute

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True)
class Location:
    """A catalog that was found.

    Attributes:
        table: URI of the file, or of the folder of files.
        format: csv, jsonl, parquet, xml or delta.
        folder: what image paths are relative to (no '/' at its end).
        suffixes: of a folder that holds other things too, the suffixes of the table's files; None: all files are the table's.
    """

    table: str
    format: str
    folder: str
    suffixes: frozenset[str] | None = None

    @property
    def is_local(self) -> bool:
        """Whether the folder is one of this machine's."""
        return "://" not in self.folder

    def resolve(self, path: str) -> str:
        """A path relative to the catalog's folder as a full one; a URI, a web address or an absolute path as it is. Blanks around it go.

        Raises:
            ImageError: 'path_outside_catalog' in a remote catalog; a local path is judged by `Fetcher`, which sees symlinks.
        """
        path = path.strip()
        if path.startswith("/") or URI.match(path):
            return path
        if not self.is_local and posixpath.normpath(path).startswith(".."):
            raise ImageError("path_outside_catalog", f"{path} leads out of {self.folder}")
        return f"{self.folder}/{path if self.is_local else posixpath.normpath(path)}"


def fetch_options(folder: str | None, images: ImageSettings) -> FetchOptions:
    """What may be read for a catalog: its own folder, and the roots and hosts that the operator named."""
    roots = ((folder,) if folder else ()) + images.allowed_roots
    return FetchOptions(images.allowed_hosts, roots, images.timeout_s, images.retries, images.max_bytes, images.private_networks)


def folder_of(spark: SparkSession, catalog: CatalogSettings) -> str | None:
    """What `locate` gives as the folder for image paths, without looking for the table; None where no catalog is named."""
    if not catalog.path:
        return None
    path = absolute(str(catalog.path))
    with reading(catalog.path):
        return path if _Store(spark, path).is_folder(path) else path.rpartition("/")[0] or "/"


def is_there(spark: SparkSession, path: str) -> bool:
    """Whether a file or folder exists.

    Raises:
        SourceError: its file system does not answer.
    """
    path = absolute(path)
    with reading(path):
        return _Store(spark, path).exists(path)


def locate(spark: SparkSession, catalog: CatalogSettings) -> Location:
    """Find the table: `path/<catalog.table>` where that exists, else `path` itself, a file or a folder of files.

    The folder for image paths is `path` where that is a folder, else the file's own folder.

    Raises:
        SourceError: no path is set, nothing is there, or a folder holds no table.
    """
    if not catalog.path:
        raise SourceError("catalog.path is not set", "name a catalog folder or table, with --catalog or catalog.path")
    path = absolute(str(catalog.path))
    with reading(catalog.path):
        store = _Store(spark, path)
        if not store.exists(path):
            raise SourceError(f"no catalog at {catalog.path}", "name an existing folder or table in catalog.path")
        if not store.is_folder(path):
            return Location(store.uri(path), _format(catalog, path), str(path.rpartition("/")[0]) or "/")
        inside = f"{path}/{catalog.table}"
        if store.exists(inside):
            return Location(store.uri(inside), _format(catalog, inside, store), path)
        names = store.names(path)
        if "_delta_log" in names:
            return Location(store.uri(path), "delta", path)
        files = [f for f in feed_files(store.uri(path)) if f.suffix in (*FORMATS, SNIFFED) or catalog.format != "auto"]
        stem = PurePosixPath(catalog.table).stem
        tables = sorted(n for n in names if suffix(n) in FORMATS and not is_hidden(n))  # files, and folders of files
        ours = [n for n in tables if PurePosixPath(n).stem.split(".")[0] == stem]
        if len(ours) == 1:  # catalog.csv where catalog.parquet is the default
            return Location(store.uri(f"{path}/{ours[0]}"), _format(catalog, f"{path}/{ours[0]}", store), path)
        if len(tables) == 1 and catalog.format == "auto":
            return Location(store.uri(f"{path}/{tables[0]}"), _format(catalog, f"{path}/{tables[0]}", store), path)
        found = [f for f in files if f.suffix in FORMATS] or [f for f in files if f.suffix == SNIFFED]
        formats = {FORMATS.get(f.suffix, "csv") for f in found}
        if catalog.format != "auto":
            known = frozenset(s for s, format in FORMATS.items() if format == catalog.format and any(f.suffix == s for f in files))
            if files:
                return Location(store.uri(path), catalog.format, path, known or None)
        elif len(formats) == 1 and not ours:
            return Location(store.uri(path), formats.pop(), path, frozenset(f.suffix for f in found))
        shown = sorted({f.name for f in found})
    what = f"more than one kind of table ({', '.join(shown[:4])})" if shown else f"no {catalog.table} and no other table"
    raise SourceError(f"the catalog folder {catalog.path} holds {what}", "name the table in catalog.table, or its own path in catalog.path")


class _Store:
    """The few questions that `locate` has, answered by Hadoop's file systems: local, HDFS and object stores alike."""

    def __init__(self, spark: SparkSession, path: str):
        assert spark._jvm is not None  # an open session has one
        self._path = spark._jvm.org.apache.hadoop.fs.Path
        self._fs = self._path(self.uri(path)).getFileSystem(spark._jsc.hadoopConfiguration())

    @staticmethod
    def uri(path: str) -> str:
        """With a scheme: on a cluster a bare path would mean its default file system."""
        return path if "://" in path else f"file:{path}"

    def exists(self, path: str) -> bool:
        return self._fs.exists(self._path(self.uri(path)))

    def is_folder(self, path: str) -> bool:
        return self._fs.getFileStatus(self._path(self.uri(path))).isDirectory()

    def names(self, path: str) -> list[str]:
        return [status.getPath().getName() for status in self._fs.listStatus(self._path(self.uri(path)))]


def _format(catalog: CatalogSettings, name: str, store: _Store | None = None) -> str:
    if catalog.format != "auto":
        return catalog.format
    if store and store.exists(f"{name}/_delta_log"):
        return "delta"
    if found := FORMATS.get(suffix(PurePosixPath(name).name)):
        return found
    if suffix(PurePosixPath(name).name) == SNIFFED:
        return "csv"
    if store and store.is_folder(name):
        formats = {FORMATS[f.suffix] for f in feed_files(store.uri(name)) if f.suffix in FORMATS}
        if len(formats) == 1:
            return formats.pop()
    raise SourceError(f"the format of {name} is not known by its name", "set catalog.format to parquet, delta, csv, jsonl or xml")
