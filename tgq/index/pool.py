"""The candidate pool of a night: all active items with an embedding of their present content, in blocks that any worker can stream.

Index, neighbours and metrics all use this one pool, so they cover the same items and vectors. It is written once per night to
`night.staging("pool")`, as Arrow IPC files of at most `neighbors.block_rows` rows, and read by memory map.

Order: items are sorted by a hash of item_id, and an item's position is its place in that order. Equal scores are ordered by
position, which is independent of the model. The first n positions are a random sample of the pool.

Cost: one shuffle of the vectors and one write of 4 * D + 2 * (Dg + Dt) bytes per item. The driver gets a row per block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.enriched import as_read
from tgq.duplicates.find import TABLE as CLUSTERS
from tgq.errors import WarehouseError
from tgq.metrics.metrics import coverage
from tgq.registry.loading import versions_of
from tgq.retrieval.exact import Block
from tgq.run.night import Night
from tgq.settings.sections import EvaluateSettings, NeighborSettings
from tgq.storage import artifacts

MAIN = "embedding"
RIVAL = "rival"  # another model's vectors of the same items
FEATURES = ("image", "text")  # frozen towers' pooled features
NO_CATEGORY = "(none)"
TABLES = ("catalog_items", "item_embeddings", "item_features")
IMAGE_CODE, DUPLICATE_CODE = "image_code", "duplicate_code"  # of an item's picture, and of the canonical picture of its cluster
FILL = 0.95  # share of block_rows that a block has on average; hashing makes some fuller


@dataclass(frozen=True)
class PoolBlock:
    """A part of the pool: positions start .. start + rows."""

    name: str
    start: int
    rows: int
    features: tuple[str, ...] = ()  # of FEATURES, those that any of its items has


@dataclass(frozen=True)
class Pool:
    """The location of a night's pool, and what it was built from."""

    folder: str
    model_version: str
    tower_version: str
    versions: dict[str, int]  # Delta versions of the tables it was read from
    block_rows: int
    rows: int
    active: int  # active items, with or without an embedding
    widths: dict[str, int]  # of the kinds of vectors that it holds
    digest: str  # over (item_id, content_hash, image and, where near-duplicates are excluded, canonical image) in pool order
    blocks: tuple[PoolBlock, ...] = field(default=())
    rival: str | None = None  # the second model's version, if the pool holds its vectors too

    @property
    def coverage(self) -> float:
        """Share of the active items that are in the pool; 1 for an empty catalog."""
        return coverage(self.rows, self.active)

    def stored(self, kind: str) -> str:
        """The kind under which vectors of a kind are written: a rival of the same model has the pool's own."""
        return MAIN if kind == RIVAL and self.rival == self.model_version else kind

    def file(self, block: PoolBlock, kind: str) -> str:
        return f"{self.folder}/{block.name}.{kind}.arrow"

    def is_from(self, source: Mapping[str, Any]) -> bool:
        """Whether it was built from this source, as `source_of` gives it."""
        return all(getattr(self, name) == value for name, value in source.items())


def source_of(night: Night, rival: str | None = None, published: Mapping[str, int] | None = None) -> dict[str, Any]:
    """All that decides the night's pool, by the names of `Pool`'s fields. Arguments as for `write_pool`."""
    model_version, tower_version = versions_of(night.model_folder)
    versions = night.warehouse.versions(*TABLES)
    versions |= {name: version for name, version in (published or {}).items() if name in TABLES}
    settings = night.settings
    block_rows = settings.neighbors.block_rows
    if settings.neighbors.exclude_duplicates or settings.evaluate.exclude_duplicates:
        versions |= night.warehouse.versions(CLUSTERS)
    return dict(model_version=model_version, tower_version=tower_version, versions=versions, block_rows=block_rows, rival=rival)


