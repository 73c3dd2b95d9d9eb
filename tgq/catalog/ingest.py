"""The ingest step: a snapshot of the source becomes rows of `catalog_items`, or rows of `quarantine` with a reason.

One Spark job reads the source, compares every row with what the warehouse knows, reads and verifies the pictures that are
new or changed, and stages one verdict a row. All else is derived from that staging: the quarantine of this run, the upsert of
the items, the counts. Every source row gets exactly one verdict.

Change detection has two levels. `source_fingerprint` is '<fields>:<picture>': a hash of the row's own fields, and one of the
picture's URI and stat (or of inline bytes). Only where its second part is new is a picture read, so new titles or other
metadata settings cost no picture. `content_hash` covers the picture's bytes and what the encoder reads of the text.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.pairs import MAX_GROUP, load_pairs
from tgq.catalog.source import Location, count_rows, encoder_texts, fetch_options, first_line, locate, read_source
from tgq.errors import SourceError
from tgq.images.decode import ImageError, ImageLimits, verify_header, verify_image
from tgq.images.fetch import Fetcher
from tgq.run.night import RUN_STEP, Night, StepResult
from tgq.run.progress import watched
from tgq.settings.sections import MetadataSettings

STAGE = "ingest"
MISSING = "(missing)"
MAX_ID = 512  # characters
FETCH_THREADS = 16  # per task: reading waits for disks and servers, and Pillow decodes outside Python's lock
TASK_ROWS, TASK_BYTES = 4096, 64 * 2**20
NONE, UNKNOWN = "-", "?"  # picture parts of a fingerprint: no picture; one whose version cannot be told without reading it
LONGEST_FIELD = 2000  # characters of a field that the quarantine keeps

_TEXT, _MAP = pa.string(), pa.map_(pa.string(), pa.string())
FIELDS = ("title", "brand", "category", "attributes", "image_uri", "group_id", "variant_id", "slices")
VERDICT = pa.schema([
    ("item_id", _TEXT), ("occurrence", pa.int32()), ("reason", _TEXT), ("detail", _TEXT), ("fields", _TEXT),
    ("change", _TEXT), ("reactivated", pa.bool_()), ("bytes_read", pa.int64()),
    ("title", _TEXT), ("brand", _TEXT), ("category", _TEXT), ("attributes", _MAP), ("image_uri", _TEXT), ("image_size", pa.int64()),
    ("image_hash", _TEXT), ("metadata_text", _TEXT), ("encoder_title", _TEXT), ("group_id", _TEXT), ("variant_id", _TEXT),
    ("slices", _MAP), ("source_fingerprint", _TEXT), ("content_hash", _TEXT), ("image_bytes", pa.binary()),
])  # fmt: skip


def ingest(night: Night) -> StepResult:
    """Bring the source into `catalog_items`, `quarantine` and `relevance_pairs`.

    Cost: one pass over the source, one stat per picture, one read and a low-resolution decode per new or changed picture.
    Running it again under the same run id gives the same tables; `figures` then tell what the second attempt found to do.

    Raises:
        SourceError: there is no readable table, it is empty, a mapped column is missing, or no row of it can be used.
    """
    catalog, warehouse = night.settings.catalog, night.warehouse
    location = locate(night.spark, catalog)
    source = read_source(night.spark, catalog, location)
    rows = count_rows(source, catalog)
    staged = examine(night, source, location, rows)
    counts = _counts(staged)
    write_quarantine(night, staged, counts["rows"] - counts["good"])
    if not counts["good"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in counts["reasons"].items())
        raise SourceError(f"none of the {counts['rows']} rows of {catalog.path} can be used ({reasons})", "see the table quarantine for details")
    vanished = upsert_items(night, staged)
    pairs = load_pairs(night, location)
    inactive, largest_group = _standing(night)
    if largest_group > MAX_GROUP and night.settings.pairs.source in ("auto", "group"):
        night.progress.say(f"the largest group has {largest_group} items: of such a group only {MAX_GROUP} are paired")
    return StepResult(
        rows_in=counts["rows"],
        rows_out=counts["good"],
        unchanged=counts["unchanged"],
        quarantined=counts["rows"] - counts["good"],
        inactive=inactive,
        versions_written=warehouse.versions("catalog_items", "quarantine", "relevance_pairs"),
        figures={
            **{name: counts[name] for name in ("new", "changed", "touched", "unchanged", "reactivated", "images_read", "bytes_read")},
            "reasons": counts["reasons"],
            "newly_inactive": vanished,
            "inactive": inactive,
            "largest_group": largest_group,
            "pairs": pairs,
        },
    )


# -- one row


@dataclass(frozen=True)
class Examiner:
    """Gives a source row its verdict. Plain values, so that it travels to the workers; never raises."""

    location: Location
    fetcher: Fetcher
    limits: ImageLimits
    verify: str
    metadata: MetadataSettings
    retry: bool

    @classmethod
    def of(cls, night: Night, location: Location) -> Examiner:
        settings = night.settings
        images = settings.images
        return cls(
            location=location,
            fetcher=Fetcher(fetch_options(location.folder, images)),
            limits=ImageLimits(images.max_bytes, images.max_pixels),
            verify=images.verify,
            metadata=settings.metadata,
            retry=settings.embed.retry_quarantined,
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One row of VERDICT for one row of the source joined with what is known of its id (`known_*`, `refused_*`)."""
        row["attributes"], row["slices"] = _as_dict(row["attributes"]), _as_dict(row["slices"])
        fields = _digest(*(row[f] for f in FIELDS))
        out: dict[str, Any] = {name: row.get(name) for name in VERDICT.names}
        out.update(image_bytes=None, bytes_read=0, source_fingerprint=f"{fields}:{NONE}")
        if row["reason"]:
            return self._refused(row, out)
        text, title = encoder_texts(row, self.metadata)
        out.update(metadata_text=text, encoder_title=title)
        try:
            self._picture(row, out, fields)
        except ImageError as error:
            out.update(reason=error.reason, detail=error.detail)
            return self._refused(row, out)
        if not out["image_hash"] and not text and not title:
            out.update(reason="no_image_and_no_text", detail=f"no image, and nothing in {', '.join(self.metadata.fields) or 'the text'}")
            return self._refused(row, out)
        out["content_hash"] = hashlib.sha256("\x1f".join((out["image_hash"] or "", text, title)).encode()).hexdigest()
        out["change"] = _change(row, out)
        out["reactivated"] = row["known_active"] is False
        if row["image_bytes"] and out["change"] != "unchanged":
            out["image_bytes"] = row["image_bytes"]
        return out

    def _picture(self, row: dict[str, Any], out: dict[str, Any], fields: str) -> None:
        """Fill image_uri, image_size, image_hash and the fingerprint, reading no more than is needed.

        Raises:
            ImageError: the picture cannot be used.
        """
        data = row["image_bytes"]
        out.update(image_uri=None, image_hash=None, image_size=0)
        if data:
            digest = hashlib.sha256(data).hexdigest()
            version = f"bytes {digest}"
        elif row["image_uri"]:
            out["image_uri"] = uri = self.location.resolve(row["image_uri"])
            version = self._stat(uri)
        else:
            return
        known = _digest(out["image_uri"], version) if version else UNKNOWN
        fingerprint = out["source_fingerprint"] = f"{fields}:{known}"
        if version and known == _picture_part(row["known_fingerprint"]):
            out.update(image_hash=row["known_hash"], image_size=row["known_size"])
            return
        if version and not self.retry and row["refused_fingerprint"] == self._refusal(fingerprint):
            raise ImageError(row["refused_reason"], row["refused_detail"])
        if not data:
            out["source_fingerprint"] = f"{fields}:{UNKNOWN}"  # not reading it is no verdict on it: try again next time
            data = self.fetcher.read(uri)
            out["source_fingerprint"] = fingerprint
            digest = hashlib.sha256(data).hexdigest()
        out["bytes_read"] = len(data)
        (verify_image if self.verify == "decode" else verify_header)(data, self.limits)
        out.update(image_hash=digest, image_size=len(data))

    def _stat(self, uri: str) -> str:
        try:
            return self.fetcher.stat(uri)
        except ImageError as error:
            if error.reason == "unreadable" and uri.lower().startswith("http"):
                return ""  # some servers refuse HEAD and give the picture all the same
            raise

    def _refusal(self, fingerprint: str) -> str:
        """A refused row's fingerprint: other limits are a reason to try again."""
        return f"{fingerprint}:{_digest(self.limits.max_bytes, self.limits.max_pixels, self.verify)[:8]}"

    def _refused(self, row: dict[str, Any], out: dict[str, Any]) -> dict[str, Any]:
        shown = {"item_id": row["item_id"], **{f: row[f] for f in FIELDS}}
        shown["image_bytes"] = len(row["image_bytes"]) if row["image_bytes"] else None
        shown = {k: v[:LONGEST_FIELD] if isinstance(v, str) else v for k, v in shown.items() if v not in (None, {})}
        return dict.fromkeys(VERDICT.names) | {
            "item_id": out["item_id"], "occurrence": out["occurrence"], "reason": out["reason"], "detail": out["detail"],
            "fields": json.dumps(shown, ensure_ascii=False), "bytes_read": out["bytes_read"],
            "source_fingerprint": self._refusal(out["source_fingerprint"]), "change": "quarantined",
        }  # fmt: skip

    def batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Verdicts for record batches, on threads; one batch is read ahead, so that a slow picture holds up few others."""
        with ThreadPoolExecutor(FETCH_THREADS, "fetch") as pool:
            waiting: deque = deque()
            for batch in batches:
                waiting.append([pool.submit(self, row) for row in batch.to_pylist()])
                if len(waiting) > 1:
                    yield _verdicts(waiting.popleft())
            while waiting:
                yield _verdicts(waiting.popleft())


def _verdicts(futures: list) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([future.result() for future in futures], VERDICT)


def _as_dict(value: Any) -> dict[str, str] | None:
    return None if value is None else dict(value)  # Arrow gives a map as a list of pairs


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _picture_part(fingerprint: str | None) -> str | None:
    return fingerprint.rpartition(":")[2] if fingerprint else None


def _change(row: dict[str, Any], out: dict[str, Any]) -> str:
    """new, changed (embed again), touched (other columns differ) or unchanged."""
    if row["known_content"] is None:
        return "new"
    if row["known_content"] != out["content_hash"]:
        return "changed"
    # a picture of unknown version was read and has the same bytes: the row stays as it is
    return "unchanged" if row["known_fingerprint"] == out["source_fingerprint"] else "touched"


# -- all rows


def examine(night: Night, source: DataFrame, location: Location, rows: int) -> DataFrame:
    """Stage a verdict for every source row, in one job, and return the staged frame (VERDICT).

    The shuffle by id brings together the rows of one id, and each with what the warehouse knows of it.
    """
    spark, warehouse = night.spark, night.warehouse
    item_id = F.col("item_id")
    bad = item_id.rlike(r"\p{Cc}") | (F.length(item_id) > MAX_ID)
    keyed = source.withColumns({
        "reason": F.when(F.col("unparsed").isNotNull(), "unreadable").when(item_id.isNull(), "missing_id").when(bad, "bad_id"),
        "item_id": F.coalesce(F.substring(item_id, 1, MAX_ID), F.lit(MISSING)),
        "order": F.xxhash64(*(F.to_json(c) if c in ("attributes", "slices") else F.col(c) for c in source.columns)),
    })  # fmt: skip
    keyed = keyed.repartition(_partitions(night, source, rows), "item_id")
    same = Window.partitionBy("item_id")
    numbered = keyed.withColumns({
        "occurrence": F.row_number().over(same.orderBy("order")) - 1,
        "times": F.count("*").over(same),
    })  # fmt: skip
    reason = F.coalesce("reason", F.when(F.col("times") > 1, "duplicate_id"))
    detail = F.when(F.col("unparsed").isNotNull(), F.concat(F.lit("not JSON: "), F.substring("unparsed", 1, 200))) \
        .when(reason == "missing_id", "the row has no id") \
        .when(reason == "bad_id", F.lit(f"an id of control characters, or of more than {MAX_ID} characters")) \
        .when(reason == "duplicate_id", F.concat(F.lit("the id stands on "), F.col("times"), F.lit(" rows")))  # fmt: skip
    judged = numbered.withColumns({"reason": reason, "detail": detail}).drop("order", "times", "unparsed")
    known = warehouse.read("catalog_items").select(
        "item_id", F.col("source_fingerprint").alias("known_fingerprint"), F.col("image_hash").alias("known_hash"),
        F.col("image_size").alias("known_size"), F.col("content_hash").alias("known_content"), F.col("is_active").alias("known_active"),
    )  # fmt: skip
    joined = judged.join(known, "item_id", "left").join(_refusals(night), "item_id", "left")

    examiner, folder = Examiner.of(night, location), night.staging(STAGE)
    try:
        with watched(night, "ingest", rows) as done:

            def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
                for batch in examiner.batches(batches):
                    done.add(batch.num_rows)
                    yield batch

            joined.mapInArrow(run, from_arrow_schema(VERDICT)).write.mode("overwrite").parquet(folder)
    except PySparkException as e:
        if "FAILED_READ_FILE" in str(e):
            raise SourceError(f"{night.settings.catalog.path} is damaged: {first_line(e)}", "write it again") from e
        raise
    return spark.read.schema(from_arrow_schema(VERDICT)).parquet(folder)


def _refusals(night: Night) -> DataFrame:
    """The last verdict of earlier runs on each input that was refused."""
    earlier = night.warehouse.read("quarantine").where((F.col("stage") == STAGE) & (F.col("run_id") != night.run_id))
    last = F.max_by(F.struct("source_fingerprint", "reason", "detail"), "quarantined_at")
    return earlier.groupBy("item_id").agg(last.alias("last")).select(
        "item_id", F.col("last.source_fingerprint").alias("refused_fingerprint"), F.col("last.reason").alias("refused_reason"),
        F.col("last.detail").alias("refused_detail"),
    )  # fmt: skip


def _partitions(night: Night, source: DataFrame, rows: int) -> int:
    """Tasks of at most TASK_ROWS rows and about TASK_BYTES of source, and enough of them to keep every core busy."""
    size = int(source._jdf.queryExecution().optimizedPlan().stats().sizeInBytes())
    least = 2 * night.spark.sparkContext.defaultParallelism
    return max(1, min(rows, max(least, math.ceil(rows / TASK_ROWS), math.ceil(min(size, rows * 2**20) / TASK_BYTES))))


def _counts(staged: DataFrame) -> dict[str, Any]:
    """Rows by verdict, from one aggregation."""
    found: list[Row] = (
        staged.groupBy("change", "reason")
        .agg(
            F.count("*").alias("rows"),
            F.sum(F.col("reactivated").cast("long")).alias("reactivated"),
            F.sum((F.col("bytes_read") > 0).cast("long")).alias("images_read"),
            F.sum("bytes_read").alias("bytes_read"),
        )
        .collect()
    )  # at most one row a reason
    counts: dict[str, Any] = {c: sum(r["rows"] for r in found if r["change"] == c) for c in ("new", "changed", "touched", "unchanged")}
    counts["good"] = sum(counts.values())
    for name in ("rows", "reactivated", "images_read", "bytes_read"):
        counts[name] = sum(r[name] or 0 for r in found)
    bad = ((r["reason"], r["rows"]) for r in found if r["reason"])
    counts["reasons"] = dict(sorted(bad, key=lambda pair: (-pair[1], pair[0])))
    return counts


def _standing(night: Night) -> tuple[int, int]:
    """(inactive items, items of the largest active group), from one aggregation."""
    groups = night.warehouse.read("catalog_items").groupBy("group_id").agg(
        F.count_if("is_active").alias("active"), F.count_if(~F.col("is_active")).alias("inactive")
    )  # fmt: skip
    active = F.when(F.col("group_id").isNotNull(), F.col("active"))
    row = groups.agg(F.sum("inactive").alias("inactive"), F.max(active).alias("largest")).first()
    return row["inactive"] or 0, row["largest"] or 0


def write_quarantine(night: Night, staged: DataFrame, refused: int) -> None:
    """Put this run's `refused` rows in place of those of an earlier attempt, in one commit."""
    rows = staged.where(F.col("reason").isNotNull()).withColumns({
        "run_id": F.lit(night.run_id), "stage": F.lit(STAGE), "quarantined_at": F.current_timestamp(),
    })  # fmt: skip
    warehouse = night.warehouse
    condition = f"run_id = '{night.run_id}' AND stage = '{STAGE}'"
    if not refused and warehouse.read("quarantine").where(condition).isEmpty():
        return
    rows.select(*warehouse.read("quarantine").columns).write.format("delta").mode("overwrite") \
        .option("replaceWhere", condition).saveAsTable(warehouse.qualified("quarantine"))  # fmt: skip


