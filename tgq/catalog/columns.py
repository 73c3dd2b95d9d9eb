"""How a source column becomes one of ours: text, category levels, JSON attributes, picture bytes."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from tgq.errors import SourceError
from tgq.settings.sections import CatalogSettings, ColumnMapping

DEFAULT_NAMES = ColumnMapping(image_bytes="image_bytes", group_id="group_id", variant_id="variant_id")


def mapped_columns(raw: DataFrame, catalog: CatalogSettings) -> dict[str, str]:
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


def text_column(raw: DataFrame, name: str) -> Column:
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


def category_levels(raw: DataFrame, name: str | None, separator: str) -> tuple[Column, str]:
    """A category as text, and what separates its levels: in an array something that no level holds."""
    kind = raw.schema[name].dataType if name else T.StringType()
    if name and isinstance(kind, T.ArrayType):
        return F.array_join(_column(name).cast("array<string>"), "\x1f"), "\x1f"
    if isinstance(kind, (T.StructType, T.MapType, T.BinaryType)):
        raise SourceError(f"the category column '{name}' is of type {kind.simpleString()}", "map a text or an array of levels")
    return (text_column(raw, name) if name else F.lit(None).cast("string")), separator


def json_column(raw: DataFrame, name: str) -> Column:
    """Attributes as JSON text."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, (T.MapType, T.StructType, T.ArrayType)):
        return F.to_json(column)
    return column.cast("string")


def binary_column(raw: DataFrame, name: str) -> Column:
    """Bytes, from base64 where the source is text; text that is not base64 stays as it is, and is refused as a picture."""
    column, kind = _column(name), raw.schema[name].dataType
    if isinstance(kind, T.StringType):
        column = F.coalesce(F.try_to_binary(column, F.lit("base64")), column.cast("binary"))
    elif not isinstance(kind, T.BinaryType):
        raise SourceError(f"the image column '{name}' is of type {kind.simpleString()}", "map a binary column, or base64 text")
    return F.when(F.length(column) > 0, column)
