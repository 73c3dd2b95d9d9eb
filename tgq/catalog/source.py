"""The catalog as its owner keeps it, brought into our columns: Parquet, Delta, CSV, JSON Lines; local, HDFS or object store.

Nothing here looks at a picture or judges a row. What is checked is what would spoil the whole night: that there is a table,
that it can be read, that it has the columns which the configuration names, and that it is not empty.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from tgq.encoder.text import metadata_text, normalise
from tgq.errors import SourceError
from tgq.images.decode import ImageError
from tgq.images.fetch import FetchOptions
from tgq.settings.sections import CatalogSettings, ColumnMapping, ImageSettings, MetadataSettings
from tgq.storage.warehouse import absolute

LEVELS = " > "
FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".delta": "delta",
}  # fmt: skip
DEFAULT_NAMES = ColumnMapping(image_bytes="image_bytes", group_id="group_id", variant_id="variant_id")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
UNPARSED = "_corrupt_record"  # where Spark keeps a JSON line that it could not read


@dataclass(frozen=True)
class Location:
    """A catalog that was found: what Spark reads, how, and what image paths are relative to (no '/' at its end)."""

    table: str
    format: str
    folder: str

    @property
    def is_local(self) -> bool:
        """Whether the folder is one of this machine's."""
        return "://" not in self.folder

    def resolve(self, path: str) -> str:
        """A path relative to the catalog's folder as a full one; a URI or an absolute path as it is.

        Raises:
            ImageError: 'path_outside_catalog' in a remote catalog; a local path is judged by `Fetcher`, which sees symlinks.
        """
        if path.startswith("/") or URI.match(path):
            return path
        if not self.is_local and posixpath.normpath(path).startswith(".."):
            raise ImageError("path_outside_catalog", f"{path} leads out of {self.folder}")
        return f"{self.folder}/{path if self.is_local else posixpath.normpath(path)}"


def fetch_options(folder: str | None, images: ImageSettings) -> FetchOptions:
    """What may be read for a catalog: its own folder, and the roots and hosts that the operator named."""
    roots = ((folder,) if folder else ()) + images.allowed_roots
    return FetchOptions(images.allowed_hosts, roots, images.timeout_s, images.retries, images.max_bytes)


def folder_of(spark: SparkSession, catalog: CatalogSettings) -> str | None:
    """What `locate` gives as the folder for image paths, without looking for the table; None where no catalog is named."""
    if not catalog.path:
        return None
    path = absolute(str(catalog.path))
    with _reading(catalog.path):
        return path if _Store(spark, path).is_folder(path) else path.rpartition("/")[0] or "/"


def locate(spark: SparkSession, catalog: CatalogSettings) -> Location:
    """Find the table: `path/<catalog.table>` where that exists, else `path` itself, a file or a folder of files.

    The folder for image paths is `path` where that is a folder, else the file's own folder.

    Raises:
        SourceError: no path is set, nothing is there, or a folder holds no table.
    """
    if not catalog.path:
        raise SourceError("catalog.path is not set", "name a catalog folder or table, with --catalog or catalog.path")
    path = absolute(str(catalog.path))
    with _reading(catalog.path):
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
        found = sorted(n for n in names if _suffix(n) in FORMATS and not n.startswith((".", "_")))
        stem = PurePosixPath(catalog.table).stem
        ours = [n for n in found if PurePosixPath(n).stem.split(".")[0] == stem]
        if len(ours) == 1:  # catalog.csv where catalog.parquet is the default
            return Location(store.uri(f"{path}/{ours[0]}"), _format(catalog, f"{path}/{ours[0]}", store), path)
        formats = {FORMATS[_suffix(n)] for n in found}
        partitioned = any("=" in n and store.is_folder(f"{path}/{n}") for n in names)
        if len(formats) == 1 and not ours:
            return Location(store.uri(path), _format(catalog, found[0]), path)
        if partitioned and not found and catalog.format != "auto":
            return Location(store.uri(path), catalog.format, path)
    what = f"more than one kind of table ({', '.join(found[:4])})" if found else f"no {catalog.table} and no other table"
    raise SourceError(f"the catalog folder {catalog.path} holds {what}", "name the table in catalog.table, or its own path in catalog.path")


