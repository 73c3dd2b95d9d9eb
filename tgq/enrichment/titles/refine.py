"""Refinement of titles: items whose texts, or picture if it is seen, the active refiner has not read are refined slice by slice, into `item_texts`.

Cost: a join of the keys of the catalog and of `item_texts`; then the refiner, for new and changed items only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.enrichment.pictures import COLUMNS, NO_PICTURE, Pictures, unread
from tgq.enrichment.slices import Answer, Work, run_slices
from tgq.enrichment.texts import item_text, refined_from, with_readable_texts
from tgq.enrichment.titles.plan import RefinerPlan
from tgq.images.decode import ImageError
from tgq.refinement.refiner import Refinement
from tgq.run.night import Night

KEYS = ("item_id", "refiner_version")
OUTPUT = "item_id string, text_hash string, replaces boolean, verdict string, reason string, detail string, title string, rounds int, tokens long"


def pending(night: Night, plan: RefinerPlan, version: str) -> DataFrame:
    """Active items with a title that have no result of this refiner for what it reads, or had no answer in an earlier run.

    `text_hash` is of what it reads (`refined_from`). `replaces`: an older row is there. Pictures are columns of it if the refiner sees them.
    """
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    items = items.withColumn("text_hash", refined_from(plan.sees_pictures))
    known = night.warehouse.read("item_texts").where(F.col("refiner_version") == version)
    known = known.select("item_id", F.col("text_hash").alias("known_hash"), (F.col("verdict") == "failed").alias("failed"), F.col("run_id").alias("of_run"))
    joined = items.where(F.length(F.trim("texts.title")) > 0).join(known, "item_id", "left")
    again = F.col("failed") & (F.col("of_run") != night.run_id)
    waiting = joined.where(~F.col("text_hash").eqNullSafe(F.col("known_hash")) | again)
    pictures = COLUMNS if plan.sees_pictures else ()
    return waiting.select("item_id", "text_hash", "texts", F.col("known_hash").isNotNull().alias("replaces"), *pictures)


def refine_titles(night: Night, version: str) -> None:
    """Refine the pending items into `item_texts`.

    Raises:
        EnrichmentError: the language model does not answer, and `enrich.on_failure` is stop. Items that it answered for are committed.
    """

    def commit(found: DataFrame, replaces: bool, transaction: tuple[str, int]) -> None:
        stamp = {"run_id": F.lit(night.run_id), "refiner_version": F.lit(version), "refined_at": F.current_timestamp()}
        rows = found.withColumns(stamp).select(*night.warehouse.read("item_texts").columns)
        if replaces:
            night.warehouse.upsert(rows, "item_texts", KEYS)
        else:
            night.warehouse.append(rows, "item_texts", transaction)

    plan = RefinerPlan.of(night.settings)
    pictures = Pictures.of(night) if plan.sees_pictures else None

    def answers(plan: RefinerPlan, device: str) -> Answer:
        return _answers(plan, device, pictures)

    run_slices(night, pending(night, plan, version), Work("refine titles", plan, OUTPUT, answers, commit, "keep their titles"))


def _answers(plan: RefinerPlan, device: str, pictures: Pictures | None) -> Answer:
    refiner = plan.build(device)

    def answer(batch: pa.RecordBatch) -> pa.RecordBatch:
        rows = batch.to_pylist()
        seen = pictures.read(rows) if pictures else [None] * len(rows)
        results = iter(refiner.refine([item_text(row["texts"], one) for row, one in zip(rows, seen, strict=True) if not isinstance(one, ImageError)]))
        lost = [Refinement("failed", None, NO_PICTURE, unread(one)) if isinstance(one, ImageError) else None for one in seen]
        return _output(rows, [asdict(one or next(results)) for one in lost])

    return answer


def _output(rows: Sequence[dict], results: Sequence[dict]) -> pa.RecordBatch:
    columns = {name: pa.array([row[name] for row in rows]) for name in ("item_id", "text_hash", "replaces")}
    kinds = {"verdict": pa.string(), "reason": pa.string(), "detail": pa.string(), "title": pa.string(), "rounds": pa.int32(), "tokens": pa.int64()}
    return pa.RecordBatch.from_pydict(columns | {name: pa.array([result[name] for result in results], kind) for name, kind in kinds.items()})
