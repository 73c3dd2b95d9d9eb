"""Outlines: lists of points in the unit square, x to the right and y downwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[float, float]
Outline = list[Point]


def curve(points: Sequence[Point], closed: bool = True, steps: int = 7) -> Outline:
    """A smooth line through the points (uniform Catmull-Rom spline); cost grows with len(points) * steps."""
    n = len(points)
    out: Outline = []
    for i in range(n if closed else n - 1):
        if closed:
            a, b, c, d = (points[(i + k) % n] for k in (-1, 0, 1, 2))
        else:
            a, b, c, d = points[max(i - 1, 0)], points[i], points[i + 1], points[min(i + 2, n - 1)]
        for k in range(steps):
            t = k / steps
            u, v = t * t, t * t * t
            wa, wb, wc, wd = 2 * u - t - v, 2 - 5 * u + 3 * v, t + 4 * u - 3 * v, v - u
            out.append(((wa * a[0] + wb * b[0] + wc * c[0] + wd * d[0]) / 2, (wa * a[1] + wb * b[1] + wc * c[1] + wd * d[1]) / 2))
    if not closed:
        out.append(points[-1])
    return out


def mirror(right: Sequence[Point], cx: float = 0.5) -> Outline:
    """A symmetric outline from its right half, given from one end to the other as (distance from the axis, y)."""
    return [(cx + dx, y) for dx, y in right] + [(cx - dx, y) for dx, y in reversed(right) if dx]


def arch(right: Sequence[Point], cx: float = 0.5) -> Outline:
    """Like `mirror`, from the left end over the axis to the right end: a handle, a strap."""
    return [(cx - dx, y) for dx, y in reversed(right) if dx] + [(cx + dx, y) for dx, y in right]


def at(point: Point, cx: float, side: int) -> Point:
    """A point given by its distance from the axis, right (side 1) or left (-1) of it."""
    return cx + side * point[0], point[1]


def _round(cx: float, cy: float, rx: float, ry: float, degrees: float) -> Point:
    return cx + rx * math.cos(math.radians(degrees)), cy + ry * math.sin(math.radians(degrees))


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Outline:
    """An ellipse, or the arc of it from start to end in degrees (0 to the right, 90 downwards)."""
    steps = max(8, int(40 * abs(end - start) / 360))
    return [_round(cx, cy, rx, ry, start + (end - start) * k / steps) for k in range(steps + 1)]


def polygon(cx: float, cy: float, r: float, sides: int, turn: float = -90) -> Outline:
    """A regular polygon."""
    return [_round(cx, cy, r, r, turn + 360 * k / sides) for k in range(sides)]


def star(cx: float, cy: float, r: float, points: int, inner: float) -> Outline:
    """A star whose inner corners lie at the share `inner` of r."""
    return [_round(cx, cy, r * inner if k % 2 else r, r * inner if k % 2 else r, -90 + 180 * k / points) for k in range(2 * points)]


def box(x0: float, y0: float, x1: float, y1: float, r: float = 0.0) -> Outline:
    """A rectangle with corners rounded by radius r (cut to half of the shorter side)."""
    x0, x1 = min(x0, x1), max(x0, x1)
    r = min(r, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    if r <= 0:
        return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    corners = ((x1 - r, y0 + r, -90), (x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180))
    return [_round(cx, cy, r, r, a + k * 18) for cx, cy, a in corners for k in range(6)]


def slab(cx: float, half: float, top: float, bottom: float, r: float = 0.0) -> Outline:
    """A box across the axis, half to either side of it."""
    return box(cx - half, top, cx + half, bottom, r)


def tile(cx: float, cy: float, w: float, h: float, r: float = 0.0) -> Outline:
    """A box about its centre, w and h to either side of it."""
    return box(cx - w, cy - h, cx + w, cy + h, r)


def bar(cx: float, half: float, y: float) -> Outline:
    """A level line across the axis."""
    return [(cx - half, y), (cx + half, y)]


def limb(a: Point, b: Point, wa: float, wb: float) -> Outline:
    """A straight tapering bar from a to b, wa and wb wide."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy) or 1.0
    nx, ny = -dy / length / 2, dx / length / 2
    return [(a[0] + nx * wa, a[1] + ny * wa), (b[0] + nx * wb, b[1] + ny * wb), (b[0] - nx * wb, b[1] - ny * wb), (a[0] - nx * wa, a[1] - ny * wa)]


def along(a: Point, b: Point, t: float) -> Point:
    """The point at share t of the way from a to b."""
    return a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t
