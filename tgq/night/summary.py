"""The figures of a run, read from the tables: the same for one process and for a process per step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tgq.errors import AccountingError
from tgq.metrics.names import ITEMS, SEARCH, is_baseline, metric_key, system_of, task_of
from tgq.run.night import RUN_STEP, Night


def summary_of(night: Night) -> dict[str, Any]:
    """The figures of a run, as `--summary` writes them. One entry per step and overall metric, so its size does not grow with the catalog."""
    recorded = night.warehouse.rows("pipeline_runs", {"run_id": night.run_id})
    steps: dict[str, dict[str, Any]] = {}
    for row in sorted((row for row in recorded if row["step"] != RUN_STEP), key=lambda row: row["started_at"]):
        detail = json.loads(row["detail"])
        steps[row["step"]] = {
            "status": row["status"], "seconds": detail.pop("seconds", None), "rows_in": row["rows_in"],
            "embedded": detail.pop("embedded", None), "unchanged": row["rows_skipped"], "quarantined": row["rows_quarantined"],
            "inactive": detail.pop("inactive", None), "versions_read": row["versions_read"],
            "versions_written": row["versions_written"], "figures": detail,
        }  # fmt: skip
    about_pictures = {name: found for name in ("grounding", "duplicates") if (found := steps.get("embed", {}).get("figures", {}).get(name))}
    gate, measured = steps.get("evaluate", {}).get("figures", {}).get("gate"), metrics_of(night)
    return {
        "run_id": night.run_id,
        "model_version": steps.get("embed", {}).get("figures", {}).get("model_version"),
        "published": steps.get("publish", {}).get("status") == "done",
        "gate": gate,
        "rows": totals(steps),
        **about_pictures,
        "steps": steps,
        "metrics": measured[ITEMS],
        "query_metrics": measured[SEARCH],
        "manifest": steps.get("publish", {}).get("figures", {}).get("manifest"),
    }


def totals(steps: Mapping[str, Mapping[str, Any]]) -> dict[str, int | None] | None:
    """Source rows by outcome (in = embedded + unchanged + quarantined), or None before ingest and embed are done."""
    if any(steps.get(name, {}).get("status") != "done" for name in ("ingest", "embed")):
        return None
    ingest, snapshot = steps["ingest"], steps["embed"]["figures"]["snapshot"]
    return {
        "in": ingest["rows_in"],
        "embedded": snapshot["embedded"],
        "unchanged": snapshot["unchanged"],
        "quarantined": ingest["quarantined"] + snapshot["quarantined"],
        "inactive": ingest["inactive"],
    }


def check_accounting(summary: Mapping[str, Any]) -> None:
    """Check that every source row has an outcome.

    Raises:
        AccountingError: the number of rows read differs from embedded + unchanged + quarantined.
    """
    rows = summary["rows"]
    if rows and rows["in"] != rows["embedded"] + rows["unchanged"] + rows["quarantined"]:
        raise AccountingError(
            f"{rows['in']} rows in, but {rows['embedded']} embedded + {rows['unchanged']} unchanged + {rows['quarantined']} quarantined",
            "keep the warehouse for inspection and run the night again",
        )


def metrics_of(night: Night) -> dict[str, dict[str, dict[str, Any]]]:
    """The overall metrics of a run by task: system (`encoder`, `frozen_image`, ...) -> metric -> value, interval and counts.

    Metrics are named as for the gate: `hit_rate@10` of items, `query_ndcg@10` of search queries.
    """
    rows = night.warehouse.rows("retrieval_metrics", {"run_id": night.run_id, "slice": "all"})
    tasks: dict[str, dict[str, dict[str, Any]]] = {ITEMS: {}, SEARCH: {}}
    names = ("hit_rate", "mrr", "ndcg", "judged_ndcg", "map", "recall", "in_category_hit_rate", "ann_recall", "coverage")
    order = {name: n for n, name in enumerate(names)}
    for row in sorted(rows, key=lambda r: (is_baseline(r["model_version"]), r["model_version"], order.get(r["metric"], 99), r["k"])):
        systems = tasks[task_of(row)].setdefault(system_of(row["model_version"]), {})
        systems[metric_key(row)] = {c: row[c] for c in ("value", "ci_low", "ci_high", "n_queries", "pool_size")}
    return tasks
