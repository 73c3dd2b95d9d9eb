"""FAISS shards: one index file per part of a category, item ids in a sidecar, both named by their content.

Which index (`choose_factory`), for unit vectors and inner product; the first row that applies:

    items          bytes per item (d = width)    factory                    search
    <= 10,000      4d                            Flat                       exact
    within budget  4d + 276                      HNSW32,Flat                fastest
    within budget  4d + 8, + 4d * nlist          IVF{4 sqrt n},Flat         exact in the lists it visits
    within budget  d + 8,  + 4d * nlist          IVF{4 sqrt n},SQ8          recall about 0.98
    within budget  d/4 + 8, + 12d * nlist        IVF{4 sqrt n},PQ{d/2}x4fs  recall 0.7 to 0.9

A budget so tight that only PQ fits may miss the recall floor; the gate then says so.
The 4-bit codes of PQ..x4fs train 30 times faster than 8-bit codes of the same size, and found more (0.90
against 0.85 at 256-d).

A FAISS file is parsed by C++ that trusts it, so bytes reach `deserialize_index` only after their
sha256 matched the manifest.
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
    """index: n vectors; ids: their n item ids, in the same order (ascending)."""

    index: faiss.Index
    ids: np.ndarray


@dataclass(frozen=True)
class ShardFile:
    """One published shard, as the manifest records it. Paths are relative to the warehouse."""

    category: str
    shard: int
    path: str
    ids_path: str
    sha256: str
    ids_sha256: str
    n_items: int
    bytes: int
    factory: str
    members_digest: str = ""  # of the item ids and their content hashes: unchanged members need no new build
    search: Mapping[str, int] = field(default_factory=dict)  # {"efSearch": 64}, {"nprobe": 16} or {} for Flat
    recall_at_k: float | None = None  # against exact, on a sample of its own vectors


class Opened(NamedTuple):
    file: ShardFile
    shard: Shard




def n_shards(n: int, max_items: int) -> int:
    """How many shards a category of n items is split into."""
    return max(1, math.ceil(n / max_items))


def assign_shards(ids: Iterable[str], count: int) -> np.ndarray:
    """Shard number of each item, int64: a hash of the item id alone, so an item stays where it is while
    `count` does."""
    return np.array([_hash64(item) % count for item in ids], np.int64)


def members_digest(ids: Sequence[str], content_hashes: Sequence[str]) -> str:
    """sha256 of the members, in any order of rows: equal digests need no rebuild."""
    digest = hashlib.sha256()
    for pair in sorted(zip(ids, content_hashes, strict=True)):
        for text in pair:
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(
                len(raw).to_bytes(8, "little") + raw
            )  # lengths keep ("ab", "c") apart from ("a", "bc")
    return digest.hexdigest()




def build_shard(vectors: np.ndarray, ids: Sequence[str] | np.ndarray, factory: str, seed: int) -> tuple[Shard, str]:
    """Trains and fills an index; rows are ordered by id, so the input's order does not matter.

    Args:
        vectors: float32 [n, D], unit. ids: n distinct strings.

    Returns:
        The shard, and the factory that was used: with too few points to train the one asked for, IVF gets
        fewer lists, and under two lists (or 39 points per PQ centroid) it becomes Flat.

    Raises:
        ValueError: an id twice, lengths that disagree, or a vector that is not finite.
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
    """Writes index and ids under `root`/index/shards, each whole or not at all.

    details: columns to keep beside the ids, rows in the order of `shard.ids`; `read_details` gives them back.

    File names hold a slug and a hash of the category and the hash of the content: no category can name
    another folder, equal shards are one file, and a file is never overwritten by something else. Raises
    WarehouseError when it cannot be written.
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
    """The shard, whole and as published.

    Raises:
        WarehouseError: a file is missing, its sha256 is not the manifest's, or index and ids disagree in
            number.
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
    """The ids of a shard and what `write_shard` was given beside them, in the order of its vectors.

    Raises:
        WarehouseError: the file is missing or not the manifest's.
    """
    return pa.ipc.open_file(_checked(Files(root), file.ids_path, file.ids_sha256)).read_all()


def slug(category: str) -> str:
    """A file name part for any string: what is readable of it in ASCII, then 12 hex digits of its hash."""
    plain = unicodedata.normalize("NFKD", category).encode("ascii", "ignore").decode().lower()
    readable = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "category"
    return f"{readable}-{sha256(category.encode('utf-8', 'surrogatepass'))[:12]}"


def _checked(files: Files, path: str, digest: str) -> bytes:
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise WarehouseError(
            f"{path} is missing", "roll back to another generation or rebuild this category"
        ) from None
    if (found := sha256(data)) != digest:
        raise WarehouseError(
            f"{path} has sha256 {found[:16]}..., the manifest says {digest[:16]}...",
            "it was altered or damaged: roll back to another generation or rebuild this category",
        )
    return data


def _hash64(text: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little"
    )




def open_shards(
    root: str | Path, files: Iterable[ShardFile], categories: Collection[str] | None = None
) -> list[Opened]:
    """Reads and checks the shards, of all categories or of these."""
    return [
        Opened(file, read_shard(root, file))
        for file in files
        if categories is None or file.category in categories
    ]


def search_shards(
    shards: Iterable[Opened], queries: np.ndarray, k: int, category_filter: Collection[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best k items over all shards, or over those of the given categories.

    Returns:
        scores float32 [Q, k] descending (of the indexes: approximate for SQ8 and PQ), item ids object [Q, k];
        -inf and None where there are fewer. Ties: by category, then shard, then id.
    """
    queries = as_matrix(queries, "queries")
    scores: list[np.ndarray] = [np.full((len(queries), k), -np.inf, np.float32)]
    ids: list[np.ndarray] = [np.full((len(queries), k), None, object)]
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
    if not k or not len(queries):
        return np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    parameters = None
    if "nprobe" in search:
        parameters = faiss.SearchParametersIVF(nprobe=search["nprobe"])
    elif "efSearch" in search:
        parameters = faiss.SearchParametersHNSW(efSearch=max(search["efSearch"], k))
    scores, positions = index.search(queries, k, params=parameters)
    return scores, positions
