"""Charts as inline SVG. Colours come from classes in the page's style sheet, so they follow the light or dark theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup, escape

from tgq.report.data import ENCODER, LABELS, Figure, Histogram, Night, SliceRow

WIDTH = 1040
EMPTY = Markup("")


def counts_bar(parts: Sequence[tuple[str, int]]) -> Markup:
    """Parts of a whole as one bar. Every part that is not zero is visible."""
    total = sum(n for _, n in parts) or 1
    widths = [max(4.0, WIDTH * n / total) if n else 0.0 for _, n in parts]
    scale = WIDTH / (sum(widths) or 1)
    x, out = 0.0, []
    for (name, n), width in zip(parts, widths, strict=True):
        width *= scale
        if n:
            out.append(_tag("rect", _title(f"{name}: {n:,} ({n / total:.1%})"), x=x, y=0, width=max(width - 2, 1), height=22, rx=3, cls=f"part {name}"))
        x += width
    return _svg(WIDTH, 22, out, "source rows by outcome")


def intervals(metrics: Sequence[str], systems: Mapping[str, Mapping[str, Figure]], label: Callable[[str], str]) -> Markup:
    """A row per metric, with a dot and its interval per system."""
    left, row, step = 120, 18 + 11 * len(systems), 11
    height = row * len(metrics) + 34
    x = _percent_scale(left, WIDTH - 20, 0.0, 1.0)
    out = [_tag("rect", x=0, y=m * row, width=WIDTH, height=row, cls="stripe") for m in range(0, len(metrics), 2)]
    out += _percent_axis(x, [i / 10 for i in range(0, 11, 2)], height - 24)
    for m, metric in enumerate(metrics):
        top = m * row
        out.append(_text(left - 14, top + row / 2 + 4, label(metric), "end"))
        for s, (system, figures) in enumerate(systems.items()):
            if metric in figures:
                y = top + (row - step * (len(systems) - 1)) / 2 + step * s
                out += _dot(x, y, figures[metric], system, f"{LABELS.get(system, system)}, {label(metric)}")
    return _svg(WIDTH, height, out, "retrieval metrics with intervals")


def slice_chart(rows: Sequence[SliceRow], systems: Sequence[str]) -> Markup:
    """A row per value of the slice: the encoder as a dot with its interval, the baselines as ticks."""
    left, row = 300, 24
    height = row * len(rows) + 26
    x = _percent_scale(left, WIDTH - 70, 0.0, 1.0)
    out = _percent_axis(x, [i / 4 for i in range(5)], height - 22)
    for r, entry in enumerate(rows):
        y = r * row + row / 2
        shown = entry.value if len(entry.value) <= 44 else "…" + entry.value[-43:]
        out.append(_text(left - 14, y + 4, shown, "end"))
        out.append(_text(WIDTH, y + 4, f"n {entry.n:,}", "end", "faint"))
        for system in systems:
            figure = entry.figures.get(system)
            if figure and system != ENCODER:
                at = x(figure.value)
                tip = f"{LABELS.get(system, system)}, {entry.value}: {figure.value:.1%}"
                out.append(_tag("line", _title(tip), x1=at, x2=at, y1=y - 6, y2=y + 6, cls=f"tick {system}"))
        if ENCODER in entry.figures:
            out += _dot(x, y, entry.figures[ENCODER], ENCODER, entry.value)
    return _svg(WIDTH, height, out, "metric by slice")


def trend(nights: Sequence[Night], series: Sequence[str], label: Callable[[str], str]) -> Markup:
    """Runs from left to right. Published ones are filled, the others hollow."""
    left, right, height, bottom = 52, WIDTH - 150, 240, 206
    values = [v for n in nights for f in n.figures.values() for v in (f.value, f.low, f.high) if v is not None]
    low, high = min(values), max(values)
    pad = max(0.02, 0.15 * (high - low))
    low, high = max(0.0, low - pad), min(1.0, high + pad)

    def y(value: float) -> float:
        return bottom - (bottom - 12) * (value - low) / (high - low)

    def x(n: int) -> float:
        return left + 14 + (right - left - 28) * (n / (len(nights) - 1) if len(nights) > 1 else 0.5)

    out = []
    for i in range(5):
        value = low + (high - low) * i / 4
        out.append(_tag("line", x1=left, x2=right, y1=y(value), y2=y(value), cls="grid"))
        out.append(_text(left - 8, y(value) + 4, f"{100 * value:.0f}", "end", "faint"))
    for s, name in enumerate(series):
        points = [(n, night.figures[name], night) for n, night in enumerate(nights) if name in night.figures]
        if not points:
            continue
        out.append(_tag("path", d="M" + " L".join(f"{x(n):.1f} {y(f.value):.1f}" for n, f, _ in points), cls=f"line series{s}"))
        for n, figure, night in points:
            if figure.low is not None and figure.high is not None:
                out.append(_tag("line", x1=x(n), x2=x(n), y1=y(figure.low), y2=y(figure.high), cls=f"whisker series{s}"))
            tip = f"{night.when:%d %b %Y %H:%M}, {label(name)} {figure.value:.1%}, {'published' if night.published else 'not published'}"
            fill = "" if night.published else " hollow"
            out.append(_tag("circle", _title(tip), cx=x(n), cy=y(figure.value), r=4.5, cls=f"point series{s}{fill}"))
    ends = sorted((y([n.figures[name] for n in nights if name in n.figures][-1].value), s, name)
                  for s, name in enumerate(series) if any(name in n.figures for n in nights))  # fmt: skip
    at = -100.0
    for wanted, s, name in ends:
        at = max(wanted, at + 16)  # labels must not overlap
        out.append(_text(right + 12, at + 4, label(name), "start", f"name series{s}"))
    shown = {0, len(nights) - 1} | set(range(0, len(nights), max(1, len(nights) // 6)))
    last = None
    for n in sorted(shown):
        day = f"{nights[n].when:%d %b}"
        if day != last:
            out.append(_text(x(n), height - 12, day, "middle", "faint"))
        last = day
    return _svg(WIDTH, height, out, "metric by run")


def histogram(figure: Histogram) -> Markup:
    """Bars, with the ends and the middle of the range below."""
    width, height, bottom = 330, 150, 124
    top = max(figure.counts, default=0) or 1
    bar = width / max(1, len(figure.counts))
    step = (figure.high - figure.low) / max(1, len(figure.counts))
    out = []
    for n, count in enumerate(figure.counts):
        tall = (bottom - 6) * count / top
        tip = f"{figure.low + n * step:.2f} to {figure.low + (n + 1) * step:.2f}: {count:,}"
        out.append(_tag("rect", _title(tip), x=n * bar, y=bottom - tall, width=max(bar - 1, 0.5), height=tall, cls="bar"))
    out.append(_tag("line", x1=0, x2=width, y1=bottom, y2=bottom, cls="grid"))
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        out.append(_text(width * share, height - 8, f"{figure.low + share * (figure.high - figure.low):.2f}", anchor, "faint"))
    return _svg(width, height, out, figure.title)


def seconds_bar(seconds: float, longest: float) -> Markup:
    """The duration of a step as a bar, relative to the longest step."""
    width = 220
    bar = _tag("rect", x=0, y=0, width=max(2.0, width * seconds / (longest or 1)), height=10, rx=2, cls="bar")
    return _svg(width, 10, [bar], f"{seconds:.1f} s", fixed=True)


def _dot(x: Callable[[float], float], y: float, figure: Figure, system: str, what: str) -> list[Markup]:
    tip, out = f"{what}: {figure.value:.1%}", []
    if figure.low is not None and figure.high is not None:
        tip += f" [{figure.low:.1%}, {figure.high:.1%}]"
        out.append(_tag("line", x1=x(figure.low), x2=x(figure.high), y1=y, y2=y, cls=f"whisker {system}"))
    out.append(_tag("circle", _title(tip), cx=x(figure.value), cy=y, r=4.5 if system == ENCODER else 3.5, cls=f"point {system}"))
    return out


def _percent_scale(left: float, right: float, low: float, high: float) -> Callable[[float], float]:
    return lambda value: left + (right - left) * (value - low) / (high - low)


def _percent_axis(x: Callable[[float], float], ticks: Sequence[float], bottom: float) -> list[Markup]:
    lines = [_tag("line", x1=x(t), x2=x(t), y1=0, y2=bottom, cls="grid") for t in ticks]
    return lines + [_text(x(t), bottom + 16, f"{100 * t:.0f} %", "middle", "faint") for t in ticks]


def _tag(name: str, inner: Markup = EMPTY, cls: str = "", **attributes: float | str) -> Markup:
    shown = {k: f"{v:.1f}" if isinstance(v, float) else v for k, v in attributes.items()} | ({"class": cls} if cls else {})
    joined = EMPTY.join(Markup(' {}="{}"').format(k, v) for k, v in shown.items())
    return Markup("<{}{}>{}</{}>").format(Markup(name), joined, inner, Markup(name))


def _text(x: float, y: float, text: str, anchor: str, cls: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}</text>').format(x, y, anchor, cls, text)


def _title(text: str) -> Markup:
    return Markup("<title>{}</title>").format(text)


def _svg(width: int, height: float, inner: Sequence[Markup], label: str, fixed: bool = False) -> Markup:
    size = Markup(' width="{}" height="{}"').format(width, int(height)) if fixed else Markup("")
    return Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}"{}>{}</svg>').format(
        width, height, escape(label), size, EMPTY.join(inner)
    )
