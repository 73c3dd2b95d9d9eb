"""The tables that the commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from tgq.messages import presentable

if TYPE_CHECKING:
    from tgq.attributes.calibration import KeyFigures
    from tgq.registry.champion import History, Promotion


def table(title: str, columns: list[str], rows: list[list[Any]], numeric_from: int = 1) -> Table:
    """A rich table; columns from `numeric_from` on are right-aligned. Cells are printed as they stand, in one line; a Text may have several."""
    out = Table(title=Text(presentable(title)), title_justify="left", header_style="bold")
    for n, column in enumerate(columns):
        out.add_column(Text(presentable(column)), justify="right" if n >= numeric_from else "left", overflow="fold", no_wrap=numeric_from == 1)
    for row in rows:
        out.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else presentable(str(cell))) for cell in row))
    return out


def steps_table(summary: Mapping[str, Any]) -> Table:
    """A row per step: status, seconds, rows in, embedded, unchanged, quarantined, inactive."""
    names = ("rows_in", "embedded", "unchanged", "quarantined", "inactive")
    rows = [
        [step, s["status"], f"{s['seconds']:.1f}", *(s.get(name) for name in names)] for step, s in summary["steps"].items()
    ]
    return table(f"Run {summary['run_id']}", ["step", "status", "seconds", *(n.replace("_", " ") for n in names)], rows)


def promotion_table(found: Mapping[str, Any]) -> Table:
    """Candidate and champion by slice and metric, in percent; their difference with its interval, in percentage points."""

    def points(x: float) -> str:
        return f"{100 * x:+.2f}"

    rows = [
        [d["slice"], d["metric"], f"{100 * d['candidate']:.2f}", f"{100 * d['champion']:.2f}",
         f"{points(d['difference'])} [{points(d['ci_low'])}, {points(d['ci_high'])}]", d["n_queries"], "worse" if d["worse"] else ""]
        for d in found["differences"]
    ]  # fmt: skip
    title = "Candidate {} against champion {}, %".format(*found["names"])
    return table(title, ["slice", "metric", "candidate", "champion", "difference [interval]", "queries", ""], rows, numeric_from=2)


def models_table(history: History) -> Table:
    """The promotions, newest first, then the bundled encoder. `*` marks the champion. A model with a query tower has both versions."""

    def shown(figures: Mapping[str, Any]) -> Text | None:
        by = {d["metric"]: d for d in figures["differences"]}
        names = {"mrr": "MRR", "query_ndcg@10": "NDCG@10 of searches"}
        lines = [
            f"{name} {100 * by[metric]['difference']:+.2f} [{100 * by[metric]['ci_low']:+.2f}, {100 * by[metric]['ci_high']:+.2f}]"
            for metric, name in names.items() if metric in by
        ]  # fmt: skip
        return Text("\n".join(lines)) if lines else None

    def mark(promotion: Promotion | None) -> str:
        return "* " if promotion is history.champion else "  "

    rows = [
        [mark(p) + p.name, p.promoted_at, p.previous, "forced" if p.forced else "", shown(p.figures), p.rolled_back_at]
        for p in reversed(history.promotions)
    ]  # fmt: skip
    rows.append([mark(None) + "default (bundled)", *[None] * 5])
    return table("Models", ["model", "promoted", "replaced", "", "difference at promotion, points", "rolled back"], rows, numeric_from=99)


def attribute_table(figures: Sequence[KeyFigures], values: Mapping[str, int]) -> Table:
    """A row per key: values in the vocabulary, items that state it, and in percent how many most likely values are right, said, and right if said."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.1f}"

    rows = [[f.key, values[f.key], f.items, *map(percent, (f.accuracy, f.coverage, f.precision))] for f in figures]
    return table("Items of groups that were left out, %", ["attribute", "values", "items", "right", "said", "right if said"], rows)


def robustness_tables(report: Mapping[str, Any]) -> list[Table]:
    """Two tables with a row per nuisance, in percent: how often clean and disturbed queries find a relevant item, and how often
    they find the item itself. The first is left out if no item has relevance pairs."""

    def cells(figure: Mapping[str, float]) -> list[str]:
        low, high = (100 * figure[bound] for bound in ("ci_low", "ci_high"))
        return [f"{100 * figure['clean']:.1f}", f"{100 * figure['noisy']:.1f}", f"{100 * figure['drop']:.1f} [{low:.1f}, {high:.1f}]"]

    heads = [f"{name}@{k}" for k in (10, 1) for name in ("clean", "noisy", "drop")]
    kinds = {"hit_rate": ("queries", "Hit rate"), "finds_itself": ("items", "Finds itself")}
    tables = []
    for kind, (count, title) in kinds.items():
        rows = []
        for name, figures in report["nuisances"].items():
            if figures[count]:
                near = figures["cosine"]
                cosine = f"{near['mean']:.3f} [{near['ci_low']:.3f}, {near['ci_high']:.3f}]"
                rows.append([name, figures[count], cosine, *cells(figures[f"{kind}@10"]), *cells(figures[f"{kind}@1"])])
            elif kind == "finds_itself":
                rows.append([name, 0, *["-"] * 7])
        if rows:
            tables.append(table(f"{title}, full pool, % [interval]", ["nuisance", count, "cosine to clean", *heads], rows))
    return tables


def metrics_table(title: str, metrics: Mapping[str, Mapping[str, Any]]) -> Table:
    """The overall metrics of the encoder and the baselines, in percent with intervals."""

    def cell(figure: Mapping[str, Any] | None) -> str:
        if not figure:
            return "-"
        value = f"{100 * figure['value']:.1f}"
        low, high = figure.get("ci_low"), figure.get("ci_high")
        return f"{value} [{100 * low:.1f}, {100 * high:.1f}]" if low is not None and high is not None else value

    systems = list(metrics)
    names = list(dict.fromkeys(name for system in systems for name in metrics[system]))
    return table(f"{title}, full pool, % [interval]", ["metric", *systems], [[n, *(cell(metrics[s].get(n)) for s in systems)] for n in names])
