"""Renders a Report as an HTML page, from one template."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from tgq.report import charts
from tgq.report.data import ENCODER, LABELS, Figure, Report, Search

ORDER = ("hit_rate", "mrr", "ndcg", "map")
SEARCH_ORDER = ("ndcg", "judged_ndcg", "recall", "mrr", "map", "hit_rate")
NAMES = {"hit_rate": "H", "mrr": "MRR", "ndcg": "NDCG", "judged_ndcg": "judged NDCG", "map": "MAP", "recall": "Recall", "in_category_hit_rate": "in-category H",
         "ann_recall": "ANN recall", "coverage": "coverage"}  # fmt: skip


def render(report: Report) -> str:
    """A self-contained HTML page: no scripts, no requests, pictures as data URIs.

    The template escapes every value, because titles, details and settings come from outside.
    """
    headline, others = headline_metrics(report), other_metrics(report)
    series = list(dict.fromkeys(name for night in report.trend for name in night.figures))
    return _environment().get_template("report.html.j2").render(
        r=report, charts=charts, label=metric_label, labels=LABELS, ENCODER=ENCODER, metrics=headline, others=others,
        searched=search_metrics(report.search) if report.search else [], series=series, longest=max((s.seconds for s in report.steps), default=0.0),
    )  # fmt: skip


@functools.cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("tgq.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals["best_of"] = best_of
    environment.filters |= {"percent": percent, "whole": whole, "metric": metric_label, "duration": duration, "points": points}
    return environment


def headline_metrics(report: Report) -> list[str]:
    """The metrics of the chart that any system has: H@K by K, then MRR, NDCG and MAP."""
    found = {m for figures in report.systems.values() for m in figures}
    return sorted((m for m in found if _parts(m)[0] in ORDER), key=lambda m: (ORDER.index(_parts(m)[0]), _parts(m)[1]))


def other_metrics(report: Report) -> list[str]:
    """Every other overall metric."""
    found = {m for figures in report.systems.values() for m in figures}
    return sorted((m for m in found if _parts(m)[0] not in ORDER), key=_parts)


def search_metrics(search: Search) -> list[str]:
    """The metrics of search queries that any system has, NDCG first."""
    found = {m for figures in search.systems.values() for m in figures}
    return sorted(found, key=lambda m: (SEARCH_ORDER.index(_parts(m)[0]), _parts(m)[1]))


def best_of(systems: Mapping[str, Mapping[str, Figure]], metric: str) -> float:
    """The highest value of a metric that one of the systems has."""
    return max(figures[metric].value for figures in systems.values() if metric in figures)


def picture_uri(image: Image.Image, size: int) -> str:
    """A picture as a small JPEG data URI, at most `size` pixels wide and high."""
    small = image.convert("RGB")
    small.thumbnail((size, size))
    sink = io.BytesIO()
    small.save(sink, "JPEG", quality=82, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(sink.getvalue()).decode()


def metric_label(name: str) -> str:
    """`hit_rate@10` as `H@10`."""
    metric, k = _parts(name)
    return NAMES.get(metric, metric.replace("_", " ")) + (f"@{k}" if k else "")


def percent(figure: Figure | float | None) -> str:
    """A fraction in percent with one decimal; a dash for None."""
    value = figure.value if isinstance(figure, Figure) else figure
    return "–" if value is None else f"{100 * value:.1f}"


def points(figure: Figure) -> str:
    """A difference in percentage points, with sign and interval."""
    interval = f" [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]" if figure.low is not None and figure.high is not None else ""
    return f"{100 * figure.value:+.1f}{interval}"


def whole(value: Any) -> str:
    """A count with thousands separators; empty for None."""
    return "" if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """Seconds as text, e.g. `3.2 s`, `2 min 05 s` or `2 h 01 min`."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _parts(name: str) -> tuple[str, int]:
    metric, _, k = name.partition("@")
    return metric, int(k or 0)
