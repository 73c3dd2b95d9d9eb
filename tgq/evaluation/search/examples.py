"""Example queries for the report: those that the night answers best and worst, by NDCG@10, with what it finds for them.

Cost: an exact search for 2 * n queries in one task.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tgq.embedding.executor.daemon import preloaded
from tgq.evaluation.search.vectors import QueryEncoder
from tgq.index.pool import MAIN, Pool, gather_items, read_blocks
from tgq.retrieval.exact import search_blocks
from tgq.run.night import Night

FOUND = "choice string, query_id string, text string, ndcg double, best_item string, item_ids array<string>, scores array<float>, marks array<string>"
Example = dict[str, Any]


def examples(night: Night, chosen: pa.Table, pool: Pool, encoder: QueryEncoder, width: int) -> list[Example]:
    """The best and the worst queries, in this order: choice (best or worst), query_id, text, ndcg, best_item (its best judged item), and
    item_ids, scores and marks of the `width` items found first; a mark is hit, miss, or empty for an item without a judgment.

    chosen: few queries, as `HeldScores.extremes` gives them.
    """
    if not len(chosen):
        return []

    def find(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _found(chosen, pool, encoder, width)

    with preloaded(night.spark.sparkContext):
        rows = [row.asDict() for row in night.spark.range(0, 1, 1, 1).mapInArrow(find, FOUND).collect()]
    firsts = {row["query_id"] for row in rows if row["choice"] == "best"}
    kept = [row for row in rows if row["choice"] == "best" or row["query_id"] not in firsts]  # of a few queries the best are the worst, too
    return sorted(kept, key=lambda row: (row["choice"], -row["ndcg"] if row["choice"] == "best" else row["ndcg"], row["query_id"]))


def _found(queries: pa.Table, pool: Pool, encoder: QueryEncoder, width: int) -> pa.RecordBatch:
    scores, positions = search_blocks(encoder.vectors(MAIN, queries["text"].to_pylist()), read_blocks(pool, MAIN), width)
    ids = np.array(gather_items(pool, ("item_id",), positions[positions >= 0])["item_id"].to_pylist(), dtype=object)
    ends = np.cumsum((positions >= 0).sum(axis=1))[:-1]
    found: dict[str, list[Any]] = {"item_ids": [part.tolist() for part in np.split(ids, ends)], "scores": [], "marks": []}
    for row, (positives, ignored) in enumerate(zip(queries["positives"].to_pylist(), queries["ignored"].to_pylist(), strict=True)):
        marks = {entry["position"]: "miss" for entry in ignored} | {entry["position"]: "hit" for entry in positives}
        at = positions[row][positions[row] >= 0]
        found["marks"].append([marks.get(int(position), "") for position in at])
        found["scores"].append(scores[row][: len(at)].tolist())
    columns = {name: queries[name].combine_chunks() for name in ("choice", "query_id", "text", "ndcg", "best_item")}
    lists = {"item_ids": pa.list_(pa.string()), "scores": pa.list_(pa.float32()), "marks": pa.list_(pa.string())}
    return pa.RecordBatch.from_pydict(columns | {name: pa.array(found[name], kind) for name, kind in lists.items()})
