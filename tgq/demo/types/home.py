"""Decoration."""

from __future__ import annotations

import math

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, polygon, profile
from tgq.demo.products import CLOTH, product


@product("Home > Decoration > Vases", ("Vase", "Flower Vase", "Decorative Vase"),
    ("ceramic", "porcelain", "terracotta", "glass"), (12, 120), patterns=CLOTH, weight=1.5)
def vase(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.2, 0.36), 0.95
    lip, neck = s.num("lip", 0.06, 0.16), s.num("neck", 0.035, 0.1)
    belly, at, foot = s.num("belly", 0.14, 0.27), s.num("belly at", 0.4, 0.8), s.num("foot", 0.07, 0.15)
    tall = bottom - top
    if s.chance("flowers", 0.45):
        n = s.count("stems", 2, 5)
        for k in range(n):
            x = 0.5 + (k - (n - 1) / 2) * 0.09
            y = top - s.num(f"stem {k}", 0.06, 0.16)
            c.line(curve([(0.5, top + 0.02), ((0.5 + x) / 2, (y + top) / 2), (x, y)], closed=False), 0.01,
                (78, 128, 66))
            petals = s.pick("flower", ((236, 120, 140), (244, 206, 84), (232, 230, 240), (176, 120, 200),
                (226, 90, 60)))
            for q in range(6):
                c.part(ellipse(x + 0.03 * math.cos(q * 1.05), y + 0.03 * math.sin(q * 1.05), 0.024, 0.024),
                    petals, "none", edge=0.15)
            c.part(ellipse(x, y, 0.018, 0.018), (250, 226, 120), "none")
    if s.trait("handles", ("none", "two handles", "none")) == "two handles":
        for side in (-1, 1):
            c.tube(curve([(0.5 + side * neck, top + tall * 0.1), (0.5 + side * (belly + 0.05),
                top + tall * 0.12), (0.5 + side * (belly + 0.04), top + tall * 0.35),
                (0.5 + side * belly * 0.85, top + tall * (at - 0.05))], closed=False), 0.032, "plain")
    c.part(profile([(lip, top), (neck, top + tall * s.num("neck at", 0.1, 0.25)), (belly, top + tall * at),
        (foot, bottom)]), "main", "round")
    c.part(ellipse(0.5, top, lip, 0.022), "pale", "flat")
    c.part(ellipse(0.5, top + 0.003, lip - 0.014, 0.013), "deep", "hollow")
    for k in range(s.count("bands", 0, 2)):
        y = top + tall * (at + 0.08 * k)
        c.line([(0.5 - belly * 0.97, y), (0.5 + belly * 0.97, y)], 0.02, "second")
    c.mark(0.5, top + tall * min(at + 0.02, 0.72), 0.08)


@product("Home > Decoration > Clocks", ("Wall Clock", "Clock", "Kitchen Clock"),
    ("wood", "plastic", "metal", "oak"), (12, 89), stance="lies", weight=1.2)
def clock(c: Canvas, s: Shape) -> None:
    r, sides = 0.42, {"round": 0, "square": 4, "hexagonal": 6, "sunburst": 0}
    kind = s.trait("shape", tuple(sides))
    if kind == "sunburst":
        n = s.count("rays", 12, 24)
        for k in range(n):
            a = 2 * math.pi * k / n
            q = r * (1.08 if k % 2 else s.num("short ray", 0.85, 1.05))
            c.tube([(0.5 + r * 0.5 * math.cos(a), 0.5 + r * 0.5 * math.sin(a)),
                (0.5 + q * math.cos(a), 0.5 + q * math.sin(a))], 0.026,
                s.pick("ray", ("plain", "brass", "second")))
        r *= 0.66

    def ring(k: float) -> list[tuple[float, float]]:
        if kind == "square":
            return box(0.5 - r * k, 0.5 - r * k, 0.5 + r * k, 0.5 + r * k, s.num("corner", 0.01, 0.2) * k)
        return polygon(0.5, 0.5, r * 1.06 * k, 6) if kind == "hexagonal" else ellipse(0.5, 0.5, r * k, r * k)

    frame = s.num("frame", 0.8, 0.93)
    c.part(ring(1.0), "main", "ball")
    dial = s.pick("dial", ("white", "white", "dark", "second", "pale"))
    c.part(ring(frame), dial, "flat")
    ink = "dark" if sum(c.rgb(dial)) > 380 else "white"
    marks, q = s.trait("dial", ("ticks", "dots",
        "numbers")), r * frame * (0.84 if kind != "hexagonal" else 0.8)
    for k in range(12):
        a = math.pi * k / 6
        x, y = math.cos(a), math.sin(a)
        if marks == "ticks":
            c.line([(0.5 + q * x, 0.5 + q * y), (0.5 + q * 0.85 * x, 0.5 + q * 0.85 * y)],
                0.022 if k % 3 == 0 else 0.01, ink)
        elif marks == "dots":
            c.part(ellipse(0.5 + q * 0.94 * x, 0.5 + q * 0.94 * y, 0.018 if k % 3 == 0 else 0.011,
                0.018 if k % 3 == 0 else 0.011), ink, "none", edge=0)
        elif k % 3 == 0 or s.chance("all numbers", 0.5):
            c.text(0.5 + q * 0.9 * x, 0.5 + q * 0.9 * y, str((k + 2) % 12 + 1), r * 0.22, ink)
    for name, long, width in (("hour", 0.5, 0.03), ("minute", 0.76, 0.02)):
        a = s.num(name, 0, 2 * math.pi)
        c.line([(0.5 - q * 0.12 * math.cos(a), 0.5 - q * 0.12 * math.sin(a)),
            (0.5 + q * long * math.cos(a), 0.5 + q * long * math.sin(a))], width * s.num("hands", 0.6, 1.2),
            ink)
    c.part(ellipse(0.5, 0.5, 0.024, 0.024), "second", "ball")
    c.mark(0.5, 0.5 + q * 0.42, 0.06, ink)