def write_pool(night: Night, *, rival: str | None = None, published: Mapping[str, int] | None = None) -> Pool:
    """Write the night's pool, or find it already written from the same table versions and the same model.

    Args:
        rival: a second model version to compare with. The pool then holds the items that have a vector of both models. If it is the night's own
            model, as where query towers are compared, the vectors are written once.
        published: Delta versions of a generation's tables, to read in place of the current versions.

    Raises:
        WarehouseError: embeddings of one model have different widths.
    """
    source, folder = source_of(night, rival, published), night.staging("pool")
    if found := written_pool(night, source):
        return found
    model_version, tower_version, versions, block_rows = (source[name] for name in ("model_version", "tower_version", "versions", "block_rows"))
    items = night.warehouse.read("catalog_items", versions["catalog_items"]).where("is_active")
    active = items.count()
    members = pool_members(night, versions, model_version)
    if rival and rival != model_version:
        # the rival's agreement defines the slices: a candidate must not choose the groups that it is judged by
        other = pool_members(night, versions, rival).select("item_id", "agreement", F.col(MAIN).alias(RIVAL))
        members = members.drop("agreement").join(other, "item_id")
    if night.settings.evaluate.baselines:
        features = night.warehouse.read("item_features", versions["item_features"]).where(F.col("tower_version") == tower_version)
        features = features.select("item_id", "content_hash", F.col("image_features").alias("image"), F.col("text_features").alias("text"))
        members = members.join(features, ["item_id", "content_hash"], "left")
    written = _write_blocks(members, folder, math.ceil(active / (FILL * block_rows)) if active > block_rows else 1, block_rows)
    widths = {kind: max((row[f"{kind}_width"] for row in written), default=0) for kind in (MAIN, RIVAL, *FEATURES)}
    blocks, start = [], 0
    for row in written:
        for kind, version in ((MAIN, model_version), (RIVAL, rival)):
            if row[f"{kind}_width"] != widths[kind]:
                raise WarehouseError(
                    f"item_embeddings of model {version} have {row[f'{kind}_width']} and {widths[kind]} numbers",
                    "delete that model's rows and embed again",
                )
        blocks.append(PoolBlock(row["name"], start, row["rows"], tuple(k for k in FEATURES if row[f"{k}_width"])))
        start += row["rows"]
    if rival == model_version:
        widths[RIVAL] = widths[MAIN]
    digest = hashlib.sha256("".join(row["digest"] for row in written).encode()).hexdigest()
    pool = Pool(
        folder, rows=start, active=active, widths={k: w for k, w in widths.items() if w}, digest=digest, blocks=tuple(blocks),
        **source,
    )  # fmt: skip
    artifacts.write_json(f"{folder}/pool.json", asdict(pool))
    return pool


def pool_members(night: Night, versions: dict[str, int], model_version: str) -> DataFrame:
    """The pool as a data frame: the columns that shards, slices and listings need, and the vector (column `embedding`)."""
    items = night.warehouse.read("catalog_items", versions["catalog_items"]).where("is_active")
    embeddings = night.warehouse.read("item_embeddings", versions["item_embeddings"]).where(F.col("model_version") == model_version)
    items = as_read(items).select(
        "item_id", "content_hash", "title", "brand", "image_hash", "slices",
        F.coalesce(F.nullif(F.trim("category"), F.lit("")), F.lit(NO_CATEGORY)).alias("category"),
        (F.length(F.trim(F.coalesce("brand", F.lit("")))) > 0).alias("has_brand"),
        (F.coalesce(F.size("attributes"), F.lit(0)) > 0).alias("has_attributes"),
    )  # fmt: skip
    if CLUSTERS in versions:
        clusters = night.warehouse.read(CLUSTERS, versions[CLUSTERS]).select("image_hash", "canonical_hash")
        items = items.join(clusters, "image_hash", "left")
    return items.join(embeddings.select("item_id", "content_hash", "agreement", "embedding"), ["item_id", "content_hash"])


def excluded_code(options: NeighborSettings | EvaluateSettings) -> str | None:
    """The column of codes that tells which items a query must not find, because they have its picture; None: it may find all others."""
    return DUPLICATE_CODE if options.exclude_duplicates else IMAGE_CODE if options.exclude_same_image else None


def written_pool(night: Night, source: Mapping[str, Any]) -> Pool | None:
    """The pool that the night has written from this source; None if there is none."""
    path = f"{night.staging('pool')}/pool.json"
    pool = pool_from_json(artifacts.read_json(path)) if artifacts.exists(path) else None
    return pool if pool and pool.is_from(source) else None


def pool_from_json(raw: Mapping[str, Any]) -> Pool:
    """A pool from its fields, as `dataclasses.asdict` and JSON give them."""
    return Pool(**dict(raw) | {"blocks": tuple(PoolBlock(**block | {"features": tuple(block["features"])}) for block in raw["blocks"])})


