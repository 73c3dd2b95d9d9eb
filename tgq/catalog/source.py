"""The catalog as its owner keeps it, brought into our columns: Parquet, Delta, CSV, JSON Lines; local, HDFS or object store.

Nothing here looks at a picture or judges a row. What is checked is what would spoil the whole night: that there is a table,
that it can be read, that it has the columns which the configuration names, and that it is not empty.
"""

from __future__ import annotations

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from tgq.catalog.columns import binary_column, category_levels, json_column, mapped_columns, text_column
from tgq.catalog.fields import category_path, flat_attributes
from tgq.catalog.location import Location, locate, suffix
from tgq.catalog.read_errors import reading
from tgq.errors import SourceError
from tgq.settings.sections import CatalogSettings

UNPARSED = "_corrupt_record"  # where Spark keeps a JSON line that it could not read


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
    with reading(catalog.path):
        raw = _load(spark, catalog, location)
    if set(raw.columns) == {UNPARSED} or not raw.columns:
        raise SourceError(f"{catalog.path} holds nothing that reads as {location.format}", "check catalog.format and the file")
    columns = mapped_columns(raw, catalog)
    levels, separator = category_levels(raw, columns.get("category"), catalog.category_separator)

    @F.arrow_udf("string")  # type: ignore[call-overload]  # pyspark declares no decorator with the return type alone
    def category_udf(values: pa.Array) -> pa.Array:
        return pa.array([category_path(v, separator) for v in values.to_pylist()], pa.string())

    @F.arrow_udf("map<string,string>")  # type: ignore[call-overload]  # pyspark declares no decorator with the return type alone
    def attributes_udf(values: pa.Array) -> pa.Array:
        maps = (flat_attributes(v) for v in values.to_pylist())
        return pa.array([None if m is None else list(m.items()) for m in maps], pa.map_(pa.string(), pa.string()))

    def text(field: str) -> Column:
        return text_column(raw, columns[field]) if field in columns else F.lit(None).cast("string")

    slices = [part for name in catalog.slice_columns for part in (F.lit(name), text_column(raw, name))]
    with reading(catalog.path):
        return raw.select(
            text("item_id").alias("item_id"),
            text("title").alias("title"),
            text("brand").alias("brand"),
            category_udf(levels).alias("category"),
            (attributes_udf(json_column(raw, columns["attributes"])) if "attributes" in columns else F.lit(None).cast("map<string,string>"))
            .alias("attributes"),
            text("image_uri").alias("image_uri"),
            (binary_column(raw, columns["image_bytes"]) if "image_bytes" in columns else F.lit(None).cast("binary")).alias("image_bytes"),
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
        with reading(table.path):
            return _load(spark, table, location)
    except SourceError as e:
        raise SourceError(f"{setting}: {e.found}", e.do) from e


def count_rows(source: DataFrame, catalog: CatalogSettings) -> int:
    """How many rows there are; free for Parquet and Delta, one parse for text.

    Raises:
        SourceError: none, or the table is corrupt.
    """
    with reading(catalog.path):
        rows = source.count()
    if not rows:
        raise SourceError(f"the catalog {catalog.path} is empty", "check that its export has run")
    return rows


def _load(spark: SparkSession, catalog: CatalogSettings, location: Location) -> DataFrame:
    reader = spark.read.option("__globPaths__", "false")  # a folder may be called 'shoes [new]'
    if location.format == "csv":
        tabs = {"sep": "\t"} if suffix(location.table) == ".tsv" else {}
        options = tabs | dict(catalog.csv)
        if set("[]{}*?") & set(location.table):  # there Spark finds the columns of multi-line text by a glob, whatever was said
            reader = reader.schema(spark.read.options(**options | {"multiLine": "false", "__globPaths__": "false"}).csv(location.table).schema)
        return reader.options(**options).csv(location.table)
    if location.format == "jsonl":
        return reader.json(location.table)
    return reader.format(location.format).load(location.table)
