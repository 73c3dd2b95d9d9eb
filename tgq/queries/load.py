"""Writes `relevance_queries` and `query_judgments` from the staged files, if anything in them changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tgq.catalog.enriched import ingested_version
from tgq.errors import SourceError
from tgq.queries.click_log import fitted, graded, searches, summed
from tgq.queries.inputs import CLICKS, FORMAT, JUDGMENTS, QUERIES, Inputs
from tgq.queries.quarantine import carry_quarantine, write_quarantine
from tgq.queries.rows import JUDGMENT, QUERY, Rows, kept_judgments, kept_queries, with_clicks
from tgq.queries.staging import Counts, counts_of, refused, shown, stage, staged
from tgq.queries.verdicts import known_judgments
from tgq.run.night import Night

TABLES = ("relevance_queries", "query_judgments")
RANKS_SHOWN = 20  # in the figures


@dataclass(frozen=True)
class Last:
    """The last ingest that was done: its run, and what `load` returned there; {} if it had no queries."""

    run_id: str
    figures: Mapping[str, Any]


def last_load(night: Night) -> Last:
    """The record of the last ingest that was done, of this run or an earlier one."""
    rows = night.warehouse.rows("pipeline_runs", {"step": "ingest", "status": "done"}, "run_id", "started_at", "detail")  # a row a night
    last = max(rows, key=lambda row: row["started_at"], default=None)
    return Last(last["run_id"], json.loads(last["detail"]).get("queries") or {}) if last else Last("", {})


def prepare(night: Night, inputs: Inputs, last: Last) -> bool:
    """Stage the files, unless the last ingest has read the same ones under the same settings. Returns whether they were staged.

    Raises:
        SourceError: no row of a file can be used.
    """
    if last.figures.get("files") == inputs.fingerprint:
        return False
    stage(night, inputs)
    return True


def load(night: Night, inputs: Inputs, last: Last, prepared: bool) -> dict[str, Any]:
    """Write both tables and the quarantine, each in one commit; a table whose rows are those it has is not written.

    With the files, settings and items of the last ingest nothing is read: its figures and its quarantine stand for this run too.

    Returns:
        `queries`, `train`, `test` and `judgments` as in the tables; `rows` and `repeated` by kind of file; `quarantined` by
        '<kind>.<reason>'; `clicks` of a click log. `files`, `items` and `keys` are what the next run compares.

    Raises:
        SourceError: no judgment, or no grade of the click log, is about an item of the catalog.
    """
    warehouse = night.warehouse
    known = {"files": inputs.fingerprint, "items": ingested_version(warehouse)}
    if known.items() <= last.figures.items() and last.figures["keys"] == [warehouse.note_of(table) for table in TABLES]:
        carry_quarantine(night, last.run_id)
        return dict(last.figures)
    if not prepared:
        stage(night, inputs)
    items = warehouse.read("catalog_items").where("is_active").select("item_id")
    verdicts = {kind: staged(night, kind) for kind in inputs.found}
    rows = Rows(warehouse.read(TABLES[0]).limit(0).select(*QUERY), warehouse.read(TABLES[1]).limit(0).select(*JUDGMENT))
    if QUERIES in verdicts:
        rows = rows._replace(queries=kept_queries(verdicts[QUERIES]))
    if JUDGMENTS in verdicts:
        verdicts[JUDGMENTS] = known_judgments(verdicts[JUDGMENTS], rows.queries, items)
        rows = rows._replace(judgments=kept_judgments(verdicts[JUDGMENTS]))
    counts = {kind: counts_of(frame) for kind, frame in verdicts.items()}
    write_quarantine(night, *(refused(verdicts[kind], kind) for kind in counts if shown(counts[kind])))
    if JUDGMENTS in verdicts and not counts[JUDGMENTS].get(""):
        raise _unknown(night, inputs.found[JUDGMENTS].path, verdicts[JUDGMENTS], counts[JUDGMENTS])
    clicks: dict[str, Any] = {}
    if CLICKS in verdicts:
        rows, clicks["clicks"] = _with_clicks(night, inputs.found[CLICKS].path, verdicts[CLICKS], rows, items)
    figures = _counted(night, counts) | {"keys": []} | clicks | known
    for table, frame in zip(TABLES, rows, strict=True):
        figures |= _write(night, frame, table, figures["keys"])
    judged = figures.pop(JUDGMENTS, 0)
    repeated = {QUERIES: verdicts[QUERIES].where("repeated").count()} if QUERIES in verdicts else {}
    figures["repeated"] = repeated | ({JUDGMENTS: counts[JUDGMENTS][""] - judged} if JUDGMENTS in counts else {})
    figures["judgments"] = judged + figures.pop(CLICKS + "_pairs", 0)
    night.progress.say(f"{figures['queries']} queries ({figures['train']} train, {figures['test']} test) with {figures['judgments']} judgments")
    return figures


def _counted(night: Night, counts: Mapping[str, Counts]) -> dict[str, Any]:
    """Rows by kind of file, and those quarantined by kind and reason; what was refused is said."""
    rows = {kind: sum(found.values()) for kind, found in counts.items()}
    for kind, found in counts.items():
        if bad := shown(found):
            night.progress.say(f"{kind}: {rows[kind] - found.get('', 0)} of {rows[kind]} rows are in quarantine ({bad})")
    return {"rows": rows, "quarantined": {f"{kind}.{reason}": n for kind, found in counts.items() for reason, n in found.items() if reason}}


def _with_clicks(night: Night, path: str, verdicts: DataFrame, people: Rows, items: DataFrame) -> tuple[Rows, dict[str, Any]]:
    """The rows with those of the click log, and figures of its pairs of query and item."""
    settings, place = night.settings.queries, night.staging("queries", "pairs")
    summed(verdicts.where("reason IS NULL")).write.mode("overwrite").parquet(place)
    pairs = night.spark.read.parquet(place)
    model = fitted(pairs, settings.clicks)
    if not model.rate:
        raise SourceError(f"the click log {path} has no click", "check the column that queries.clicks.clicked names")
    found = graded(pairs, model, settings.clicks).join(items.withColumn("known", F.lit(True)), "item_id", "left")
    enough, known = F.col("grade").isNotNull(), F.col("known").isNotNull()
    counted = {"pairs": F.lit(True), "graded": enough & known, "too_few_examined": ~enough, "unknown_item": enough & ~known}
    figures: dict[str, Any] = found.agg(*(F.count_if(condition).alias(name) for name, condition in counted.items())).collect()[0].asDict()
    if not figures["graded"]:
        raise SourceError(
            f"none of the {figures['pairs']} pairs of query and item in {path} gets a grade ({figures['too_few_examined']} are examined too seldom, "
            f"{figures['unknown_item']} name no active item)", "lower queries.clicks.min_examined, or check queries.clicks.item_id",
        )  # fmt: skip
    rows = with_clicks(people, found.where(enough & known).drop("known"), searches(pairs), settings.test_share)
    return rows, figures | {"examination": list(model.examination[:RANKS_SHOWN]), "rate": model.rate}


def _write(night: Night, frame: DataFrame, table: str, keys: list[str]) -> dict[str, int]:
    """Write a table if its rows differ from those it has, and append the key of its rows to `keys`. Returns counts of its rows."""
    if table == TABLES[0]:
        counted = {"queries": F.lit(True), "train": F.col("split") == "train", "test": F.col("split") == "test"}
    else:
        counted = {JUDGMENTS: F.col("source") == JUDGMENTS, CLICKS + "_pairs": F.col("source") == CLICKS}
    content = F.coalesce(F.bit_xor(F.xxhash64(*frame.columns)), F.lit(0).cast("long"))
    counts = frame.agg(content.alias("key"), *(F.count_if(condition).alias(name) for name, condition in counted.items())).collect()[0].asDict()
    key = ":".join(str(part) for part in (FORMAT, counts.pop("key"), *counts.values()))
    warehouse = night.warehouse
    if warehouse.note_of(table) != key:
        warehouse.overwrite(frame.withColumn("run_id", F.lit(night.run_id)).select(*warehouse.read(table).columns), table, key)
    keys.append(key)
    return counts


def _unknown(night: Night, path: str, verdicts: DataFrame, counts: Counts) -> SourceError:
    """Why no judgment can be used though rows of the file alone could."""
    rows, reason = sum(counts.values()), next(reason for reason in counts if reason in ("unknown_item", "unknown_query"))
    if reason == "unknown_item":
        column, what, ours = "item_id", "an item of the catalog", night.warehouse.read("catalog_items").where("is_active")
    else:
        column, what, ours = "query_id", "a query of queries.path", staged(night, QUERIES).where("reason IS NULL")
    examples = [frame.agg(F.min(column)).collect()[0][0] for frame in (verdicts.where(F.col("reason") == reason), ours)]
    return SourceError(
        f"none of the {rows} judgments of {path} is about {what} ({shown(counts)}); they name '{examples[0]}', where there is '{examples[1]}'",
        f"check queries.judgment_columns.{column}, and that both files belong together",
    )
