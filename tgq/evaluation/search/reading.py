"""The judged search queries of an evaluation: `relevance_queries` of `evaluate.split` with their active items of `query_judgments`.

Judgments of weight 0 and of items that are no longer active are dropped. Few of them, about few items in a local folder, are read by delta-rs and
held in the driver (`Held`), because a Spark query over a small table is mostly planning. All others are joined by Spark, and the driver gets
a row of totals (`Stored`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.evaluation.search.held import Held
from tgq.evaluation.search.judged import LISTED, listed
from tgq.evaluation.search.stored import Stored
from tgq.index.pool import Pool, find_positions, item_frame
from tgq.metrics.metrics import ALL
from tgq.retrieval.bm25 import TextIndex
from tgq.run.night import Night

QUERIES, JUDGMENTS = "relevance_queries", "query_judgments"
LITTLE_ITEMS, LITTLE_JUDGMENTS = 50_000, 200_000  # active items and judgments that the driver reads: some 20 MB each
_ASKED = ("query_id", "text", "normalised_text", "source", "popularity")


def splits_of(night: Night) -> tuple[str, ...]:
    """The values of `split` whose queries are evaluated."""
    split = night.settings.evaluate.split
    return ("train", "test") if split == ALL else (split,)


def has_queries(night: Night) -> bool:
    """Whether there are judged queries of the split at all. A night without them pays for nothing else."""
    return night.warehouse.has_rows(QUERIES, {"split": splits_of(night)}) and night.warehouse.has_rows(JUDGMENTS, {"source": ("judgments", "clicks")})


def judged_queries(night: Night, pool: Pool, folder: str) -> Held | Stored:
    """The queries that have a judged, active item with a gain, at most `evaluate.max_queries` of them. Files go to `folder`."""
    lowest, relevant = night.settings.queries.irrelevant_grade, night.settings.queries.relevant_grade
    if is_little(night, pool):
        return Held(night, listed(_read_rows(night, pool), lowest, relevant), folder).limited()

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        rows = list(batches)
        if sum(batch.num_rows for batch in rows):
            yield from listed(pa.Table.from_batches(rows), lowest, relevant).to_batches()

    return Stored.limited(night, _joined_rows(night, pool).repartition("query_id").mapInArrow(lists, LISTED), folder)


def is_little(night: Night, pool: Pool) -> bool:
    """Whether the driver may hold the judgments and the texts of the active items."""
    return night.warehouse.is_local and pool.active <= LITTLE_ITEMS and night.warehouse.rows_at_most(JUDGMENTS, LITTLE_JUDGMENTS)


def build_index(night: Night, pool: Pool, folder: str) -> int:
    """Write the index of BM25 over the texts that the encoder reads of the pool's items, in one place. Returns the number of texts."""
    if is_little(night, pool):
        items = night.warehouse.table("catalog_items", {"is_active": True}, "item_id", "metadata_text", version=pool.versions["catalog_items"])
        items = items.append_column("position", pa.array(find_positions(pool, items["item_id"].combine_chunks()))).filter(pc.field("position") >= 0)
        return _build([items.sort_by("position")["metadata_text"]], folder)
    active = night.warehouse.read("catalog_items", pool.versions["catalog_items"]).where("is_active").select("item_id", "metadata_text")
    texts = item_frame(night, pool).select("item_id", "position").join(active, "item_id").select("position", "metadata_text")

    def build(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"n": [_build((batch["metadata_text"] for batch in batches), folder)]})

    ordered = texts.repartition(1).sortWithinPartitions("position")
    return sum(row["n"] for row in ordered.mapInArrow(build, "n long").collect())


def _build(columns, folder: str) -> int:
    index = TextIndex.build(text or "" for column in columns for text in column.to_pylist())
    index.save(folder)
    return len(index)


def _read_rows(night: Night, pool: Pool) -> pa.Table:
    """The rows, as ROWS, by delta-rs."""
    read = night.warehouse.table
    judged = read(JUDGMENTS, {}, "query_id", "item_id", "grade", "weight").filter(pc.field("weight") > 0)
    asked = read(QUERIES, {"split": splits_of(night)}, *_ASKED)
    items = read("catalog_items", {"is_active": True}, "item_id", "category", "image_hash", version=pool.versions["catalog_items"])
    of_query, of_item = (
        pc.index_in(judged[key], value_set=known[key].combine_chunks()) for key, known in (("query_id", asked), ("item_id", items))
    )  # fmt: skip
    both = pc.and_(pc.is_valid(of_query), pc.is_valid(of_item))
    judged, asked, items = judged.filter(both), asked.take(of_query.filter(both)), items.take(of_item.filter(both))
    ids = pc.unique(judged["item_id"])
    positions = pa.array(find_positions(pool, ids)).take(pc.index_in(judged["item_id"], value_set=ids).combine_chunks())
    rows = asked.append_column("item_id", judged["item_id"]).append_column("category", items["category"])
    rows = rows.append_column("has_picture", pc.is_valid(items["image_hash"])).append_column("grade", judged["grade"])
    return rows.append_column("position", pc.if_else(pc.less(positions, 0), None, positions))


def _joined_rows(night: Night, pool: Pool) -> DataFrame:
    """The rows, as ROWS, by Spark."""
    active = night.warehouse.read("catalog_items", pool.versions["catalog_items"]).where("is_active")
    items = active.select("item_id", "category", F.col("image_hash").isNotNull().alias("has_picture"))
    positions = item_frame(night, pool).select("item_id", "position")
    asked = night.warehouse.read(QUERIES).where(F.col("split").isin(*splits_of(night))).select(*_ASKED)
    judged = night.warehouse.read(JUDGMENTS).where("weight > 0").select("query_id", "item_id", "grade")
    rows = judged.join(asked, "query_id").join(items, "item_id").join(positions, "item_id", "left")
    return rows.select(*_ASKED, "item_id", "category", "has_picture", "grade", "position")