def upsert_items(night: Night, staged: DataFrame) -> int:
    """MERGE what is new or changed; items that the snapshot does not hold at all become inactive. Returns how many of those are new.

    A refused row stands for its id too: its item was seen, and keeps its last good version. A row in which nothing changed is not
    written again, so a night writes what changed and not the catalog; active items were seen by the last ingest.
    """
    warehouse = night.warehouse
    stamp: dict[str, Column] = {"last_seen": F.lit(night.started_at), "last_run_id": F.lit(night.run_id), "is_active": F.lit(True)}
    snapshot = staged.where("occurrence = 0").withColumns(stamp | {"first_seen": F.lit(night.started_at)})
    columns = [c for c in warehouse.read("catalog_items").columns if c != "first_seen"]
    good, news = "s.reason IS NULL", "(s.change <> 'unchanged' OR s.reactivated)"
    before = last_ingest(night)
    gone = {"is_active": "false"} | ({"last_seen": F.lit(before)} if before else {})
    (
        warehouse.delta("catalog_items").alias("t")
        .merge(snapshot.alias("s"), "t.item_id = s.item_id")
        .whenMatchedUpdate(f"{good} AND s.change = 'unchanged' AND s.reactivated", {c: f"s.{c}" for c in stamp})
        .whenMatchedUpdate(f"{good} AND {news}", {c: f"s.{c}" for c in columns})
        .whenNotMatchedInsert(good, {c: f"s.{c}" for c in (*columns, "first_seen")})
        .whenNotMatchedBySourceUpdate("t.is_active", gone)
        .execute()
    )  # fmt: skip
    metrics = warehouse.delta("catalog_items").history(1).select("operationMetrics").first()[0]
    return int(metrics.get("numTargetRowsNotMatchedBySourceUpdated", 0))


def last_ingest(night: Night) -> datetime | None:
    """When the run before this one began that ingested; its snapshot is where what vanishes now was seen last."""
    runs = night.warehouse.read("pipeline_runs").where(F.col("run_id") != night.run_id)
    ingested = runs.where("step = 'ingest' AND status = 'done'").select("run_id")
    last = runs.where(F.col("step") == RUN_STEP).join(ingested, "run_id", "left_semi").agg(F.max("started_at").alias("at")).first()["at"]
    return last and last.astimezone(timezone.utc)
