"""Generation of attributes: items that lack an attribute of their category's schema are asked about, into `item_attributes_generated`.

A result holds as long as the item's texts, its picture and the source are the same. Cost: a join of the keys of the catalog with those of the table,
and the schema of every active item; then the source, for new and changed items only. For heads the towers run over items whose features are not
cached, once per picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from tgq.attributes import answers as attributes
from tgq.attributes.source import Asked
from tgq.attributes.vocabulary import Vocabulary
from tgq.embedding.precompute import run_towers
from tgq.enrichment.attributes.head_features import FEATURES, as_asked, features_of, with_head_features
from tgq.enrichment.attributes.plan import AttributePlan
from tgq.enrichment.pictures import COLUMNS, NO_PICTURE, Pictures, unread
from tgq.enrichment.slices import Answer, Work, run_slices
from tgq.enrichment.texts import item_text, with_readable_texts
from tgq.errors import WarehouseError
from tgq.images.decode import ImageError
from tgq.run.night import Night

TABLE = "item_attributes_generated"
OUTPUT = (
    "item_id string, key string, text_hash string, image_hash string, replaces boolean, verdict string, reason string, detail string, value string, "
    "score double, tokens long"
)
ITEM = ("item_id", "text_hash", "seen_hash", "replaces")  # columns of a pending item that go into its rows
ORDER = tuple(column.split()[0] for column in OUTPUT.split(", "))
KINDS = {"key": pa.string(), "verdict": pa.string(), "reason": pa.string(), "detail": pa.string(), "value": pa.string(), "score": pa.float64(),
         "tokens": pa.int64()}  # fmt: skip


def active_items(night: Night, plan: AttributePlan | None) -> DataFrame:
    """Active rows of `catalog_items` with `texts`, `text_hash`, `seen_hash` (of the picture, null if the source sees none) and `asked`, the keys that
    the item lacks; none without a plan."""
    items = with_readable_texts(night.warehouse.read("catalog_items").where("is_active"), night.settings.metadata)
    seen = F.col("image_hash") if plan and plan.sees_pictures else F.lit(None).cast("string")
    return items.withColumns({"seen_hash": seen, "asked": _asked(plan, night.settings.metadata.attributes)})


def _asked(plan: AttributePlan | None, readable: tuple[str, ...] | None) -> Column:
    if plan is None:
        return F.array().cast("array<string>")
    vocabulary: Vocabulary = plan.config.vocabulary

    def missing(category, attributes):  # Spark takes type hints for those of a pandas function
        return list(vocabulary.missing(category or "", attributes or {}, readable))

    return F.udf(missing, "array<string>")("texts.category", "texts.attributes")


def known_items(night: Night, version: str | None) -> DataFrame:
    """Items that a source was asked about: `item_id`, hashes, and whether it had no answer for some key (`failed`) and in which run."""
    rows = night.warehouse.read(TABLE).where(F.col("source_version") == version if version else F.lit(False))
    failed = F.bool_or(F.col("verdict") == "failed").alias("failed")
    of_run = F.max("run_id").alias("of_run")
    return rows.groupBy("item_id", F.col("text_hash").alias("known_text"), F.col("image_hash").alias("known_image")).agg(failed, of_run)


def is_known() -> Column:
    """Whether an item's known result is of its present texts and picture."""
    return F.col("text_hash").eqNullSafe(F.col("known_text")) & F.col("seen_hash").eqNullSafe(F.col("known_image"))


def pending(night: Night, plan: AttributePlan, version: str) -> DataFrame:
    """Active items that lack an attribute and have no result of this source for their present texts and picture, or had no answer in an earlier run.

    `replaces`: older rows of the item are there.
    """
    joined = active_items(night, plan).where(F.size("asked") > 0).join(known_items(night, version), "item_id", "left")
    again = F.col("failed") & (F.col("of_run") != night.run_id)
    return joined.where(~is_known() | again).withColumn("replaces", F.col("known_text").isNotNull())


