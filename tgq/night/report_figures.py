"""The report's figures: metrics, trend, slices, histograms, shards, versions and settings, read from tables by bounded queries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pyspark.sql import functions as F

from tgq.messages import presentable
from tgq.metrics.metrics import ALL
from tgq.metrics.names import BM25, ITEMS, is_baseline, system_of, task_of
from tgq.night.report_examples import neighbors_of
from tgq.report.data import ENCODER, STATUS, Figure, Histogram, SliceRow, Step
from tgq.report.data import Night as TrendNight
from tgq.run.night import RUN_STEP, Night
from tgq.run.records import git_commit
from tgq.settings.load import redacted
from tgq.settings.sections import Settings
from tgq.storage import artifacts

TREND_NIGHTS, SLICE_VALUES, SHARDS = 30, 25, 40
BINS = 40


def run_status(summary: Mapping[str, Any], gate: Mapping[str, Any], steps: Mapping[str, Any]) -> STATUS:
    if summary.get("published"):
        return "published"
    if gate and not gate.get("passed", True):
        return "refused"
    return "failed" if any(s["status"] == "failed" for s in steps.values()) else "not published"


def step_errors(steps: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {step['figures']['error']}" for name, step in steps.items()
            if step["status"] == "failed" and (step.get("figures") or {}).get("error")]  # fmt: skip


def validation_notes(steps: Mapping[str, Any]) -> list[str]:
    warnings = [w for name in ("validate_catalog", "validate_embeddings") for w in (steps.get(name, {}).get("figures") or {}).get("warnings", ())]
    return [f"Validation: {w}" for w in warnings]


def enrichment_notes(steps: Mapping[str, Any]) -> list[str]:
    """What the enrich step did, and how many items and attributes it could not help."""
    figures = steps.get("enrich", {}).get("figures") or {}
    text, attributes = figures.get("text"), figures.get("attributes")
    notes = [_title_note(text)] if text and text.get("refiner") != "none" else []
    return [*notes, *([_attribute_note(attributes)] if attributes and attributes.get("source") != "none" else [])]


def _title_note(text: Mapping[str, Any]) -> str:
    left = text["refused"] + text["failed"] + text["waiting"]
    kept = f"; {left:,} keep their own although they were to be refined ({_reasons(text)})" if left else ""
    return f"Enrichment: the encoder reads refined titles of {text['applied']:,} of {text['active']:,} items{kept}{_spent(text)}"


def _attribute_note(found: Mapping[str, Any]) -> str:
    keys = ", ".join(f"{key} {n:,}" for key, n in found["by_key"].items())
    said = f" ({keys})" if keys else ""
    silent = f"; not sure enough of {found['silent']:,}" if found["silent"] else ""
    left = f"; not used: {_reasons(found)}" if found["reasons"] or found["waiting"] else ""
    return f"Enrichment: {found['said']:,} generated attributes of {found['applied']:,} of {found['active']:,} items{said}{silent}{left}{_spent(found)}"


def _reasons(found: Mapping[str, Any]) -> str:
    reasons = [f"{reason.replace('.', ': ').replace('_', ' ')} {n:,}" for reason, n in found["reasons"].items()]
    return ", ".join([*reasons, *([f"not asked yet {found['waiting']:,}"] if found["waiting"] else [])])


def _spent(found: Mapping[str, Any]) -> str:
    return f"; this run spent {found['tokens']:,} tokens" if found["tokens"] else ""


def step_row(name: str, step: Mapping[str, Any]) -> Step:
    counts = {c: step.get(c) for c in ("rows_in", "embedded", "unchanged", "quarantined", "inactive")}
    return Step(name, step["status"], float(step.get("seconds") or 0.0), **counts)


def _figure(row: Mapping[str, Any]) -> Figure:
    return Figure(row["value"], row["ci_low"], row["ci_high"], row["n_queries"] if "n_queries" in row else None)


def systems_of(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Figure]]:
    order = (ENCODER, "frozen_concat", "frozen_image", "frozen_text", BM25)
    found = sorted(metrics, key=lambda s: order.index(s) if s in order else len(order))
    return {system: {name: _figure(figure) for name, figure in metrics[system].items()} for system in found}


def headline_metric(settings: Settings) -> str:
    ks = settings.evaluate.ks
    return f"hit_rate@{10 if 10 in ks else sorted(ks)[len(ks) // 2]}"


def baseline_differences(steps: Mapping[str, Any], headline: str) -> dict[str, Figure]:
    """Encoder minus baseline on the same queries, as the evaluate step measured it."""
    metric, _, k = headline.partition("@")
    rows = (steps.get("evaluate", {}).get("figures") or {}).get("differences") or ()
    return {row["baseline"]: _figure(row) for row in rows if row["metric"] == metric and row["k"] == int(k)}


def slice_rows(night: Night, headline: str, task: str = ITEMS) -> dict[str, list[SliceRow]]:
    """The headline metric of a task by slice column: those values with most queries, for every system. Cost: this run's rows of the metric."""
    metric, _, k = headline.partition("@")
    columns: dict[str, dict[str, dict[str, Figure]]] = {}
    for row in night.warehouse.rows("retrieval_metrics", {"run_id": night.run_id, "metric": metric, "k": int(k)}):
        if task_of(row) == task and row["slice"] != ALL:
            column, _, value = row["slice"].partition("=")
            columns.setdefault(column, {}).setdefault(value, {})[system_of(row["model_version"])] = _figure(row)
    out = {}
    for column in sorted(columns, key=lambda c: (c != "category", c)):
        made = [SliceRow(value, max(f.n or 0 for f in figures.values()), figures) for value, figures in columns[column].items()]
        made = sorted(made, key=lambda r: (-r.n, r.value))[:SLICE_VALUES]
        by_size = column == "category" or not all(_is_number(r.value) for r in made)
        out[column] = made if by_size else sorted(made, key=lambda r: float(r.value))
    return out


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def nightly_trend(night: Night, headline: str, published: bool) -> list[TrendNight]:
    """The headline, MRR and NDCG@10 of the last nights, oldest first, up to this one."""
    metric, _, k = headline.partition("@")
    shown = {headline: (metric, int(k)), "mrr": ("mrr", 0), "ndcg@10": ("ndcg", 10)}
    of_metrics = {"slice": "all", "metric": [name for name, _ in shown.values()]}
    figures: dict[str, dict[tuple[str, int], Figure]] = {}
    for row in night.warehouse.rows("retrieval_metrics", of_metrics):
        if not is_baseline(row["model_version"]) and task_of(row) == ITEMS:
            figures.setdefault(row["run_id"], {})[row["metric"], row["k"]] = _figure(row)
    # a few rows a night
    rows = night.warehouse.rows("pipeline_runs", {"step": (RUN_STEP, "publish")}, "run_id", "step", "status", "started_at")
    done = {row["run_id"] for row in rows if row["step"] == "publish" and row["status"] == "done"} - {night.run_id}
    done |= {night.run_id} if published else set()
    until = night.started_at + timedelta(seconds=1)
    runs = sorted((r["started_at"], r["run_id"]) for r in rows if r["step"] == RUN_STEP and r["started_at"] <= until and r["run_id"] in figures)
    return [
        TrendNight(run_id, at, run_id in done, {name: figures[run_id][of] for name, of in shown.items() if of in figures[run_id]})
        for at, run_id in runs[-TREND_NIGHTS:]
    ]


