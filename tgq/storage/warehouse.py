"""The warehouse: the Delta tables by name, in one folder or in a metastore schema, from the same DDL files.

In a folder warehouse the tables are registered in the session's in-memory catalog, so that every query, here and in
`sql/`, uses plain table names in both cases.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import cast

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from tgq.errors import ConfigError, WarehouseError
from tgq.settings.load import data_folder
from tgq.settings.sections import WarehouseSettings
from tgq.storage.paths import absolute, ensure_writable

TABLES = (
    "catalog_items", "quarantine", "relevance_pairs", "item_embeddings", "item_features", "tower_features",
    "index_shards", "item_neighbors", "retrieval_metrics", "pipeline_runs",
)  # fmt: skip
ADDED_COLUMNS = {"catalog_items": ("additional_images",)}  # added by a later version: warehouses of earlier ones get them, empty
SESSION_SCHEMA = "tgq"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")


class Warehouse:
    """Tables and side files of one warehouse, opened in one session.

    Args:
        spark: an open session with Delta's extensions.
        settings: folder and, optionally, metastore schema.
        create: create what is missing; without it a warehouse that is not there is an error.

    Raises:
        WarehouseError: the folder cannot be written, does not exist (create=False), or holds other tables.
    """

    def __init__(self, spark: SparkSession, settings: WarehouseSettings, create: bool = True):
        self.spark = spark
        self.root = absolute(settings.path)
        self.schema = settings.metastore_schema or SESSION_SCHEMA
        self.in_metastore = settings.metastore_schema is not None
        catalog = spark.conf.get("spark.sql.catalogImplementation")
        if self.in_metastore != (catalog == "hive"):
            where = f"warehouse.metastore_schema is {settings.metastore_schema}, but this session's catalog is {catalog}"
            raise ConfigError(where, "set spark.sql.catalogImplementation to hive for a metastore schema, to in-memory for a folder")
        if not _IDENTIFIER.fullmatch(self.schema):
            raise ConfigError(f"warehouse.metastore_schema: '{self.schema}' is not an identifier", "use letters, digits and _")
        if create:
            ensure_writable(self.root)
        elif not self.in_metastore and not (Path(self.root) / "catalog_items").exists() and "://" not in self.root:
            raise WarehouseError(f"no tgq tables in {settings.path}", "run `tgq nightly` first, or name another --warehouse")
        self._register()

    def _register(self) -> None:
        place = f" LOCATION {sql_string(self.root)}" if self.in_metastore else ""
        self.spark.sql(f"CREATE SCHEMA IF NOT EXISTS {self.schema}{place}")
        self.spark.sql(f"USE {self.schema}")
        for name in TABLES:
            statement = ddl(name)
            if not self.in_metastore:
                # the session's in-memory catalog outlives one warehouse where a process opens several
                self.spark.sql(f"DROP TABLE IF EXISTS {self.schema}.{name}")
                place = sql_string(self.location(name))
                there = DeltaTable.isDeltaTable(self.spark, self.location(name))
                statement = f"CREATE TABLE {name} USING DELTA LOCATION {place}" if there else f"{statement} LOCATION {place}"
            try:
                self.spark.sql(statement)
            except AnalysisException as e:
                raise WarehouseError(f"table {name} in {self.root}: {str(e).splitlines()[0][:200]}", "use another warehouse") from e
            self._add_columns(name)
            found, wanted = ({f.name: f.dataType for f in schema} for schema in (self.spark.table(name).schema, schema_of(name)))
            if wrong := [c for c in {**wanted, **found} if found.get(c) != wanted.get(c)]:
                raise WarehouseError(f"table {name} in {self.root} has other columns than this version's ({', '.join(wrong)})", "use another warehouse")

    def _add_columns(self, name: str) -> None:
        there = self.spark.table(name).columns
        for column in (c for c in ADDED_COLUMNS.get(name, ()) if c not in there):
            self.spark.sql(f"ALTER TABLE {name} ADD COLUMNS ({column} {schema_of(name)[column].dataType.simpleString()})")

    def location(self, name: str) -> str:
        """Folder or URI of a table of a folder warehouse."""
        return f"{self.root}/{name}"

    def path(self, *parts: str) -> str:
        """A side file's place: shards, staging, reports, MLflow."""
        return "/".join((self.root, *parts))

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """A table now, or as of a Delta version."""
        if version is None:
            return self.spark.table(self.qualified(name))
        return self.spark.sql(f"SELECT * FROM {self.qualified(name)} VERSION AS OF {int(version)}")

    def qualified(self, name: str) -> str:
        """`schema.table`, for SQL."""
        if name not in TABLES:
            raise KeyError(name)
        return f"{self.schema}.{name}"

    def delta(self, name: str) -> DeltaTable:
        """A fresh handle: one taken before an ALTER TABLE is stale."""
        return DeltaTable.forName(self.spark, self.qualified(name))

    def version(self, name: str) -> int:
        """The table's current Delta version."""
        return int(self.delta(name).history(1).select("version").collect()[0][0])

    def versions(self, *names: str) -> dict[str, int]:
        """Current Delta versions by table."""
        return {name: self.version(name) for name in names}

    def append(self, frame: DataFrame, name: str, transaction: tuple[str, int] | None = None) -> None:
        """Append; with `transaction` = (application id, number) a repeated append of the same number is ignored."""
        writer = frame.write.format("delta").mode("append")
        if transaction:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        writer.saveAsTable(self.qualified(name))

    def upsert(self, frame: DataFrame, name: str, keys: tuple[str, ...]) -> None:
        """MERGE by key: update all columns where the key exists, insert where not."""
        condition = " AND ".join(f"t.{key} = s.{key}" for key in keys)
        merge = self.delta(name).alias("t").merge(frame.alias("s"), condition)
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()


def ddl(name: str) -> str:
    """The CREATE TABLE statement of `sql/ddl/<name>.sql`, without its final semicolon."""
    text = (data_folder("sql") / "ddl" / f"{name}.sql").read_text()
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().removesuffix(";")


@functools.cache
def schema_of(name: str) -> StructType:
    """The columns that `sql/ddl/<name>.sql` declares."""
    return cast(StructType, StructType.fromDDL(ddl(name).partition("(")[2].partition("\n)")[0]))


def sql_string(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
