"""Rows of small Delta tables, read and replaced by delta-rs in a few milliseconds. A Spark job takes half a second for the same.

For tables that record what was done, in a local folder. Cost grows with the rows that are selected. Questions with a short answer are
asked of larger tables too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyspark.sql.types import StructType

from tgq.errors import WarehouseError

Where = Mapping[str, str | int | bool | Sequence[str]]  # column -> the value, or the values, that it must have


def schema_of(folder: str) -> StructType:
    """The columns of a table.

    Raises:
        WarehouseError: the folder holds no table that can be read.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        return StructType.fromJson(json.loads(DeltaTable(folder).schema().to_json()))
    except DeltaError as e:
        raise WarehouseError(f"the table in {folder} cannot be opened ({str(e).splitlines()[0][:200]})", "use another warehouse") from e


def read(folder: str, columns: Sequence[str], where: Where, version: int | None = None) -> pa.Table:
    """The rows that have these values, in no order, now or at a Delta version."""
    names = ", ".join(f'"{name}"' for name in columns)
    condition = _condition(where)
    return _query(folder, f"SELECT {names} FROM t{f' WHERE {condition}' if condition else ''}", version)


def rows_at_most(folder: str, limit: int) -> bool:
    """Whether a table has no more rows than `limit`."""
    return bool(_query(folder, "SELECT count(*) AS n FROM t")["n"][0].as_py() <= limit)


def select(folder: str, columns: Sequence[str], where: Where) -> list[dict[str, Any]]:
    """The rows that have these values, in no order. Times are in UTC, maps are dicts."""
    found: list[dict[str, Any]] = read(folder, columns, where).to_pylist(maps_as_pydicts="strict")
    return found


def has_rows(folder: str, where: Where) -> bool:
    """Whether a table, of any size, has rows with these values."""
    return bool(_query(folder, f"SELECT 1 AS one FROM t WHERE {_condition(where)} LIMIT 1").num_rows)


def sums(folder: str, by: str, column: str) -> dict[str, int]:
    """The sum of a column of whole numbers for each value of another one, of a table of any size."""
    found = _query(folder, f'SELECT "{by}" AS key, CAST(sum("{column}") AS BIGINT) AS total FROM t GROUP BY "{by}"')
    return dict(zip(found["key"].to_pylist(), found["total"].to_pylist(), strict=True))


def replace(folder: str, rows: Sequence[Mapping[str, Any]], where: Where) -> None:
    """Write rows in place of those that have these values, in one commit. Columns that a row does not name are null."""
    from deltalake import DeltaTable, write_deltalake

    table = DeltaTable(folder)
    schema = pa.schema(table.schema())
    content = pa.Table.from_pylist([{name: _plain(row.get(name)) for name in schema.names} for row in rows], schema)
    write_deltalake(table, content, mode="overwrite", predicate=_condition(where))


def _query(folder: str, sql: str, version: int | None = None) -> pa.Table:
    """The result of a query that calls the table t."""
    from deltalake import DeltaTable, QueryBuilder

    return pa.RecordBatchReader.from_stream(QueryBuilder().register("t", DeltaTable(folder, version=version)).execute(sql)).read_all()


def _plain(value: Any) -> Any:
    return list(value.items()) if isinstance(value, Mapping) else value  # as Arrow takes a map


def _condition(where: Where) -> str:
    """SQL of DataFusion, in which only a quote is special in a text."""
    return " AND ".join(f'"{name}" IN ({", ".join(_literal(v) for v in _values(value))})' for name, value in where.items())


def _values(value: str | int | bool | Sequence[str]) -> Sequence[str | int]:
    return [value] if isinstance(value, str | int) else value


def _literal(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
