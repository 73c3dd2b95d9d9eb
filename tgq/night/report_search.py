"""The report's section on search queries: figures beside the baselines, slices, and the queries that are answered best and worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tgq.evaluation.carrying import search_examples
from tgq.metrics.names import QUERY, SEARCH, metric_key
from tgq.night.report_examples import Pictures, cards_of, marked
from tgq.night.report_figures import slice_rows, systems_of
from tgq.report.data import Card, Figure, Strip, StripGroup
from tgq.report.data import Search as Section
from tgq.run.night import Night

HEADLINE = "ndcg@10"
GROUPS = {
    "best": ("Best queries", "The queries with the highest NDCG@10. On the left the item that was judged best; relevant items have a green frame, and "
             "items that nobody judged have none."),
    "worst": ("Worst queries", "The queries with the lowest NDCG@10."),
}  # fmt: skip


def search_section(night: Night, summary: Mapping[str, Any], pictures: Pictures) -> Section | None:
    """The section; None for a night without search queries."""
    measured = summary.get("query_metrics") or {}
    if not measured:
        return None
    systems = {system: {name.removeprefix(QUERY): figure for name, figure in figures.items()} for system, figures in systems_of(measured).items()}
    return Section(systems, HEADLINE, differences(summary), slice_rows(night, HEADLINE, SEARCH), strips(night, pictures))


def differences(summary: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """Encoder minus baseline on the same queries, by baseline and metric."""
    figures = (summary["steps"].get("evaluate", {}).get("figures") or {}).get("search") or {}
    out: dict[str, dict[str, Figure]] = {}
    for row in figures.get("differences", ()):
        out.setdefault(row["baseline"], {})[metric_key(row)] = Figure(row["value"], row["ci_low"], row["ci_high"])
    return out


def strips(night: Night, pictures: Pictures) -> list[StripGroup]:
    """The example queries that the evaluation kept, with the pictures of their best judged item and of what was found."""
    examples = search_examples(night)
    cards = cards_of(night, {i for example in examples for i in (example["best_item"], *example["item_ids"])}, pictures)

    def strip(example: Mapping[str, Any]) -> Strip:
        best = cards.get(example["best_item"], Card(example["best_item"]))
        query = Card(best.item_id, example["text"], f"NDCG@10 {example['ndcg']:.2f}; best: {best.title}", best.picture)
        found = zip(example["item_ids"], example["scores"], example["marks"], strict=True)
        return Strip(query, [marked(cards, item_id, score, mark) for item_id, score, mark in found])

    return [StripGroup(title, note, [strip(e) for e in examples if e["choice"] == choice]) for choice, (title, note) in GROUPS.items()]