def value_histograms(night: Night, model_version: str | None) -> list[Histogram]:
    """Histograms of agreement, gates, and the similarity of each item's nearest neighbour, over the active items. Two aggregations."""
    parts = [
        ("agreement", "Image–title agreement", "cosine of picture and title", -1.0, 1.0),
        ("gate_metadata", "Metadata gate", "mean factor; 1 is neutral", 0.0, 2.0),
        ("gate_exploratory", "Exploratory gate", "mean factor; 1 is neutral", 0.0, 2.0),
        ("score", "Nearest neighbour", "cosine of each item and its nearest neighbour", -1.0, 1.0),
    ]  # fmt: skip
    if model_version is None:
        model_version = ""
    items = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    embeddings = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version).join(items, "item_id", "left_semi")
    nearest = neighbors_of(night).where("rank = 1").select(F.lit("score").alias("name"), F.col("score").alias("value"))
    values = embeddings.selectExpr("stack(3, 'agreement', agreement, 'gate_metadata', gate_metadata, 'gate_exploratory', gate_exploratory) AS (name, value)")
    low = F.when(F.col("name").startswith("gate"), 0.0).otherwise(-1.0)
    fine = 5 * BINS  # finer than shown: the empty ends are cut off below
    binned = values.union(nearest).where("value IS NOT NULL AND NOT isnan(value)").groupBy(
        "name", F.least(F.greatest(F.floor((F.col("value") - low) / 2.0 * fine), F.lit(0)), F.lit(fine - 1)).alias("bin")
    ).count().collect()  # fmt: skip
    out = []
    for name, title, note, start, end in parts:
        counts = {row["bin"]: row["count"] for row in binned if row["name"] == name}
        if counts:
            first, last = min(counts), max(counts) + 1
            wide = max(1, -(-(last - first) // BINS))  # fine bins per bar
            bars = -(-(last - first) // wide)
            width = (end - start) / fine
            shown = [sum(counts.get(first + b * wide + i, 0) for i in range(wide)) for b in range(bars)]
            out.append(Histogram(title, note, start + first * width, start + (first + bars * wide) * width, shown))
    return out


def largest_shards(night: Night, steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The run's shards, largest first: the staged ones, or those of the generation that it published."""
    staged = night.staging("index", "manifest.json")
    if artifacts.exists(staged):
        rows = [{**s, "recall": s["recall_at_k"]} for s in artifacts.read_json(staged)["shards"]]
    else:
        generation = (steps.get("publish", {}).get("figures") or {}).get("generation") or ""
        found = night.warehouse.read("index_shards").where(F.col("generation") == generation).orderBy(F.desc("n_items")).limit(10_000)
        rows = [{**row.asDict(), "recall": row["recall_at_k"]} for row in found.collect()]
    return sorted(rows, key=lambda s: (-s["n_items"], s["category"], s["shard"]))


def table_versions(steps: Mapping[str, Any]) -> list[tuple[str, int | None, int | None]]:
    """(table, version that the first step read, version that the last step wrote)."""
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    for step in steps.values():
        read = dict(step.get("versions_read") or {}) | read
        written |= step.get("versions_written") or {}
    return [(name, read.get(name), written.get(name)) for name in sorted(read.keys() | written.keys())]


def run_facts(night: Night, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    figures = [f for system in (summary.get("metrics") or {}).values() for f in system.values()]
    pool = max((f.get("pool_size") or 0 for f in figures), default=0)
    queries = max((f.get("n_queries") or 0 for f in figures), default=0)
    searches = max((f["n_queries"] or 0 for system in (summary.get("query_metrics") or {}).values() for f in system.values()), default=0)
    facts = [
        ("catalog", night.settings.catalog.path), ("warehouse", night.warehouse.root), ("model version", summary.get("model_version")),
        ("encoder", night.settings.encoder.path), ("pool", f"{pool:,} items" if pool else None), ("queries", f"{queries:,}" if queries else None),
        ("search queries", f"{searches:,}" if searches else None),
        ("MLflow run", summary.get("mlflow_run")), ("manifest", summary.get("manifest")), ("git commit", git_commit()),
    ]  # fmt: skip
    return [(name, presentable(str(value))) for name, value in facts if value]


def changed_settings(settings: Settings) -> list[tuple[str, str, str]]:
    """Settings that differ from the defaults. `encoder.path` is left out, because `run_facts` has it."""
    default, chosen = redacted(Settings()), redacted(settings)
    keys = sorted(k for k in chosen if k != "encoder.path" and chosen[k] != default.get(k) and not (isinstance(chosen[k], dict) and not chosen[k]))
    return [(k, json.dumps(chosen[k], ensure_ascii=False), json.dumps(default.get(k), ensure_ascii=False)) for k in keys]