@product("Home > Textiles > Cushions", ("Cushion", "Throw Pillow", "Decorative Pillow"),
    ("linen", "velvet", "cotton", "wool"), (9, 59), patterns=CLOTH, stance="lies", weight=1.2)
def cushion(c: Canvas, s: Shape) -> None:
    kind = s.trait("shape", ("square", "round", "lumbar"))
    w, h = {"square": (0.39, 0.39), "round": (0.4, 0.4), "lumbar": (0.43, s.num("lumbar", 0.2, 0.28))}[kind]
    pinch = s.num("pinch", 0.02, 0.07)
    outline = ellipse(0.5, 0.5, w, h) if kind == "round" else curve(
        [(0.5 - w, 0.5 - h), (0.5, 0.5 - h + pinch), (0.5 + w, 0.5 - h), (0.5 + w - pinch, 0.5),
        (0.5 + w, 0.5 + h), (0.5, 0.5 + h - pinch), (0.5 - w, 0.5 + h), (0.5 - w + pinch, 0.5)])
    edge = s.trait("edge", ("plain", "piping", "fringe", "tassels"))
    if edge == "fringe":
        for x, y in outline[::1]:
            c.line([(x, y), (0.5 + (x - 0.5) * 1.09, 0.5 + (y - 0.5) * 1.09)], 0.012, "second")
    elif edge == "tassels" and kind != "round":
        for i in (-1, 1):
            for j in (-1, 1):
                x, y = 0.5 + i * w, 0.5 + j * h
                c.part([(x - 0.01, y - 0.01), (x + 0.01, y + 0.01), (x + i * 0.06 + 0.015, y + j * 0.05),
                    (x + i * 0.03, y + j * 0.075)], "second", "flat")
    c.part(outline, "main", "ball")
    if edge == "piping":
        c.line([*outline, outline[0]], 0.024, "second")
    if s.chance("button", 0.35):
        c.part(ellipse(0.5, 0.5, 0.025, 0.025), "second", "ball")
        for k in range(6):
            c.line([(0.5 + 0.03 * math.cos(k * 1.05), 0.5 + 0.03 * math.sin(k * 1.05)),
                (0.5 + 0.1 * math.cos(k * 1.05), 0.5 + 0.1 * math.sin(k * 1.05))], 0.006, "deep")
    elif s.chance("motif", 0.4):
        c.part(s.pick("motif", (polygon(0.5, 0.5, h * 0.55, 5, inner=0.45),
            ellipse(0.5, 0.5, h * 0.5, h * 0.5), box(0.5 - w, 0.42, 0.5 + w, 0.58),
            polygon(0.5, 0.5, h * 0.6, 4))), "second", "flat", edge=0.15)
    c.mark(0.5 + w * 0.7, 0.5 + h * 0.7, 0.05)


@product("Home > Decoration > Candles", ("Candle", "Scented Candle", "Jar Candle"),
    ("glass", "ceramic", "terracotta"), (5, 45), patterns=("solid", "solid", "striped", "dotted", "checked"))
def candle(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.15, 0.28), s.num("top", 0.26, 0.5), 0.9
    taper = s.num("taper", -0.04, 0.05)
    flame = top - s.num("flame", 0.12, 0.17)
    wicks = s.count("wicks", 1, 3)
    c.part(ellipse(0.5, top, w, 0.045), "pale", "flat")
    c.part(ellipse(0.5, top + 0.012, w - 0.02, 0.034), (248, 238, 214), "flat")
    for k in range(wicks):
        x = 0.5 + (k - (wicks - 1) / 2) * w * 0.55
        c.line([(x, top + 0.012), (x, top - 0.05)], 0.012, "dark")
        if s.chance("lit", 0.75):
            c.part(curve([(x, flame), (x + 0.032, top - 0.055), (x, top - 0.03), (x - 0.032, top - 0.055)]),
                (250, 176, 56), "ball", edge=0.1)
            c.part(curve([(x, flame + 0.05), (x + 0.014, top - 0.055), (x, top - 0.04),
                (x - 0.014, top - 0.055)]), (255, 240, 170), "none", edge=0)
    rim = ellipse(0.5, top, w, 0.045, 180, 0)
    c.part([*rim, (0.5 + w - taper, bottom - 0.03), *ellipse(0.5, bottom - 0.03, w - taper, 0.03, 0, 180),
        (0.5 - w + taper, bottom - 0.03)], "main", "round")
    label = s.trait("label", ("square label", "round label", "band", "none"))
    y = (top + bottom) / 2 + 0.03
    if label == "square label":
        c.part(box(0.5 - w * 0.55, y - 0.1, 0.5 + w * 0.55, y + 0.1, s.num("label corner", 0.0, 0.03)),
            s.pick("paper", ("white", "second", (226, 206, 172))), "round")
    elif label == "round label":
        c.part(ellipse(0.5, y, w * 0.55, w * 0.55), s.pick("paper", ("white", "second", (226, 206, 172))),
            "round")
    elif label == "band":
        c.part(box(0.5 - w + taper * 0.3, y - 0.06, 0.5 + w - taper * 0.3, y + 0.06),
            s.pick("paper", ("white", "second", "wood")), "round")
    c.mark(0.5, y, 0.09)
