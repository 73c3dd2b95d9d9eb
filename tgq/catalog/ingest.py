"""The ingest step: each row of the source becomes an item in `catalog_items`, or a row of `quarantine` with a reason.

One Spark job reads the source, joins every row with the warehouse's item of the same id, reads and verifies pictures that are
new or changed, and stages one verdict per row. The quarantine, the upsert of the items and the counts are derived from these
verdicts.

Changes are detected on two levels. `source_fingerprint` is '<fields>:<picture>': a hash of the row's fields, and a hash of the
picture's URI and stat (or of its inline bytes). A picture is read only if its part is new, so a new title or another metadata
setting reads no picture. `content_hash` covers the picture's bytes and the text that the encoder reads, and with grounding the version of
what is cut out of the picture.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.enriched import DERIVED, GENERATED, REFINED
from tgq.catalog.examine import VERDICT, Examiner
from tgq.catalog.identity import partitions, with_id_reasons
from tgq.catalog.pairs import MAX_GROUP, load_pairs
from tgq.catalog.reading.location import Location, locate
from tgq.catalog.reading.read_errors import first_line, reader_error
from tgq.catalog.reading.source import Source, open_source
from tgq.errors import SourceError
from tgq.registry.grounding import policy_of
from tgq.run.job_progress import counted, job_progress
from tgq.run.night import RUN_STEP, Night, StepResult

STAGE = "ingest"
CHANGES = ("new", "changed", "touched", "reactivated")  # counts of rows that change `catalog_items`


class Standing(NamedTuple):
    """Counts of `catalog_items`."""

    active: int
    inactive: int
    largest_group: int  # active items of the largest group


def ingest(night: Night) -> StepResult:
    """Write the source's rows to `catalog_items` and `quarantine`, and its pairs to `relevance_pairs`.

    Cost: one pass over the source, one stat per picture, one read and a low-resolution decode per new or changed picture.
    Running it again under the same run id gives the same tables. `figures` then count the changes of the second attempt.

    Raises:
        SourceError: there is no readable table, it is empty, a mapped column is missing, or no row of it can be used.
    """
    catalog, warehouse = night.settings.catalog, night.warehouse
    location = locate(night.spark, catalog)
    source = open_source(night.spark, catalog, location)
    for note in source.notes:
        night.progress.say(note)
    staged = examine(night, source, location)
    counts = _counts(staged)
    if not counts["rows"]:
        raise SourceError(f"the catalog {catalog.path} is empty", "check that its export has run")
    write_quarantine(night, staged, counts["rows"] - counts["good"])
    if not counts["good"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in counts["reasons"].items())
        outside = "name the folder of the pictures in images.allowed_roots, or " if "path_outside_catalog" in counts["reasons"] else ""
        raise SourceError(f"none of the {counts['rows']} rows of {catalog.path} can be used ({reasons})", f"{outside}see the table quarantine for details")
    # without changes the active items show whether an item has vanished: then more of them are active than have a row
    standing = None if any(counts[name] for name in CHANGES) else _standing(night)
    vanished = 0
    if standing is None or standing.active > counts["present"]:
        vanished, standing = upsert_items(night, staged), None
    pairs = load_pairs(night, location)
    standing = standing or _standing(night)
    if standing.largest_group > MAX_GROUP and night.settings.pairs.source in ("auto", "group"):
        night.progress.say(f"the largest group has {standing.largest_group} items; only {MAX_GROUP} items of a group are paired")
    return StepResult(
        rows_in=counts["rows"],
        rows_out=counts["good"],
        unchanged=counts["unchanged"],
        quarantined=counts["rows"] - counts["good"],
        inactive=standing.inactive,
        versions_written=warehouse.versions("catalog_items", "quarantine", "relevance_pairs"),
        figures={
            **{name: counts[name] for name in ("new", "changed", "touched", "unchanged", "reactivated", "images_read", "bytes_read")},
            "reasons": counts["reasons"],
            "missing_words": counts["missing_words"],
            "additional_images": counts["additional_images"],
            "notes": list(source.notes),
            "newly_inactive": vanished,
            "inactive": standing.inactive,
            "largest_group": standing.largest_group,
            "pairs": pairs,
        },
    )


def examine(night: Night, source: Source, location: Location) -> DataFrame:
    """Stage a verdict for every source row in one Spark job. Returns the staged frame (VERDICT).

    The rows are already shuffled by id, so the warehouse's item of the same id is joined where they are.
    """
    spark, warehouse = night.spark, night.warehouse
    judged = with_id_reasons(source.frame, partitions(spark, source))
    known = warehouse.read("catalog_items").select(
        "item_id", F.col("source_fingerprint").alias("known_fingerprint"), F.col("image_hash").alias("known_hash"),
        F.col("image_size").alias("known_size"), F.coalesce("source_hash", "content_hash").alias("known_content"), F.col("is_active").alias("known_active"),
    )  # fmt: skip
    joined = judged.join(known, "item_id", "left").join(_refusals(night), "item_id", "left")

    grounding = policy_of(night.settings.enrich.grounding, night.model_folder)
    examiner, folder = Examiner.of(night.settings, location, grounding), night.staging(STAGE)
    try:
        with job_progress(night, "ingest", source.rows) as done:
            joined.mapInArrow(counted(examiner.batches, done), from_arrow_schema(VERDICT)).write.mode("overwrite").parquet(folder)
    except (PySparkException, Py4JError) as e:
        if ours := reader_error(e):
            raise ours from e
        if "FAILED_READ_FILE" in str(e):
            raise SourceError(f"{night.settings.catalog.path} is damaged: {first_line(e)}", "write it again") from e
        raise
    return spark.read.schema(from_arrow_schema(VERDICT)).parquet(folder)


def _refusals(night: Night) -> DataFrame:
    """The latest verdict of earlier runs on each quarantined input."""
    earlier = night.warehouse.read("quarantine").where((F.col("stage") == STAGE) & (F.col("run_id") != night.run_id))
    last = F.max_by(F.struct("source_fingerprint", "reason", "detail"), "quarantined_at")
    return earlier.groupBy("item_id").agg(last.alias("last")).select(
        "item_id", F.col("last.source_fingerprint").alias("refused_fingerprint"), F.col("last.reason").alias("refused_reason"),
        F.col("last.detail").alias("refused_detail"),
    )  # fmt: skip


def _counts(staged: DataFrame) -> dict[str, Any]:
    """Rows by verdict, and `present`: active items that have a row. From one aggregation."""
    found: list[Row] = (
        staged.groupBy("change", "reason")
        .agg(
            F.count("*").alias("rows"),
            F.sum(F.col("reactivated").cast("long")).alias("reactivated"),
            F.sum((F.col("bytes_read") > 0).cast("long")).alias("images_read"),
            F.sum("bytes_read").alias("bytes_read"),
            F.sum("missing_words").alias("missing_words"),
            F.sum(F.greatest(F.size("additional_images"), F.lit(0))).alias("additional_images"),
            F.count_if(F.col("was_active") & (F.col("occurrence") == 0)).alias("present"),
        )
        .collect()
    )  # at most one row a reason
    counts: dict[str, Any] = {c: sum(r["rows"] for r in found if r["change"] == c) for c in ("new", "changed", "touched", "unchanged")}
    counts["good"] = sum(counts.values())
    for name in ("rows", "reactivated", "images_read", "bytes_read", "missing_words", "additional_images", "present"):
        counts[name] = sum(r[name] or 0 for r in found)
    bad = ((r["reason"], r["rows"]) for r in found if r["reason"])
    counts["reasons"] = dict(sorted(bad, key=lambda pair: (-pair[1], pair[0])))
    return counts


def _standing(night: Night) -> Standing:
    """Counts of the items, from one aggregation."""
    groups = night.warehouse.read("catalog_items").groupBy("group_id").agg(
        F.count_if("is_active").alias("active"), F.count_if(~F.col("is_active")).alias("inactive")
    )  # fmt: skip
    in_group = F.when(F.col("group_id").isNotNull(), F.col("active"))
    [row] = groups.agg(F.sum("active"), F.sum("inactive"), F.max(in_group)).collect()
    return Standing(*(count or 0 for count in row))


def write_quarantine(night: Night, staged: DataFrame, refused: int) -> None:
    """Write this run's `refused` rows in one commit; they replace those of an earlier attempt of the same run."""
    rows = staged.where(F.col("reason").isNotNull()).withColumns({
        "run_id": F.lit(night.run_id), "stage": F.lit(STAGE), "quarantined_at": F.current_timestamp(),
    })  # fmt: skip
    warehouse = night.warehouse
    condition = f"run_id = '{night.run_id}' AND stage = '{STAGE}'"
    if not refused and not warehouse.has_rows("quarantine", {"run_id": night.run_id, "stage": STAGE}):
        return
    rows.select(*warehouse.read("quarantine").columns).write.format("delta").mode("overwrite") \
        .option("replaceWhere", condition).saveAsTable(warehouse.qualified("quarantine"))  # fmt: skip


