"""Whether a session is for little data: then the JVM and Spark compile less, and an unchanged night of 2,000 items takes a quarter less time.

A query over a few thousand rows costs mainly planning, in code that the JVM has not compiled yet. With little data its optimising
compiler, and Spark's compilation of each plan to Java, take longer than what they save.
"""

from __future__ import annotations

import os
from pathlib import Path

from tgq.settings.sections import Settings
from tgq.storage.paths import absolute

LITTLE = 32 * 2**20  # bytes of the catalog's table, of a file of queries, and of catalog_items
TABLES = (".parquet", ".csv", ".tsv", ".txt", ".json", ".jsonl", ".ndjson", ".xml", ".gz")
# C1 alone, with the code cache that both compilers have together by default
JVM = "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
# little data needs no plan that adapts to its size; each adaptation plans what is left of the query again
CONF = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN", "spark.sql.adaptive.enabled": "false"}


def is_small(settings: Settings) -> bool:
    """`spark.sized_for` as a yes or no. `auto` is small if Spark runs on this machine alone and the data is LITTLE.

    Cost: sizes of the files of the catalog's folder and its partitions (`key=value`), of those of queries, and of the warehouse's `catalog_items`.
    """
    spark = settings.spark
    if spark.sized_for != "auto":
        return spark.sized_for == "small"
    if not (spark.master or "").startswith("local[") or settings.warehouse.metastore_schema:
        return False
    places = [absolute(place) for place in (f"{settings.warehouse.path}/catalog_items", settings.catalog.path) if place]
    catalog = Path(absolute(settings.catalog.path or "."))
    folder = catalog if catalog.is_dir() else catalog.parent
    queries = (settings.queries.path, settings.queries.judgments, settings.queries.clicks.path)
    places += [path if "://" in path else str(folder / path.removesuffix("?")) for path in queries if path]
    return not any("://" in place or _bytes(Path(place)) > LITTLE for place in places)


def _bytes(place: Path) -> int:
    """Bytes of a table's file, or of the files of a folder that may belong to a table; pictures beside it do not count."""
    if place.is_file():
        return place.stat().st_size
    if not place.is_dir():
        return 0
    with os.scandir(place) as entries:
        found = list(entries)
    parts = sum(_bytes(Path(entry)) for entry in found if "=" in entry.name and entry.is_dir())
    return parts + sum(entry.stat().st_size for entry in found if entry.name.endswith(TABLES) and entry.is_file())
