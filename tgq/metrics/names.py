"""What a row of `retrieval_metrics` is about: its task, its system, and the name that settings, summary and MLflow know its metric by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ITEMS, SEARCH = "item_item", "query_item"  # tasks: an item finds items, a query of a search finds items
QUERY = "query_"  # before the name of a metric of search queries
BM25 = "bm25"
FROZEN = "frozen_"
ENCODER = "encoder"


def task_of(row: Mapping[str, Any]) -> str:
    """The task of a row. Rows of versions that measured one task only have none."""
    return row.get("task") or ITEMS


def metric_key(row: Mapping[str, Any]) -> str:
    """`hit_rate@10`, or `mrr` where there is no cutoff; `query_ndcg@10` of search queries."""
    prefix = QUERY if task_of(row) == SEARCH else ""
    return f"{prefix}{row['metric']}@{row['k']}" if row["k"] else f"{prefix}{row['metric']}"


def is_baseline(model_version: str) -> bool:
    """Whether it is the name of a system beside the encoder."""
    return model_version.startswith(FROZEN) or model_version == BM25


def system_of(model_version: str) -> str:
    """`encoder`, or the name of a baseline."""
    return model_version if is_baseline(model_version) else ENCODER