def generate_attributes(night: Night, plan: AttributePlan, version: str) -> None:
    """Ask the source about the pending items.

    Raises:
        EnrichmentError: the language model does not answer, and `enrich.on_failure` is stop. Items that it answered for are committed.
    """
    waiting, columns = pending(night, plan, version), ["item_id", "text_hash", "seen_hash", "image_hash", "texts", "asked", "replaces"]
    full = False
    if plan.uses_heads:
        asked = as_asked(waiting)
        try:
            run_towers(night, night.model_folder, asked)
        except WarehouseError as error:  # the night goes on: items without features are embedded as they are
            full = True
            night.progress.say(f"{error}; items without cached features have no generated attributes")
        waiting = with_head_features(night, asked.select(*columns, "metadata_text", "encoder_title"), night.model_folder)
        columns += ["metadata_text", *FEATURES]
    pictures = Pictures.of(night) if plan.sees_pictures and not plan.uses_heads else None
    columns += [name for name in COLUMNS if pictures and name not in columns]

    def commit(found: DataFrame, replaces: bool, transaction: tuple[str, int]) -> None:
        stamp = {"run_id": F.lit(night.run_id), "source_version": F.lit(version), "generated_at": F.current_timestamp()}
        rows = found.withColumns(stamp).select(*night.warehouse.read(TABLE).columns)
        if replaces:  # an item may lack other keys than before, so all its rows go; one whose night is killed here is asked about again
            gone = found.where("replaces").select("item_id", F.lit(version).alias("source_version")).distinct()
            merge = night.warehouse.delta(TABLE).alias("t").merge(gone.alias("s"), "t.item_id = s.item_id AND t.source_version = s.source_version")
            merge.whenMatchedDelete().execute()
        night.warehouse.append(rows, TABLE, transaction)

    config = plan.config
    widths = (config.image_width, config.text_width)

    def answers(plan: AttributePlan, device: str) -> Answer:
        source = plan.source(device)

        def answer(batch: pa.RecordBatch) -> pa.RecordBatch:
            rows = batch.to_pylist()
            features = features_of(batch, *widths) if plan.uses_heads else None
            seen = pictures.read(rows) if pictures else [None] * len(rows)
            lost = [_is_uncached(row) if plan.uses_heads else isinstance(one, ImageError) for row, one in zip(rows, seen, strict=True)]
            kept = np.flatnonzero(~np.array(lost, bool))
            items = [_asked_of(rows[at], one) for at in kept if not isinstance(one := seen[at], ImageError)]
            found = dict(zip(kept.tolist(), source.answers(items, None if features is None else features[kept]), strict=True))
            return _output(rows, found, seen, full)

        return answer

    run_slices(night, waiting.select(*columns), Work("generate attributes", plan, OUTPUT, answers, commit, "have no generated attributes"))


def _asked_of(row: Mapping[str, Any], picture: bytes | None) -> Asked:
    return Asked(item_text(row["texts"], picture), tuple(row["asked"]), picture is not None or _has_something(row))


def _is_uncached(row: Mapping[str, Any]) -> bool:
    """Whether a side that the item has is not in the feature cache."""
    picture, text = row["image_hash"] and row["image_features"] is None, row["metadata_text"] and row["text_features"] is None
    return bool(picture or text)


def _has_something(row: Mapping[str, Any]) -> bool:
    """Whether there is anything to be read of the item, beside its attributes."""
    return bool(row.get("image_features")) or any(row["texts"][name] for name in ("title", "brand", "category"))


def _output(rows: Sequence[Mapping[str, Any]], found: Mapping[int, Sequence[attributes.Answer]], seen: Sequence, full: bool) -> pa.RecordBatch:
    """A row per answer. Items that are not in `found` have no picture or features: they wait if the cache is full, otherwise their picture cannot be read.

    seen: why not, of those that a language model was to see.
    """
    out: dict[str, list] = {name: [] for name in ("item_id", "text_hash", "image_hash", "replaces", *KINDS)}
    for at, row in enumerate(rows):
        answers = found.get(at)
        if answers is None:
            detail = unread(seen[at]) if seen[at] else "its picture cannot be read"
            lost = attributes.Answer("", "waiting") if full else attributes.Answer("", "failed", reason=NO_PICTURE, detail=detail)
            answers = [replace(lost, key=key) for key in row["asked"]]
        for answer in answers:
            for name, value in zip(("item_id", "text_hash", "image_hash", "replaces"), (row[c] for c in ITEM), strict=True):
                out[name].append(value)
            for name in KINDS:
                out[name].append(getattr(answer, name))
    kinds = {name: pa.string() for name in ("item_id", "text_hash", "image_hash")} | {"replaces": pa.bool_()} | KINDS
    return pa.RecordBatch.from_pydict({name: pa.array(out[name], kinds[name]) for name in ORDER})
