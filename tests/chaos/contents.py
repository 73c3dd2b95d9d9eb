"""What a warehouse contains, without what differs from run to run (ids of runs, times), so that two can be compared."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

import tgq

TOLERANCE = 1e-6

# a failed night keeps its own rows of what has a run, and the next one has another id
OF_DONE = "run_id IN (SELECT run_id FROM pipeline_runs WHERE step = 'nightly' AND status = 'done')"
# rows that must be equal: a name, and the query for them
EXACT = {
    "catalog_items": "SELECT item_id, title, brand, category, image_hash, metadata_text, encoder_title, group_id, content_hash, is_active FROM catalog_items",
    "item_embeddings": "SELECT item_id, model_version, content_hash, category, has_image FROM item_embeddings",
    "item_features": "SELECT item_id, tower_version, content_hash FROM item_features",
    "quarantine": f"SELECT stage, item_id, occurrence, reason, fields FROM quarantine WHERE {OF_DONE}",
    "relevance_pairs": "SELECT query_item_id, positive_item_id, source, weight, split, group_id FROM relevance_pairs",
    "relevance_queries": "SELECT query_id, text, split, source FROM relevance_queries",
    "query_judgments": "SELECT query_id, item_id, grade, weight, source FROM query_judgments",
    "pipeline_runs": f"SELECT step, status, rows_in, rows_quarantined FROM pipeline_runs WHERE {OF_DONE}",
    "published_items": "SELECT item_id, content_hash FROM published_items",
    "published_embeddings": "SELECT item_id, content_hash FROM published_embeddings",
}
# rows with one number that may differ by TOLERANCE: a name, the query for key and number
NEAR = {
    "published_neighbors": "SELECT item_id, rank, score FROM published_neighbors",
    "retrieval_metrics": f"SELECT task, model_version, slice, metric, k, n_queries, pool_size, value FROM retrieval_metrics WHERE {OF_DONE}",
    "lower bounds": f"SELECT task, model_version, slice, metric, k, n_queries, pool_size, ci_low FROM retrieval_metrics WHERE ci_low IS NOT NULL AND {OF_DONE}",
}


@dataclass
class Contents:
    """The contents of a warehouse.

    Attributes:
        exact: sorted rows, by name.
        near: a number by key, by name.
        vectors: by item and model, of `item_embeddings`.
        shards: (category, shard, items, digest of the members), of the published generation.
        mlflow: the status of each MLflow run, without those that failed.
        failed: nights and MLflow runs that failed.
    """

    exact: dict[str, list[tuple]]
    near: dict[str, dict[tuple, list[float]]]
    vectors: dict[tuple, np.ndarray]
    shards: list[tuple]
    mlflow: list[str]
    failed: int


def contents_of(root: Path) -> Contents:
    """Read a warehouse, without Spark."""
    warehouse = tgq.open_warehouse(root)
    exact = {name: _rows(warehouse.sql(query)) for name, query in EXACT.items()}
    near: dict[str, dict[tuple, list[float]]] = {}
    for name, query in NEAR.items():
        near[name] = {}
        for *key, number in _rows(warehouse.sql(query)):
            near[name].setdefault(tuple(key), []).append(number)
    embeddings = warehouse.sql("SELECT item_id, model_version, embedding FROM item_embeddings")
    keys = zip(embeddings["item_id"].to_pylist(), embeddings["model_version"].to_pylist(), strict=True)
    vectors = dict(zip(keys, matrix(embeddings["embedding"]), strict=True))
    published = warehouse.published
    shards = sorted((s.category, s.shard, s.n_items, s.members_digest) for s in published.shards) if published else []
    runs = mlflow_runs(root)
    nights = warehouse.sql("SELECT run_id FROM pipeline_runs WHERE step = 'nightly' AND status <> 'done'").num_rows
    return Contents(exact, near, vectors, shards, [status for status in runs if status != "FAILED"], runs.count("FAILED") + nights)


def differences(found: Contents, wanted: Contents) -> list[str]:
    """How the contents of a warehouse differ from those of an undisturbed one, in lines; empty if they do not."""
    lines = []
    for name, rows in wanted.exact.items():
        if found.exact[name] != rows:
            more, fewer = _without(found.exact[name], rows), _without(rows, found.exact[name])
            lines.append(f"{name}: {len(found.exact[name])} rows in place of {len(rows)}; only here {more[:2]}, only there {fewer[:2]}")
    for name, numbers in wanted.near.items():
        if found.near[name].keys() != numbers.keys():
            lines.append(f"{name}: other rows, such as {sorted(found.near[name].keys() ^ numbers.keys(), key=str)[:2]}")
            continue
        unlike = [key for key in numbers if not _alike(found.near[name][key], numbers[key])]
        if unlike:
            lines.append(f"{name}: {len(unlike)} numbers differ, such as {unlike[0]}: {found.near[name][unlike[0]]} in place of {numbers[unlike[0]]}")
    if len(found.exact["item_embeddings"]) != len(found.vectors):
        lines.append("item_embeddings: an item and model twice")
    for key in wanted.vectors.keys() & found.vectors.keys():
        if not np.allclose(found.vectors[key], wanted.vectors[key], rtol=0, atol=TOLERANCE):
            lines.append(f"item_embeddings: the vector of {key} differs")
            break
    if found.shards != wanted.shards:
        lines.append(f"shards: {len(found.shards)} in place of {len(wanted.shards)}, or of other members")
    if found.mlflow != wanted.mlflow:
        lines.append(f"MLflow: runs {found.mlflow} in place of {wanted.mlflow}")
    return lines


def staged(root: Path) -> list[str]:
    """What is in the folders that a finished night leaves empty."""
    return sorted(str(path.relative_to(root)) for path in root.glob("_staging/*"))


def mlflow_runs(root: Path) -> list[str]:
    """The status of each MLflow run, in the order in which they began."""
    with sqlite3.connect(f"file:{root}/mlflow.db?mode=ro", uri=True) as database:
        return [row[0] for row in database.execute("SELECT status FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time, run_uuid")]


def nights_done(root: Path | None) -> int:
    """How many nights have ended, as `pipeline_runs` has it. None, and a folder without tables: 0."""
    if root is None or not (root / "pipeline_runs" / "_delta_log").is_dir():
        return 0
    return tgq.open_warehouse(root).sql("SELECT run_id FROM pipeline_runs WHERE step = 'nightly' AND status = 'done'").num_rows


def generation_of(root: Path) -> str | None:
    """The published generation, as `index/CURRENT` names it."""
    current = root / "index" / "CURRENT"
    return json.loads(current.read_text())["generation"] if current.exists() else None


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """[n, De] float32 of a column of lists of one length."""
    values = column.combine_chunks()
    return np.asarray(values.flatten(), np.float32).reshape(len(values), -1)


def _rows(table: pa.Table) -> list[tuple]:
    columns = [column.to_pylist() for column in table.columns]
    return sorted(zip(*columns, strict=True), key=lambda row: tuple((value is not None, str(value)) for value in row))


def _without(rows: list[tuple], others: list[tuple]) -> list[tuple]:
    seen = set(others)
    return [row for row in rows if row not in seen]


def _alike(found: list[float], wanted: list[float]) -> bool:
    return len(found) == len(wanted) and np.allclose(np.sort(found), np.sort(wanted), rtol=0, atol=TOLERANCE)
