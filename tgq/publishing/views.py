"""SQL views over the tables: the published rows, and the views of `sql/views/*.sql` over them.

`published_items`, `published_embeddings` and `published_neighbors` are pinned to the Delta versions that the current manifest
names. They move with the manifest and with nothing else: a night that is under way, or that the gate refused, or a rollback
never shows a mixture.
"""

from __future__ import annotations

from pyspark.sql import SparkSession

from tgq.retrieval import manifest
from tgq.settings.load import data_folder
from tgq.storage.warehouse import Warehouse, sql_string


def define_views(spark: SparkSession, warehouse: Warehouse) -> list[str]:
    """Create the pinned views and those of `sql/views/` over them; returns the names.

    Before the first night is published the pinned views are empty.
    """
    warehouse.register_all()
    names = define_published_views(warehouse, manifest.load_current(warehouse.root))
    for file in sorted((data_folder("sql") / "views").glob("*.sql")):
        for statement in statements(file.read_text()):
            spark.sql(statement)
        names.append(file.stem)
    return names


def define_published_views(warehouse: Warehouse, published: manifest.Manifest | None) -> list[str]:
    """Define the published views as a generation's model at the Delta versions that it was built from."""
    of_model = f"model_version = {sql_string(published.model_version)}" if published else "false"
    views = {
        "published_items": ("catalog_items", "is_active" if published else "false"),
        "published_embeddings": ("item_embeddings", of_model),
        "published_neighbors": ("item_neighbors", of_model),
    }
    for view, (table, condition) in views.items():
        source = warehouse.qualified(table)
        if published:
            source += f" VERSION AS OF {int(published.tables[table])}"
        warehouse.spark.sql(f"CREATE OR REPLACE VIEW {warehouse.schema}.{view} AS SELECT * FROM {source} WHERE {condition}")
    return list(views)


def statements(text: str) -> list[str]:
    """The statements of a `.sql` file: full-line comments dropped, split at semicolons that end a line."""
    lines = [line.rstrip() for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = "\n".join([*lines, ""]).split(";\n")
    return [part.strip() for part in parts if part.strip()]
