"""FAISS shards: an index file for each part of a category, with the item ids in a second file. Both are named by their content.

`choose_factory` selects the index type, for unit vectors and inner product. The first row that fits applies (d = width):

    items          bytes per item                factory                    search
    <= 10,000      4d                            Flat                       exact
    within budget  4d + 276                      HNSW32,Flat                fastest
    within budget  4d + 8, + 4d * nlist          IVF{4 sqrt n},Flat         exact in the lists it visits
    within budget  d + 8,  + 4d * nlist          IVF{4 sqrt n},SQ8          recall about 0.98
    within budget  d/4 + 8, + 12d * nlist        IVF{4 sqrt n},PQ{d/2}x4fs  recall 0.7 to 0.9

If the budget allows PQ only, the recall may be below its floor, and the quality gate then refuses the run. The 4-bit codes of
PQ..x4fs train 30 times faster than 8-bit codes of the same size and have a higher recall (0.90 against 0.85 at 256-d).

FAISS parses index files in C++ without validation. Bytes are therefore passed to `deserialize_index` only after their sha256
matched the manifest.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
import pyarrow as pa

from tgq.errors import WarehouseError
from tgq.retrieval.exact import as_matrix
from tgq.retrieval.factory import trainable_factory
from tgq.storage.files import Files, sha256

FOLDER = "index/shards"


class Shard(NamedTuple):
    """An index of n vectors, and their n item ids in the same order, which is ascending."""

    index: faiss.Index
    ids: np.ndarray


@dataclass(frozen=True)
class ShardFile:
    """The manifest's record of a shard. Paths are relative to the warehouse."""

    category: str
    shard: int
    path: str
    ids_path: str
    sha256: str
    ids_sha256: str
    n_items: int
    bytes: int
    factory: str
    members_digest: str = ""  # hash of item ids and content hashes; a shard with an unchanged digest is not rebuilt
    search: Mapping[str, int] = field(default_factory=dict)  # {"efSearch": 64}, {"nprobe": 16} or {} for Flat
    recall_at_k: float | None = None  # against exact search, on a sample of its own vectors


class OpenShard(NamedTuple):
    """A shard in memory with its record."""

    file: ShardFile
    shard: Shard


def n_shards(n: int, max_items: int) -> int:
    """Number of shards for a category of n items."""
    return max(1, math.ceil(n / max_items))


def assign_shards(ids: Iterable[str], count: int) -> np.ndarray:
    """Shard number of each item, int64. It is a hash of the item id, so an item keeps its shard as long as `count` is unchanged."""
    return np.array([_hash64(item) % count for item in ids], np.int64)


def members_digest(ids: Sequence[str], content_hashes: Sequence[str]) -> str:
    """sha256 of item ids and content hashes, independent of their order. A shard with an equal digest needs no rebuild."""
    digest = hashlib.sha256()
    for pair in sorted(zip(ids, content_hashes, strict=True)):
        for text in pair:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)  # the length distinguishes ("ab", "c") from ("a", "bc")
    return digest.hexdigest()


def build_shard(vectors: np.ndarray, ids: Sequence[str] | np.ndarray, factory: str, seed: int) -> tuple[Shard, str]:
    """Train and fill an index. Rows are sorted by id, so the order of the input has no effect.

    Args:
        vectors: float32 [n, D], unit length.
        ids: n distinct item ids.
        factory: FAISS factory string, as `choose_factory` returns it.
        seed: of k-means and of the selection of training points.

    Returns:
        The shard, and the factory that was used. With too few training points IVF gets fewer lists; with less than two lists, or
        less than 39 points per PQ centroid, the index is Flat.

    Raises:
        ValueError: an id occurs twice, lengths differ, or a vector is not finite.
    """
    vectors, ids = as_matrix(vectors, "shard"), np.asarray(ids, dtype=object)
    if len(ids) != len(vectors) or len(set(ids)) != len(ids):
        raise ValueError(f"shard: {len(vectors)} vectors, {len(ids)} ids, {len(set(ids))} distinct")
    order = np.argsort(ids, kind="stable")
    vectors, ids = np.ascontiguousarray(vectors[order]), ids[order]
    factory = trainable_factory(factory, len(ids))
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexIVF):
        index.cp.seed = seed
        rows = np.random.default_rng(seed).permutation(len(vectors))[: max(256 * index.nlist, 65_536)]
        index.train(vectors[np.sort(rows)])
    index.add(vectors)
    return Shard(index, ids), factory


