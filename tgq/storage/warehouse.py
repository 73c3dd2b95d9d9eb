"""The warehouse: Delta tables in a folder or a metastore schema, created from `sql/ddl/`.

Tables of a folder are registered in the session's in-memory catalog, so queries use plain table names in both cases.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from tgq.errors import ConfigError, WarehouseError
from tgq.settings.load import data_folder
from tgq.settings.sections import WarehouseSettings
from tgq.storage import small_tables
from tgq.storage.added import ADDED_COLUMNS
from tgq.storage.files import Files
from tgq.storage.paths import absolute, ensure_writable

TABLES = (
    "catalog_items", "quarantine", "relevance_pairs", "relevance_queries", "query_judgments", "item_texts", "item_attributes_generated",
    "item_embeddings", "item_features", "tower_features", "item_grounding", "picture_hashes", "picture_clusters", "index_shards", "item_neighbors",
    "retrieval_metrics", "pipeline_runs",
)  # fmt: skip
RECORDS = ("index_shards", "retrieval_metrics", "pipeline_runs")  # do not grow with the catalog; see `rows`
# opened by Spark when they are asked for, because many nights do not read them
LATE = (
    *RECORDS, "relevance_queries", "query_judgments", "item_texts", "item_attributes_generated", "item_grounding", "picture_hashes", "picture_clusters",
)  # fmt: skip
SESSION_SCHEMA = "tgq"
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
_COMMIT = re.compile(r"\d{20}\.json")
_LOGGED = re.compile(r"\d{20}\.")  # commits and checkpoints; temporary files have other names
MAINTENANCE = ("OPTIMIZE", "REORG", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES")  # commits that change no row


class Warehouse:
    """The tables and other files of a warehouse, opened in a Spark session.

    Args:
        spark: an open session with Delta's extensions.
        create: create the folder if it does not exist.

    Raises:
        WarehouseError: the folder is not writable, does not exist (create=False), or its tables have other columns.
        ConfigError: the session's catalog does not fit `metastore_schema`, or its name is not valid.
    """

    def __init__(self, spark: SparkSession, settings: WarehouseSettings, create: bool = True):
        self.spark = spark
        self.root = absolute(settings.path)
        self.schema = settings.metastore_schema or SESSION_SCHEMA
        self.in_metastore = settings.metastore_schema is not None
        if not _IDENTIFIER.fullmatch(self.schema):
            raise ConfigError(f"warehouse.metastore_schema: '{self.schema}' is not an identifier", "use letters, digits and _")
        catalog = spark.conf.get("spark.sql.catalogImplementation")
        if self.in_metastore != (catalog == "hive"):
            found = f"warehouse.metastore_schema is {settings.metastore_schema}, but this session's catalog is {catalog}"
            raise ConfigError(found, "set spark.sql.catalogImplementation to hive for a metastore schema, to in-memory for a folder")
        if create:
            ensure_writable(self.root)
            self._remove_unfinished()
        elif not self.in_metastore and not (Path(self.root) / "catalog_items").exists() and "://" not in self.root:
            raise WarehouseError(f"there are no tgq tables in {settings.path}", "run `tgq nightly` first, or give another --warehouse")
        location = f" LOCATION {sql_string(self.root)}" if self.in_metastore else ""
        spark.sql(f"CREATE SCHEMA IF NOT EXISTS {self.schema}{location}")
        spark.sql(f"USE {self.schema}")
        self._registered: set[str] = set()
        for name in TABLES:
            self._forget(name)
            there = self._late_schema(name)
            if there is not None and set(ADDED_COLUMNS.get(name, ())) <= set(there.names):
                self._need_columns(name, there)
            else:
                self._register(name)

    def register_all(self) -> None:
        """Register every table in the session, for SQL that names them. Those of LATE in a local folder are not registered before."""
        for name in TABLES:
            self.qualified(name)

    def _remove_unfinished(self) -> None:
        """Remove tables whose creation was killed before their first commit, which Delta would not create in that place again.

        They hold no rows. Only who holds the warehouse's lock creates tables, so none is being created now. Cost: a listing per table.
        """
        if self.in_metastore:  # which knows what it has created
            return
        files = Files(self.root)
        for name in TABLES:
            if files.list(name) == ["_delta_log"] and not any(_LOGGED.match(file) for file in files.list(f"{name}/_delta_log")):
                files.remove(name)

    def _late_schema(self, name: str) -> StructType | None:
        """The columns of a table of LATE, read without Spark, which takes a second to open one; None for other tables and a missing one."""
        if name in LATE and self.is_local and Path(self.location(name), "_delta_log").is_dir():
            return small_tables.schema_of(self.location(name))
        return None

    def _forget(self, name: str) -> None:
        """Drop the name of a folder's table from the in-memory catalog, where it may still stand for that of another warehouse."""
        if not self.in_metastore:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.schema}.{name}")

    def _register(self, name: str) -> None:
        self._forget(name)
        self._registered.add(name)
        statement = ddl(name)
        if not self.in_metastore:
            location = sql_string(self.location(name))
            exists = DeltaTable.isDeltaTable(self.spark, self.location(name))
            statement = f"CREATE TABLE {name} USING DELTA LOCATION {location}" if exists else f"{statement} LOCATION {location}"
        try:
            self.spark.sql(statement)
        except AnalysisException as e:
            raise WarehouseError(f"table {name} in {self.root} cannot be opened ({str(e).splitlines()[0][:200]})", "use another warehouse") from e
        self._add_columns(name)
        self._need_columns(name, self.spark.table(name).schema)

    def _need_columns(self, name: str, schema: StructType) -> None:
        found, wanted = ({f.name: f.dataType for f in fields} for fields in (schema, schema_of(name)))
        if wrong := [c for c in {**wanted, **found} if found.get(c) != wanted.get(c)]:
            differ = f"table {name} in {self.root} does not have this version's columns; they differ in {', '.join(wrong)}"
            raise WarehouseError(differ, "use another warehouse")

    def _add_columns(self, name: str) -> None:
        there = self.spark.table(name).columns
        for column in (c for c in ADDED_COLUMNS.get(name, ()) if c not in there):
            self.spark.sql(f"ALTER TABLE {name} ADD COLUMNS ({column} {schema_of(name)[column].dataType.simpleString()})")

    def location(self, name: str) -> str:
        """Folder or URI of a table; not for tables in a metastore."""
        return f"{self.root}/{name}"

    def path(self, *parts: str) -> str:
        """The path of another file or folder in the warehouse: shards, staging, reports, MLflow."""
        return "/".join((self.root, *parts))

    def read(self, name: str, version: int | None = None) -> DataFrame:
        """A table, now or at a Delta version."""
        if version is None:
            return self.spark.table(self.qualified(name))
        return self.spark.sql(f"SELECT * FROM {self.qualified(name)} VERSION AS OF {int(version)}")

    def qualified(self, name: str) -> str:
        """`schema.table`, for SQL."""
        if name not in TABLES:
            raise KeyError(name)
        if name not in self._registered:
            self._register(name)
        return f"{self.schema}.{name}"

    def delta(self, name: str) -> DeltaTable:
        """A new DeltaTable; one made before an ALTER TABLE would be outdated."""
        return DeltaTable.forName(self.spark, self.qualified(name))

    def version(self, name: str) -> int:
        """The table's current Delta version. In a folder it is the number of the last file in the table's log, which needs no Spark job."""
        if self.in_metastore:
            return int(self.delta(name).history(1).select("version").collect()[0][0])
        return max(int(file.removesuffix(".json")) for file in Files(self.root).list(f"{name}/_delta_log") if _COMMIT.fullmatch(file))

    def versions(self, *names: str) -> dict[str, int]:
        """Current Delta versions by table."""
        return {name: self.version(name) for name in names}

    def overwrite(self, frame: DataFrame, name: str, note: str | None = None) -> None:
        """Replace all rows of a table in one commit, which keeps `note`: a key of all that decides the rows."""
        writer = frame.writeTo(self.qualified(name))
        (writer.option("userMetadata", note) if note else writer).overwrite(F.lit(True))

    def note_of(self, name: str) -> str | None:
        """The note of the last commit that changed rows; None if it has none. If it equals the key of what would be written, nothing has
        to be. In a folder the log is read without a Spark job."""
        if self.in_metastore:
            history = self.delta(name).history(20).select("operation", "userMetadata").collect()
            commits = [(row["operation"], row["userMetadata"]) for row in history]
            return next((note for operation, note in commits if operation not in MAINTENANCE), None)
        files = Files(self.root)
        for file in sorted(files.list(f"{name}/_delta_log"), reverse=True):
            if _COMMIT.fullmatch(file):
                actions = map(json.loads, files.read(f"{name}/_delta_log/{file}").splitlines())
                made: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
                if made.get("operation") not in MAINTENANCE:
                    note: str | None = made.get("userMetadata")
                    return note
        return None

    def rows(self, name: str, where: small_tables.Where, *columns: str) -> list[dict[str, Any]]:
        """Rows of a table that does not grow with the catalog, in no order. Times are in UTC.

        Args:
            where: column -> the value, or the values, that it must have.
            columns: all if none is named.
        """
        columns = columns or tuple(schema_of(name).names)
        if self.is_local:
            return small_tables.select(self.location(name), columns, where)
        found = self.read(name).where(_condition(where)).select(*columns).collect()
        return [{c: v.astimezone(timezone.utc) if isinstance(v, datetime) else v for c, v in row.asDict().items()} for row in found]

    def table(self, name: str, where: small_tables.Where, *columns: str, version: int | None = None) -> pa.Table:
        """Columns of the rows that have these values, now or at a Delta version, in no order; for a local folder (`is_local`). The caller knows
        that they are few."""
        names = columns or tuple(schema_of(name).names)
        found = small_tables.read(self.location(name), names, where, version)
        return found.cast(to_arrow_schema(StructType([schema_of(name)[column] for column in names])))

    def rows_at_most(self, name: str, limit: int) -> bool:
        """Whether a table of a local folder has no more rows than `limit`, by its log alone."""
        return small_tables.rows_at_most(self.location(name), limit)

    def has_rows(self, name: str, where: small_tables.Where) -> bool:
        """Whether a table has rows with these values. Cost: a scan of these columns at most; without a Spark job in a local folder."""
        if self.is_local:
            return small_tables.has_rows(self.location(name), where)
        return not self.read(name).where(_condition(where)).isEmpty()

    def sums(self, name: str, by: str, column: str) -> dict[str, int]:
        """The sum of a column of whole numbers for each value of another one, which has few. Cost: a scan of both columns."""
        if self.is_local:
            return small_tables.sums(self.location(name), by, column)
        return {row[0]: row[1] for row in self.read(name).groupBy(by).agg(F.sum(F.col(column).cast("long"))).collect()}

    def replace(self, name: str, rows: Sequence[Mapping[str, Any]], where: small_tables.Where) -> None:
        """Write rows in place of those that have these values, in one commit. Columns that a row does not name are null.

        Args:
            rows: few, because they are held in memory. Times have a time zone.
            where: as for `rows`.
        """
        if self.is_local:
            small_tables.replace(self.location(name), rows, where)
            return
        schema = schema_of(name)
        frame = self.spark.createDataFrame([tuple(row.get(field.name) for field in schema.fields) for row in rows], schema)
        frame.coalesce(1).writeTo(self.qualified(name)).overwrite(_condition(where))

    @property
    def is_local(self) -> bool:
        """Whether the tables are folders of this machine. Elsewhere only Spark is sure to have the credentials and a safe commit."""
        return not self.in_metastore and "://" not in self.root

    def append(self, frame: DataFrame, name: str, transaction: tuple[str, int] | None = None) -> None:
        """Append rows. With `transaction` = (application id, number), repeating an append with the same number has no effect."""
        writer = frame.write.format("delta").mode("append")
        if transaction:
            writer = writer.option("txnAppId", transaction[0]).option("txnVersion", transaction[1])
        writer.saveAsTable(self.qualified(name))

    def upsert(self, frame: DataFrame, name: str, keys: tuple[str, ...]) -> None:
        """MERGE by key: rows with an existing key are updated, others are inserted."""
        condition = " AND ".join(f"t.{key} = s.{key}" for key in keys)
        merge = self.delta(name).alias("t").merge(frame.alias("s"), condition)
        merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    def update(self, frame: DataFrame, name: str, key: str, note: str) -> None:
        """MERGE by key: rows with an existing key get the frame's other columns; no row is inserted. The commit keeps `note`."""
        conf, option = self.spark.conf, "spark.databricks.delta.commitInfo.userMetadata"
        conf.set(option, note)
        try:
            merge = self.delta(name).alias("t").merge(frame.alias("s"), f"t.{key} = s.{key}")
            merge.whenMatchedUpdate(set={column: f"s.{column}" for column in frame.columns if column != key}).execute()
        finally:
            conf.unset(option)


def _condition(where: small_tables.Where) -> Column:
    return functools.reduce(lambda a, b: a & b, (F.col(c).isin([v] if isinstance(v, str | int) else [*v]) for c, v in where.items()), F.lit(True))


def ddl(name: str) -> str:
    """The CREATE TABLE statement of `sql/ddl/<name>.sql`, without its final semicolon."""
    text = (data_folder("sql") / "ddl" / f"{name}.sql").read_text()
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip().removesuffix(";")


@functools.cache
def schema_of(name: str) -> StructType:
    """The columns that `sql/ddl/<name>.sql` declares."""
    return cast(StructType, StructType.fromDDL(ddl(name).partition("(")[2].partition("\n)")[0]))


def sql_string(text: str) -> str:
    """A SQL string literal. A dollar sign is escaped, because Spark puts variables of its own in place of `${...}`, in literals too."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\u0024") + "'"