def read_source(spark: SparkSession, catalog: CatalogSettings, location: Location | None = None) -> DataFrame:
    """The catalog in our columns, one row per source row, lazily.

    Columns: item_id, title, brand, category, attributes map, image_uri (as found), image_bytes, group_id, variant_id,
    slices map (`catalog.slice_columns`), and unparsed: the text of a JSON line that could not be read, else null.
    Blank text is null. Ids of a whole-number type, or doubles that pandas made of them, have no '.0'. Categories are
    'a > b > c' (see `category_path`), attributes are flat (see `flat_attributes`).

    Raises:
        SourceError: the table cannot be read, or lacks a column that the mapping names.
    """
    location = location or locate(spark, catalog)
    with _reading(catalog.path):
        raw = _load(spark, catalog, location)
    if set(raw.columns) == {UNPARSED} or not raw.columns:
        raise SourceError(f"{catalog.path} holds nothing that reads as {location.format}", "check catalog.format and the file")
    columns = _mapped(raw, catalog)
    levels, separator = _levels(raw, columns.get("category"), catalog.category_separator)

    @F.arrow_udf("string")
    def category_udf(values: pa.Array) -> pa.Array:
        return pa.array([category_path(v, separator) for v in values.to_pylist()], pa.string())

    @F.arrow_udf("map<string,string>")
    def attributes_udf(values: pa.Array) -> pa.Array:
        maps = (flat_attributes(v) for v in values.to_pylist())
        return pa.array([None if m is None else list(m.items()) for m in maps], pa.map_(pa.string(), pa.string()))

    def text(field: str) -> Column:
        return _text(raw, columns[field]) if field in columns else F.lit(None).cast("string")

    slices = [part for name in catalog.slice_columns for part in (F.lit(name), _text(raw, name))]
    with _reading(catalog.path):
        return raw.select(
            text("item_id").alias("item_id"),
            text("title").alias("title"),
            text("brand").alias("brand"),
            category_udf(levels).alias("category"),
            (attributes_udf(_json(raw, columns["attributes"])) if "attributes" in columns else F.lit(None).cast("map<string,string>"))
            .alias("attributes"),
            text("image_uri").alias("image_uri"),
            (_binary(raw, columns["image_bytes"]) if "image_bytes" in columns else F.lit(None).cast("binary")).alias("image_bytes"),
            text("group_id").alias("group_id"),
            text("variant_id").alias("variant_id"),
            (F.create_map(*slices) if slices else F.lit(None).cast("map<string,string>")).alias("slices"),
            (F.col(UNPARSED) if UNPARSED in raw.columns else F.lit(None).cast("string")).alias("unparsed"),
        )  # fmt: skip


def open_table(spark: SparkSession, table: CatalogSettings, setting: str) -> DataFrame:
    """Any table that `setting` names, as it is.

    Raises:
        SourceError: it is not there or cannot be read.
    """
    try:
        location = locate(spark, table)
        with _reading(table.path):
            return _load(spark, table, location)
    except SourceError as e:
        raise SourceError(f"{setting}: {e.found}", e.do) from e


def count_rows(source: DataFrame, catalog: CatalogSettings) -> int:
    """How many rows there are; free for Parquet and Delta, one parse for text.

    Raises:
        SourceError: none, or the table is corrupt.
    """
    with _reading(catalog.path):
        rows = source.count()
    if not rows:
        raise SourceError(f"the catalog {catalog.path} is empty", "check that its export has run")
    return rows


def category_path(value: str | None, separator: str) -> str | None:
    """'a>b / c' by its separator to 'a > b / c': levels in NFC, trimmed, empty ones dropped; None where nothing is left."""
    levels = (normalise(level) for level in (value or "").split(separator))
    return LEVELS.join(level for level in levels if level) or None


def flat_attributes(text: str | None) -> dict[str, str] | None:
    """Attributes from JSON text: nested names joined by '.', lists by ', ', numbers without '.0', nulls dropped, sorted by name.

    What is not a JSON object is kept whole under the name 'text'. Blank gives None.
    """
    if text is None or not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if value is None:
        return None
    pairs = dict(_flat(value, "")) if isinstance(value, dict) else {"text": _shown(value)}
    return {normalise(k): normalise(v) for k, v in sorted(pairs.items()) if normalise(k) and normalise(v)}


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, _shown(value)


def _shown(value: Any) -> str:
    if value is None or value == "NaN":  # Spark writes a double that is not a number as that text
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if not math.isfinite(value) else str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, list):
        return ", ".join(shown for shown in map(_shown, value) if shown)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {shown}" for name, shown in _flat(value, "") if shown)
    return str(value)


def encoder_texts(row: dict[str, Any], metadata: MetadataSettings) -> tuple[str, str]:
    """(metadata_text, encoder_title): what the encoder may read of a row."""
    chosen = readable_fields(row, metadata)
    return metadata_text(**chosen), normalise(chosen["title"])


def readable_fields(row: dict[str, Any], metadata: MetadataSettings) -> dict[str, Any]:
    """title, brand, category and attributes of a row, less the fields, levels and attributes that the settings leave out."""
    chosen = {field: row[field] if field in metadata.fields else None for field in ("title", "brand", "category", "attributes")}
    if chosen["category"] and metadata.category_levels:
        chosen["category"] = LEVELS.join(chosen["category"].split(LEVELS)[: metadata.category_levels])
    if chosen["attributes"] and metadata.attributes is not None:
        chosen["attributes"] = {k: v for k, v in chosen["attributes"].items() if k in metadata.attributes}
    return chosen


# -- how a table is found and opened


class _Store:
    """The few questions that `locate` has, answered by Hadoop's file systems: local, HDFS and object stores alike."""

    def __init__(self, spark: SparkSession, path: str):
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