def upsert_items(night: Night, staged: DataFrame) -> int:
    """MERGE new and changed items; items without a row in the source become inactive. Returns how many became inactive.

    An item whose row was quarantined stays active with its last good version. Unchanged rows are not written again, so the cost of
    the write depends on the changes, not on the size of the catalog. An item that is new or has other content begins without enrichment;
    one of which only other columns differ keeps it.
    """
    warehouse = night.warehouse
    stamp: dict[str, Column] = {"last_seen": F.lit(night.started_at), "last_run_id": F.lit(night.run_id), "is_active": F.lit(True)}
    plain = {"source_hash": F.col("content_hash"), REFINED: F.lit(None).cast("string"), GENERATED: F.lit(None).cast("map<string,string>")}
    snapshot = staged.where("occurrence = 0").withColumns(stamp | plain | {"first_seen": F.lit(night.started_at)})
    columns = [c for c in warehouse.read("catalog_items").columns if c != "first_seen"]
    good, news = "s.reason IS NULL", "(s.change <> 'unchanged' OR s.reactivated)"
    before = last_ingest(night)
    gone = {"is_active": "false"} | ({"last_seen": F.lit(before)} if before else {})
    (
        warehouse.delta("catalog_items").alias("t")
        .merge(snapshot.alias("s"), "t.item_id = s.item_id")
        .whenMatchedUpdate(f"{good} AND s.change = 'unchanged' AND s.reactivated", {c: f"s.{c}" for c in stamp})
        .whenMatchedUpdate(f"{good} AND s.change = 'touched'", {c: f"s.{c}" for c in columns if c not in DERIVED})
        .whenMatchedUpdate(f"{good} AND {news}", {c: f"s.{c}" for c in columns})
        .whenNotMatchedInsert(good, {c: f"s.{c}" for c in (*columns, "first_seen")})
        .whenNotMatchedBySourceUpdate("t.is_active", gone)
        .execute()
    )  # fmt: skip
    metrics = warehouse.delta("catalog_items").history(1).select("operationMetrics").collect()[0][0]
    return int(metrics.get("numTargetRowsNotMatchedBySourceUpdated", 0))


def last_ingest(night: Night) -> datetime | None:
    """Start of the previous run with a finished ingest: items that are missing now were last seen by that run."""
    rows = night.warehouse.rows("pipeline_runs", {"step": (RUN_STEP, STAGE)}, "run_id", "step", "status", "started_at")  # two rows a night
    ingested = {row["run_id"] for row in rows if row["step"] == STAGE and row["status"] == "done"} - {night.run_id}
    return max((row["started_at"] for row in rows if row["step"] == RUN_STEP and row["run_id"] in ingested), default=None)