def _write_blocks(members: DataFrame, folder: str, n_buckets: int, block_rows: int) -> list[dict]:
    """Write the blocks; a row for each, in pool order. The bucket is the leading part of the hash, so buckets are in order too."""
    key = F.xxhash64("item_id")
    ascending = key.bitwiseXOR(F.lit(-(2**63)))  # as unsigned
    bucket = F.shiftright(F.shiftrightunsigned(key, 33) * F.lit(n_buckets), 31).cast("int")
    columns = [c for c in members.columns if c not in ("content_hash", "title", "brand")]
    keyed = members.select(*columns, F.xxhash64("category").alias("category_code"), F.col("content_hash"),
                           bucket.alias("bucket"), ascending.alias("key"))  # fmt: skip
    ordered = keyed.repartitionById(n_buckets, F.col("bucket")).sortWithinPartitions("bucket", "key", "item_id")

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []
        for batch in batches:
            while batch.num_rows:
                present = sum(b.num_rows for b in held)
                held.append(batch.slice(0, block_rows - present))
                batch = batch.slice(held[-1].num_rows)
                if present + held[-1].num_rows == block_rows:
                    yield _write_block(held, folder)
                    held = []
        if held:
            yield _write_block(held, folder)

    schema = "name string, rows long, digest string, embedding_width int, rival_width int, image_width int, text_width int"
    return sorted((row.asDict() for row in ordered.mapInArrow(write, schema).collect()), key=lambda row: row["name"])


def _write_block(batches: list[pa.RecordBatch], folder: str) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches)
    # named by bucket and first key: the names sort in pool order, and one partition may write several
    first = table["key"][0].as_py() + 2**63
    name = f"{table['bucket'][0].as_py():08d}-{first:020d}"
    widths = dict.fromkeys((MAIN, RIVAL, *FEATURES), 0)
    for kind in (MAIN, RIVAL):
        if kind in table.column_names:
            vectors = list_matrix(table[kind])
            widths[kind] = vectors.shape[1]
            artifacts.write_table(f"{folder}/{name}.{kind}.arrow", pa.table({kind: artifacts.matrix_column(vectors)}))
    for kind in FEATURES:
        if kind in table.column_names:
            matrix = half_matrix(table[kind])
            widths[kind] = matrix.shape[1]
            if matrix.shape[1]:
                artifacts.write_table(f"{folder}/{name}.{kind}.arrow", pa.table({kind: artifacts.matrix_column(matrix)}))
    hashes = table["image_hash"].to_pylist()
    canonical = table["canonical_hash"].to_pylist() if "canonical_hash" in table.column_names else [None] * len(hashes)
    codes, shared = (pa.array([int(h[:16], 16) if h else 0 for h in column], pa.uint64())
                     for column in (hashes, [c or h for c, h in zip(canonical, hashes, strict=True)]))  # fmt: skip
    scalars = ("item_id", "category", "category_code", "has_brand", "has_attributes", "agreement", "slices")
    items = table.select(scalars).append_column(IMAGE_CODE, codes).append_column(DUPLICATE_CODE, shared)
    artifacts.write_table(f"{folder}/{name}.items.arrow", items)
    digest = hashlib.sha256()
    for *parts, other in zip(table["item_id"].to_pylist(), table["content_hash"].to_pylist(), hashes, canonical, strict=True):
        digest.update(("\0".join(map(str, parts + [other] if other else parts)) + "\n").encode())
    return pa.RecordBatch.from_pydict(
        {
            "name": [name], "rows": [table.num_rows], "digest": [digest.hexdigest()],
            **{f"{kind}_width": pa.array([width], pa.int32()) for kind, width in widths.items()},
        }
    )  # fmt: skip


