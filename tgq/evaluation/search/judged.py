"""Search queries with their judged items, and the slices that each query belongs to, from rows of a query and one of its judged items.

The gain of an item is its grade minus `queries.irrelevant_grade`; one with a positive gain is a positive of its query, any other judged one is a
negative. A positive that is active but has no embedding can never be found and counts as a miss (position -1). A query is evaluated if it
has a positive. Whether the rows are in the driver (`held`) or on executors (`stored`), they are listed here.

Cost: a sort of the rows, and some 20 microseconds a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tgq.evaluation.search.hashing import xxhash64
from tgq.metrics.metrics import ALL

DIGITS = 5  # of grades, which are float32: 2.33 read as a double is not 2.33
LONG = 4  # words: longer queries are in one slice
ROWS = (  # a judged, active item of a query; its position in the pool is null if it has no embedding
    "query_id string, text string, normalised_text string, source string, popularity double, item_id string, category string, has_picture boolean, "
    "grade float, position long"
)
LISTED = (
    "query_id string, text string, group_key long, positives array<struct<position:long,gain:double,relevant:boolean>>, "
    "ignored array<struct<position:long>>, best_item string, source string, length string, category string, has_picture string, popularity double"
)
_POSITIVE = pa.struct([("position", pa.int64()), ("gain", pa.float64()), ("relevant", pa.bool_())])
_IGNORED = pa.struct([("position", pa.int64())])


@dataclass(frozen=True)
class Judged:
    """Counts of queries and judged items, before any search."""

    queries: int
    positives: int
    positives_without_embedding: int
    negatives: int  # judged items without a gain


def listed(rows: pa.Table, lowest: float, relevant: float | None) -> pa.Table:
    """The queries that have a positive, as LISTED: `positives` by position with their gains, `ignored` (judged items in the pool without a gain),
    the best item, and the columns that slices are made of.

    Args:
        rows: as ROWS, all those of each of the queries.
        lowest: the grade of no gain.
        relevant: the lowest grade of a relevant item; None: any with a gain is.
    """
    codes = rows["query_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    grades, which = np.unique(rows["grade"].to_numpy().astype(np.float64), return_inverse=True)
    gain = np.array([_rounded(grade - lowest) for grade in grades])[which]
    enough = np.array([relevant is None or _rounded(grade) >= relevant for grade in grades], bool)[which]
    position = pc.fill_null(rows["position"], -1).to_numpy()
    has_gain = gain > 0
    kept = np.unique(codes[has_gain])
    in_order = np.lexsort((enough, gain, position, codes))
    first = in_order[has_gain[in_order]]
    positives = _lists(_structs(_POSITIVE, position=position[first], gain=gain[first], relevant=enough[first]), codes[first], kept)
    other = in_order[(~has_gain & (position >= 0))[in_order] & np.isin(codes[in_order], kept)]
    ignored = _lists(_structs(_IGNORED, position=position[other]), codes[other], kept)
    # of several best items the one that the pool has, then the first by id
    order = pa.table({"query": codes, "gain": -gain, "missing": position < 0, "item_id": rows["item_id"]})
    best = pc.sort_indices(order, [(name, "ascending") for name in order.column_names]).to_numpy()
    _, at = np.unique(codes[best], return_index=True)
    one = rows.take(pa.array(best[at[kept]]))  # codes are numbers from 0 on
    texts, categories = one["normalised_text"].to_pylist(), one["category"].to_pylist()
    words = [text.count(" ") + 1 for text in texts]
    return pa.table({
        "query_id": one["query_id"], "text": one["text"], "group_key": pa.array([xxhash64(text) for text in texts], pa.int64()),
        "positives": positives, "ignored": ignored, "best_item": one["item_id"], "source": one["source"],
        "length": pa.array([f"{LONG}+" if n >= LONG else str(n) for n in words], pa.string()),
        "category": pa.array([category.split(">")[0].strip(" ") or None if category is not None else None for category in categories], pa.string()),
        "has_picture": pc.if_else(one["has_picture"], "true", "false"), "popularity": one["popularity"],
    })  # fmt: skip


def shares_of(searches: Mapping[float, float]) -> dict[float, str]:
    """Popularity -> head for those where more popular queries make less than a third of all searches, tail where less popular ones do, else torso.
    So equally popular queries are in one slice.

    searches: of all queries of a popularity, by this popularity.
    """
    total, up_to, out = sum(searches.values()), 0.0, {}
    for popularity in sorted(searches, reverse=True):
        above, up_to = up_to, up_to + searches[popularity]
        out[popularity] = "head" if 3 * above < total else "tail" if 3 * (total - up_to) < total else "torso"
    return out


def with_memberships(queries: pa.Table, names: Sequence[str], shares: Mapping[float, str]) -> pa.Table:
    """The queries, as LISTED, with `memberships`: the slices that each belongs to, as "all" and "name=value"."""
    unique = tuple(dict.fromkeys(names))
    columns = [queries[name].to_pylist() for name in unique]
    values = [[shares.get(value) for value in column] if name == "popularity" else column for name, column in zip(unique, columns, strict=True)]
    members = [
        [ALL, *(f"{name}={value}" for name, value in zip(unique, row, strict=True) if value is not None)]
        for row in (zip(*values, strict=True) if values else [()] * len(queries))
    ]
    return queries.append_column("memberships", pa.array(members, pa.list_(pa.string())))


def _rounded(grade: float) -> float:
    """A grade with DIGITS digits, halves up."""
    return float(Decimal(repr(float(grade))).quantize(Decimal(1).scaleb(-DIGITS), ROUND_HALF_UP))


def _structs(kind: pa.StructType, **fields: Any) -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array(fields[field.name], field.type) for field in kind], fields=list(kind))


def _lists(entries: pa.Array, codes: np.ndarray, kept: np.ndarray) -> pa.ListArray:
    """The entries, which are sorted by code, as a list for each code of `kept`, which are all that occur."""
    ends = np.searchsorted(codes, kept, "right")
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]).astype(np.int32)), entries)