def write_shard(
    root: str | Path,
    shard: Shard,
    category: str,
    number: int,
    factory: str,
    members: str = "",
    details: pa.Table | None = None,
) -> ShardFile:
    """Write index and ids to `root`/index/shards, each file atomically.

    A file name contains a slug and a hash of the category, and a hash of the content. No category can therefore name another
    folder, equal shards are the same file, and no file is overwritten with other content.

    Args:
        members: the digest of `members_digest`.
        details: further columns of the ids' file, rows in the order of `shard.ids`; see `read_details`.

    Raises:
        WarehouseError: a file cannot be written.
    """
    data = memoryview(faiss.serialize_index(shard.index))
    table = pa.table({"item_id": pa.array(shard.ids, pa.string())})
    if details is not None:
        for name in details.column_names:
            table = table.append_column(name, details[name])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    ids = memoryview(sink.getvalue())
    digest, ids_digest = sha256(data), sha256(ids)
    name = f"{FOLDER}/{slug(category)}-{number:04d}"
    file = ShardFile(
        category=category,
        shard=number,
        path=f"{name}-{digest[:16]}.faiss",
        ids_path=f"{name}-{ids_digest[:16]}.ids.arrow",
        sha256=digest,
        ids_sha256=ids_digest,
        n_items=len(shard.ids),
        bytes=len(data) + len(ids),
        factory=factory,
        members_digest=members,
    )
    files = Files(root)
    files.write(file.ids_path, ids)
    files.write(file.path, data)
    return file


def read_shard(root: str | Path, file: ShardFile) -> Shard:
    """Read a shard and check it against the manifest.

    Raises:
        WarehouseError: a file is missing, its sha256 differs from the manifest's, or the numbers of vectors and ids differ.
    """
    files = Files(root)
    data, ids_data = _checked(files, file.path, file.sha256), _checked(files, file.ids_path, file.ids_sha256)
    index = faiss.deserialize_index(np.frombuffer(data, np.uint8))
    ids = pa.ipc.open_file(ids_data).read_all()["item_id"].to_numpy(zero_copy_only=False)
    if not index.ntotal == len(ids) == file.n_items:
        raise WarehouseError(
            f"{file.path} holds {index.ntotal} vectors, {file.ids_path} {len(ids)} ids, "
            f"the manifest says {file.n_items}",
            "rebuild this category's shards",
        )
    return Shard(index, ids)


def read_details(root: str | Path, file: ShardFile) -> pa.Table:
    """The ids of a shard and the `details` that `write_shard` was given, in the order of its vectors.

    Raises:
        WarehouseError: the file is missing, or its sha256 differs from the manifest's.
    """
    return pa.ipc.open_file(_checked(Files(root), file.ids_path, file.ids_sha256)).read_all()


def slug(category: str) -> str:
    """Part of a file name for any string: its ASCII letters and digits, then 12 hex digits of its hash."""
    plain = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "category"
    return f"{readable}-{sha256(category.encode('utf-8', 'surrogatepass'))[:12]}"


def _checked(files: Files, path: str, digest: str) -> bytes:
    """The bytes of a file whose sha256 is `digest`; WarehouseError otherwise."""
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise WarehouseError(
            f"{path} is missing", "roll back to another generation or rebuild this category"
        ) from None
    if (found := sha256(data)) != digest:
        raise WarehouseError(
            f"{path} has sha256 {found[:16]}..., the manifest says {digest[:16]}...",
            "the file was altered or damaged: roll back to another generation or rebuild this category",
        )
    return data


def _hash64(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )


def open_shards(
    root: str | Path, files: Iterable[ShardFile], categories: Collection[str] | None = None
) -> list[OpenShard]:
    """Read and check the shards of all categories, or of the given ones. Raises WarehouseError as `read_shard`."""
    return [
        OpenShard(file, read_shard(root, file))
        for file in files
        if categories is None or file.category in categories
    ]


def search_shards(
    shards: Iterable[OpenShard], queries: np.ndarray, k: int, category_filter: Collection[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The top k items over all shards, or over those of the given categories.

    Args:
        queries: float32 [Q, D].

    Returns:
        scores float32 [Q, k], descending, and item ids object [Q, k]. The scores are the index's, so they are approximate for SQ8
        and PQ. Unfilled places have score -inf and id None. Ties are ordered by category, then shard, then id.
    """
    queries = as_matrix(queries, "queries")
    scores, ids = [np.full((len(queries), k), -np.inf, np.float32)], [np.full((len(queries), k), None, object)]
    for file, shard in sorted(shards, key=lambda opened: (opened.file.category, opened.file.shard)):
        if category_filter is not None and file.category not in category_filter:
            continue
        found_scores, found = search_index(shard.index, queries, min(k, len(shard.ids)), file.search)
        scores.insert(-1, np.where(found < 0, -np.inf, found_scores))
        found_ids: np.ndarray = np.where(found < 0, np.array(None, object), shard.ids[found])
        ids.insert(-1, found_ids)
    joined = np.concatenate(scores, axis=1)
    order = np.argsort(-joined, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(joined, order, axis=1), np.take_along_axis(
        np.concatenate(ids, axis=1), order, axis=1
    )


def search_index(
    index: faiss.Index, queries: np.ndarray, k: int, search: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 [Q, k] and row numbers int64 [Q, k] of one index.

    `search` holds nprobe for IVF or efSearch for HNSW; efSearch is at least k.
    """
    if not k or not len(queries):
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    parameters = None
    if "nprobe" in search:
        parameters = faiss.SearchParametersIVF(nprobe=search["nprobe"])
    elif "efSearch" in search:
        parameters = faiss.SearchParametersHNSW(efSearch=max(search["efSearch"], k))
    scores, positions = index.search(queries, k, params=parameters)
    return scores, positions