def _suffix(name: str) -> str:
    """'.csv' of 'items.csv.gz' too."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in (".gz", ".bz2", ".zst", ".snappy") else path.suffix


def _format(catalog: CatalogSettings, name: str, store: _Store | None = None) -> str:
    if catalog.format != "auto":
        return catalog.format
    if store and store.exists(f"{name}/_delta_log"):
        return "delta"
    if found := FORMATS.get(_suffix(PurePosixPath(name).name)):
        return found
    raise SourceError(f"the format of {name} is not known by its name", "set catalog.format to parquet, delta, csv or jsonl")


def _load(spark: SparkSession, catalog: CatalogSettings, location: Location) -> DataFrame:
    reader = spark.read.option("__globPaths__", "false")  # a folder may be called 'shoes [new]'
    if location.format == "csv":
        tabs = {"sep": "\t"} if _suffix(location.table) == ".tsv" else {}
        options = tabs | dict(catalog.csv)
        if set("[]{}*?") & set(location.table):  # there Spark finds the columns of multi-line text by a glob, whatever was said
            reader = reader.schema(spark.read.options(**options | {"multiLine": "false", "__globPaths__": "false"}).csv(location.table).schema)
        return reader.options(**options).csv(location.table)
    if location.format == "jsonl":
        return reader.json(location.table)
    return reader.format(location.format).load(location.table)


@contextmanager
def _reading(path: str | None) -> Iterator[None]:
    """Spark's and Hadoop's complaints about a source as one line."""
    try:
        yield
    except (PySparkException, Py4JError) as e:
        raise SourceError(f"the catalog {path} cannot be read: {first_line(e)}", "check the path, catalog.format and the file") from e


def first_line(error: Exception) -> str:
    """What the JVM said, without its class names and stack."""
    text = str(getattr(error, "java_exception", None) or error)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("\tat")] or [type(error).__name__]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    said = re.sub(r"^(\[[A-Z_.]+\] |[\w.$]+(Exception|Error): )+", "", " ".join((causes[-1] if causes else lines[0]).split()))
    return said[:240]


# -- how a column becomes ours


def _mapped(raw: DataFrame, catalog: CatalogSettings) -> dict[str, str]:
    """Our field -> the source's column, for those that are there.

    A field may be absent only under its usual name: a name that somebody chose must exist, or a typing error would empty a
    whole field in silence.
    """
    found = {}
    for field, column in catalog.columns.model_dump().items():
        if column is None:
            continue
        if column in raw.columns:
            found[field] = column
        elif field not in catalog.optional_columns or column != getattr(DEFAULT_NAMES, field):
            raise SourceError(
                f"catalog.columns.{field} names the column '{column}', which {catalog.path} does not have",
                f"its columns are {', '.join(raw.columns)}",
            )
    missing = [c for c in catalog.slice_columns if c not in raw.columns]
    if missing:
        raise SourceError(
            f"catalog.slice_columns names {', '.join(missing)}, which {catalog.path} does not have",
            f"its columns are {', '.join(raw.columns)}",
        )
    if not set(found) & {"title", "brand", "category", "attributes", "image_uri", "image_bytes"}:
        raise SourceError(
            f"none of the mapped columns but the id is in {catalog.path}, which has {', '.join(raw.columns)}",
            "map at least an image or a text column in catalog.columns",
        )
    return found


def _column(name: str) -> Column:
    return F.col("`" + name.replace("`", "``") + "`")


def _text(raw: DataFrame, name: str) -> Column:
    """As text, blank as null."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, (T.FloatType, T.DoubleType)):
        whole = (column == F.floor(column)) & (F.abs(column) < 2**53)
        column = F.when(~F.isnan(column), F.when(whole, column.cast("bigint").cast("string")).otherwise(column.cast("string")))
    elif isinstance(kind, T.ArrayType):
        column = F.array_join(column.cast("array<string>"), ", ")
    else:
        column = column.cast("string")
    return F.when(F.trim(column) != "", column)


def _levels(raw: DataFrame, name: str | None, separator: str) -> tuple[Column, str]:
    """A category as text, and what separates its levels: in an array something that no level holds."""
    kind = raw.schema[name].dataType if name else T.StringType()
    if isinstance(kind, T.ArrayType):
        return F.array_join(_column(name).cast("array<string>"), "\x1f"), "\x1f"
    if isinstance(kind, (T.StructType, T.MapType, T.BinaryType)):
        raise SourceError(f"the category column '{name}' is of type {kind.simpleString()}", "map a text or an array of levels")
    return (_text(raw, name) if name else F.lit(None).cast("string")), separator


def _json(raw: DataFrame, name: str) -> Column:
    """Attributes as JSON text."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, (T.MapType, T.StructType, T.ArrayType)):
        return F.to_json(column)
    return column.cast("string")


def _binary(raw: DataFrame, name: str) -> Column:
    """Bytes, from base64 where the source is text; text that is not base64 stays as it is, and is refused as a picture."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, T.StringType):
        column = F.coalesce(F.try_to_binary(column, F.lit("base64")), column.cast("binary"))
    elif not isinstance(kind, T.BinaryType):
        raise SourceError(f"the image column '{name}' is of type {kind.simpleString()}", "map a binary column, or base64 text")
    return F.when(F.length(column) > 0, column)