def list_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists as float32 [n, D].

    Raises:
        WarehouseError: the lists differ in length.
    """
    column = column.combine_chunks()
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    width = len(values) // max(1, len(column))
    lengths = np.diff(column.offsets.to_numpy())
    if (lengths != width).any():
        raise WarehouseError("item_embeddings of one model differ in width", "delete that model's rows and embed again")
    return values.reshape(len(column), width)


def half_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of float16 bytes as float16 [n, D]; zeros where there are none."""
    values = column.to_pylist()
    width = max((len(v) for v in values if v), default=0)
    return np.frombuffer(b"".join(v or bytes(width) for v in values), "<f2").reshape(len(values), width // 2)


def read_block(pool: Pool, block: PoolBlock, kind: str = MAIN, code: str = IMAGE_CODE) -> Block:
    """One block for exact search: unit vectors (zeros stay zeros), positions, image and category codes.

    kind: embedding, rival, image, text, or concat: unit image and unit text side by side, so a score is the mean of the two cosines.
    code: which codes of pictures the block has, IMAGE_CODE or DUPLICATE_CODE.
    """
    items = artifacts.read_table(pool.file(block, "items"))
    return Block(
        _vectors(pool, block, kind, None),
        np.arange(block.start, block.start + block.rows),
        items[code].to_numpy(),
        items["category_code"].to_numpy(),
    )


def read_blocks(pool: Pool, kind: str = MAIN, blocks: Iterable[PoolBlock] | None = None, code: str = IMAGE_CODE) -> Iterator[Block]:
    """The blocks of the pool, or the given ones, one at a time."""
    return (read_block(pool, block, kind, code) for block in (pool.blocks if blocks is None else blocks))


def gather_vectors(pool: Pool, kind: str, positions: np.ndarray) -> np.ndarray:
    """The vectors at `positions` int64 [n], float32 [n, D], equal to those of `read_block`."""
    width = pool.widths["image"] + pool.widths["text"] if kind == "concat" else pool.widths[kind]
    out = np.empty((len(positions), width), np.float32)
    for block, rows in _by_block(pool, positions):
        out[rows] = _vectors(pool, block, kind, positions[rows] - block.start)
    return out


def gather_items(pool: Pool, columns: tuple[str, ...], positions: np.ndarray) -> pa.Table:
    """Columns of the items at `positions` int64 [n], in that order."""
    parts, order = [], []
    for block, rows in _by_block(pool, positions):
        parts.append(artifacts.read_table(pool.file(block, "items")).select(columns).take(pa.array(positions[rows] - block.start)))
        order.append(rows)
    if not parts:
        return pa.table({c: [] for c in columns})
    return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(order))))


def find_positions(pool: Pool, ids: pa.Array) -> np.ndarray:
    """Positions int64 [n] of distinct item ids, -1 for an id that is not in the pool. Reads every id of the pool once."""
    positions = np.full(len(ids), -1, np.int64)
    for block in pool.blocks:
        places = pc.index_in(artifacts.read_table(pool.file(block, "items"))["item_id"], value_set=ids)
        found = places.is_valid().to_numpy()
        positions[places.drop_null().to_numpy()] = block.start + np.flatnonzero(found)
    return positions


def item_frame(night: Night, pool: Pool) -> DataFrame:
    """A data frame with a row per pool item: its position and the columns of the `items` files."""

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["id"].to_pylist():
                block = pool.blocks[number]
                items = artifacts.read_table(pool.file(block, "items"))
                positions = pa.array(np.arange(block.start, block.start + block.rows))
                for code in (IMAGE_CODE, DUPLICATE_CODE):  # Spark has no unsigned integers
                    signed = items[code].to_numpy().view(np.int64)
                    items = items.drop_columns(code).append_column(code, pa.array(signed))
                yield from items.append_column("position", positions).to_batches(max_chunksize=10_000)

    schema = (
        "item_id string, category string, category_code long, has_brand boolean, has_attributes boolean, agreement float, "
        "slices map<string,string>, image_code long, duplicate_code long, position long"
    )
    return _tasks(night, len(pool.blocks)).mapInArrow(rows, schema)


def _tasks(night: Night, n: int) -> DataFrame:
    """Rows `id` 0..n-1, spread over at most four tasks a core."""
    return night.spark.range(0, n, 1, max(1, min(n, 4 * night.spark.sparkContext.defaultParallelism)))


def _by_block(pool: Pool, positions: np.ndarray) -> Iterator[tuple[PoolBlock, np.ndarray]]:
    starts = np.array([block.start for block in pool.blocks], np.int64)
    owner = np.searchsorted(starts, positions, "right") - 1
    for number in np.unique(owner):
        yield pool.blocks[number], np.flatnonzero(owner == number)


def _vectors(pool: Pool, block: PoolBlock, kind: str, rows: np.ndarray | None) -> np.ndarray:
    kind = pool.stored(kind)
    if kind == "concat":
        sides = [_vectors(pool, block, side, rows) for side in FEATURES]
        return np.concatenate(sides, axis=1) * np.float32(0.5**0.5)
    width = pool.widths[kind]
    if kind in FEATURES and kind not in block.features:
        return np.zeros((block.rows if rows is None else len(rows), width), np.float32)
    matrix = artifacts.column_matrix(artifacts.read_table(pool.file(block, kind))[kind], width)
    matrix = matrix if rows is None else matrix[rows]
    return matrix if kind in (MAIN, RIVAL) else _unit(matrix.astype(np.float32))


def _unit(matrix: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.einsum("nd,nd->n", matrix, matrix))[:, None]
    return np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
