"""Reads a warehouse without Spark: published items, vectors, neighbours and metrics as Arrow tables, search in the FAISS shards, and SQL.

delta-rs and DataFusion read the tables, because they understand deletion vectors. The published views are pinned to the Delta
versions in the current manifest, so a run in progress does not change them. Cost: the selected rows are read into memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tgq.errors import UsageError, WarehouseError
from tgq.metrics.names import ITEMS
from tgq.retrieval.manifest import Manifest, load_current
from tgq.settings.load import data_folder
from tgq.settings.sections import Settings, WarehouseSettings
from tgq.storage.added import ADDED_COLUMNS, ADDED_TABLES
from tgq.storage.paths import absolute
from tgq.storage.stores import delta_options, using

if TYPE_CHECKING:
    from deltalake import QueryBuilder

TABLES = (
    "catalog_items", "quarantine", "relevance_pairs", "relevance_queries", "query_judgments", "item_texts", "item_attributes_generated",
    "item_embeddings", "item_features", "item_grounding", "picture_hashes", "picture_clusters", "index_shards", "item_neighbors", "retrieval_metrics",
    "pipeline_runs",
)  # fmt: skip
PUBLISHED = {"published_items": ("catalog_items", "is_active"), "published_embeddings": ("item_embeddings", "model_version = '{model}'"),
             "published_neighbors": ("item_neighbors", "model_version = '{model}'")}  # fmt: skip


class Warehouse:
    """A warehouse, opened for reading.

    Attributes:
        published: the manifest of the generation that was current when the warehouse was opened; None if nothing was published.
    """

    def __init__(self, path: str | Path, storage_options: dict[str, str] | None = None):
        self.root, self._given = absolute(str(path)), storage_options
        self._options = delta_options(self.root, storage_options)
        if "://" not in self.root and not Path(self.root, "catalog_items", "_delta_log").is_dir():
            raise WarehouseError(f"there is no tgq warehouse in {path}", "give the folder that was given to `tgq nightly --warehouse`")
        with using(storage_options):
            self.published: Manifest | None = load_current(self.root)

    def __repr__(self) -> str:
        state = f"generation {self.published.generation}, model {self.published.model_version}" if self.published else "nothing published"
        return f"Warehouse('{self.root}': {state})"

    def search(
        self, *, item_id: str | None = None, text: str | None = None, image: str | Path | None = None, category: str | None = None, k: int = 10,
        hybrid: bool = False,
    ) -> pa.Table:  # fmt: skip
        """The k nearest published items to an item, a text or a picture, nearest first: item_id, title, brand, category, score.

        Args:
            item_id, text, image: the query; give exactly one. A text is embedded by the query tower of the published encoder if it has one.
            category: search only this category and those below it.
            hybrid: fuse the ranking by vectors with the one by the words of titles and brands (BM25); for a text only. The score is then
                the sum of 1 / (60 + rank) over both.

        Raises:
            UsageError: not exactly one query was given, the text is empty, the item or category is unknown, the picture cannot be read, or
                hybrid was asked for without a text.
            WarehouseError: nothing is published.
        """
        from tgq.index.search import search

        settings = Settings(warehouse=WarehouseSettings(path=self.root))
        with using(self._given):
            hits = search(settings, item_id=item_id, text=text, image=image, category=category, k=k, hybrid=hybrid)
        fields = [(name, pa.string()) for name in ("item_id", "title", "brand", "category")]
        return pa.Table.from_pylist(hits, pa.schema([*fields, ("score", pa.float32())]))

    def neighbors(self, item_id: str, k: int | None = None) -> pa.Table:
        """The published neighbours of an item, nearest first: rank, neighbor_id, score.

        Raises:
            UsageError: the item has no published neighbours.
            WarehouseError: nothing is published.
        """
        limit = f" AND rank <= {int(k)}" if k is not None else ""
        found = self._published(f"SELECT rank, neighbor_id, score FROM published_neighbors WHERE item_id = {_text(item_id)}{limit} ORDER BY rank")
        if not found.num_rows:
            raise UsageError(f"item '{item_id}' has no published neighbours", "check the id")
        return found

    def metrics(self, run_id: str | None = None, task: str = ITEMS) -> pa.Table:
        """The rows of `retrieval_metrics` of a run, by default the published run.

        Args:
            task: `item_item`, where items find items, or `query_item`, where queries of a search do.

        Raises:
            WarehouseError: nothing is published and no run was given.
        """
        chosen = run_id or self._need_published().run_id
        of_task = f"coalesce(task, '{ITEMS}') = {_text(task)}"  # rows of earlier versions have no task
        return self.sql(f"SELECT * FROM retrieval_metrics WHERE run_id = {_text(chosen)} AND {of_task} ORDER BY model_version, slice, metric, k")

    def items(self, columns: Sequence[str] | None = None, category: str | None = None) -> pa.Table:
        """The published items: the given columns of `catalog_items`, or all except image_bytes.

        Args:
            category: only this category and those below it.

        Raises:
            UsageError: no published item is in the category or below it.
            WarehouseError: nothing is published.
        """
        chosen = self._columns(columns, "catalog_items", "image_bytes")
        return _some(self._published(f"SELECT {chosen} FROM published_items{_of_category(category)}"), category)

    def embeddings(self, columns: Sequence[str] | None = None, category: str | None = None) -> pa.Table:
        """The published vectors with ids and metadata: the given columns of `current_embeddings`, or all. A vector takes 4 * De bytes.

        Raises:
            UsageError, WarehouseError: as `items`.
        """
        chosen = ", ".join(_quoted(c) for c in columns) if columns else "*"
        return _some(self._published(f"SELECT {chosen} FROM current_embeddings{_of_category(category)}"), category)

    def sql(self, query: str) -> pa.Table:
        """The result of a query in DataFusion's SQL over the tables and views that `tgq tables` lists.

        Raises:
            UsageError: the query is not valid.
        """
        return self.stream(query).read_all()

    def stream(self, query: str) -> pa.RecordBatchReader:
        """As `sql`, but as a stream of batches."""
        try:
            batches = pa.RecordBatchReader.from_stream(self._session().execute(query))
        except Exception as error:  # delta-rs and DataFusion raise classes of their own
            raise UsageError(f"SQL: {' '.join(str(error).split())[:300]}", "correct the query; `tgq tables` lists the tables and views") from None
        schema = pa.schema([_plain(field) for field in batches.schema])
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))

    def _session(self) -> QueryBuilder:
        from deltalake import DeltaTable, QueryBuilder
        from deltalake.exceptions import TableNotFoundError

        session, published = QueryBuilder(), self.published
        for name in TABLES:
            try:
                stored = DeltaTable(f"{self.root}/{name}", storage_options=self._options)
            except TableNotFoundError:
                if name in ADDED_TABLES:
                    columns = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in ADDED_TABLES[name].items())
                    _create(session, name, f"SELECT {columns} WHERE false")
                continue
            there = {field.name for field in stored.schema().fields}
            missing = [column for column in ADDED_COLUMNS.get(name, ()) if column not in there]
            session.register(f"{name}_stored" if missing else name, stored)
            if missing:  # of an earlier version, which no run of this one has opened
                empty = ", ".join(f"CAST(NULL AS VARCHAR) AS {column}" for column in missing)
                _create(session, name, f"SELECT *, {empty} FROM {name}_stored")
        for view, (table, condition) in PUBLISHED.items():
            version = published.tables[table] if published else None
            session.register(f"{view}_pinned", DeltaTable(f"{self.root}/{table}", version=version, storage_options=self._options))
            where = condition.format(model=published.model_version) if published else "false"
            _create(session, view, f"SELECT * FROM {view}_pinned WHERE {where}")
        for file in sorted((data_folder("sql") / "views").glob("*.sql")):
            _create(session, file.stem, file.read_text().partition(" AS\n")[2].strip().removesuffix(";"))
        return session

    def _need_published(self) -> Manifest:
        if self.published is None:
            raise WarehouseError(f"nothing is published in {self.root}", "run `tgq nightly`, then open the warehouse again")
        return self.published

    def _published(self, query: str) -> pa.Table:
        self._need_published()
        return self.sql(query)

    def _columns(self, columns: Sequence[str] | None, table: str, without: str) -> str:
        from deltalake import DeltaTable

        if columns:
            return ", ".join(_quoted(c) for c in columns)
        names = [field.name for field in DeltaTable(f"{self.root}/{table}", storage_options=self._options).schema().fields]
        return ", ".join(_quoted(name) for name in names if name != without)


def open_warehouse(path: str | Path = "warehouse", storage_options: dict[str, str] | None = None) -> Warehouse:
    """Open a warehouse for reading, without Spark.

    Args:
        path: its folder or URI.
        storage_options: options of delta-rs for the object store, where the environment does not name credentials, address and region. Of an S3
            store the published files are opened with `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_ENDPOINT_URL` and
            `AWS_REGION` among them.

    Raises:
        WarehouseError: there is no warehouse at `path`.
        StoreError: the object store does not answer, refuses the credentials, or its client is not installed.

    Examples:
        >>> import tgq
        >>> warehouse = tgq.open_warehouse("warehouse")  # doctest: +SKIP
        >>> warehouse.search(text="red running shoe", k=3).to_pandas()  # doctest: +SKIP
    """
    return Warehouse(path, storage_options)


def _create(session: QueryBuilder, name: str, query: str) -> None:
    session.execute(f"CREATE VIEW {name} AS {query}").read_all()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + str(value).replace("'", "''") + "'"


def _of_category(category: str | None) -> str:
    """A WHERE clause for a category and those below it; empty for None. Categories are stored in NFC; `category` may have another form."""
    if category is None:
        return ""
    category = unicodedata.normalize("NFC", category)
    return f" WHERE category = {_text(category)} OR starts_with(category, {_text(category + ' > ')})"


def _some(rows: pa.Table, category: str | None) -> pa.Table:
    if category is not None and not rows.num_rows:
        raise UsageError(f"no published item is in the category '{category}'", "give a path as in the column category, 'a > b'")
    return rows


def _plain(field: pa.Field) -> pa.Field:
    """The field with string and binary views replaced by types that every library reads."""
    kinds: dict[Any, pa.DataType] = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return pa.field(field.name, kinds.get(field.type, field.type), field.nullable)
