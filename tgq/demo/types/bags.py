"""Bags and luggage."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse
from tgq.demo.products import CLOTH, PLAIN, product


@product("Bags > Backpacks > Backpacks", ("Backpack", "Daypack", "Rucksack", "School Backpack"),
    ("nylon", "canvas", "leather", "polyester"), (25, 140), patterns=PLAIN, weight=1.6)
def backpack(c: Canvas, s: Shape) -> None:
    width, top, bottom = s.num("width", 0.22, 0.3), s.num("top", 0.1, 0.2), 0.93
    crown = s.num("crown", 0.06, 0.2)
    for side in (-1, 1):
        c.tube(curve([(0.5 + side * width * 0.6, top + 0.05), (0.5 + side * (width + 0.09), 0.42),
            (0.5 + side * (width + 0.05), 0.82)], closed=False), 0.045, "deep")
    c.tube(ellipse(0.5, top + 0.015, s.num("handle", 0.05, 0.1), 0.08, 180, 360), 0.028, "deep")
    if s.chance("side pockets", 0.5):
        for side in (-1, 1):
            c.part(box(0.5 + side * width - 0.06, 0.62, 0.5 + side * width + 0.06, 0.88, 0.03), "second",
                "round")
    c.part(box(0.5 - width, top, 0.5 + width, bottom, crown), "main", "round")
    if s.trait("opening", ("zip", "flap", "roll top")) == "flap":
        y = top + s.num("flap", 0.25, 0.42)
        c.part(box(0.5 - width - 0.012, top - 0.005, 0.5 + width + 0.012, y, crown),
            s.pick("flap paint", ("second", "plain", "deep")), "round")
        for side in (-1, 1):
            c.line([(0.5 + side * width * 0.45, y - 0.12), (0.5 + side * width * 0.45, y + 0.09)], 0.03,
                "deep")
            c.part(box(0.5 + side * width * 0.45 - 0.025, y - 0.01, 0.5 + side * width * 0.45 + 0.025,
                y + 0.03, 0.006), "metal", "flat")
    elif s.traits["opening"] == "zip":
        y = top + s.num("zip", 0.1, 0.2)
        c.line(curve([(0.5 - width + 0.01, y + 0.1), (0.5 - width * 0.6, y), (0.5 + width * 0.6, y),
            (0.5 + width - 0.01, y + 0.1)], closed=False), 0.012, "dark")
        c.part(box(0.5 + width * 0.55, y, 0.5 + width * 0.55 + 0.018, y + 0.06, 0.006), "metal", "none")
    else:
        c.part(box(0.5 - width - 0.01, top - 0.02, 0.5 + width + 0.01, top + 0.09, 0.045), "second", "tube")
        c.line([(0.5, top + 0.08), (0.5, top + 0.3)], 0.03, "deep")
    h, w = s.num("pocket height", 0.16, 0.28), width * s.num("pocket width", 0.6, 0.9)
    c.part(box(0.5 - w, bottom - 0.05 - h, 0.5 + w, bottom - 0.04, s.num("pocket round", 0.02, 0.09)),
        s.pick("pocket paint", ("second", "main", "deep")), "flat")
    c.line([(0.5 - w + 0.03, bottom - 0.01 - h), (0.5 + w - 0.03, bottom - 0.01 - h)], 0.01, "dark")
    c.mark(0.5, bottom - 0.05 - h * 0.45, 0.09)


@product("Bags > Handbags > Handbags", ("Handbag", "Shoulder Bag", "Satchel", "Top Handle Bag"),
    ("leather", "patent leather", "suede", "canvas"), (35, 260), patterns=PLAIN, weight=1.4)
def handbag(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.4, 0.52), s.num("bottom", 0.8, 0.94)
    upper, lower = s.num("upper", 0.22, 0.38), s.num("lower", 0.3, 0.44)
    rise, span = s.num("handle rise", 0.18, 0.36), s.num("handle span", 0.12, 0.24)
    kind = s.trait("handle", ("single", "double", "chain"))
    arch = curve([(0.5 - span, top + 0.06), (0.5 - span * 0.95, top - rise * 0.6), (0.5, top - rise),
        (0.5 + span * 0.95, top - rise * 0.6), (0.5 + span, top + 0.06)], closed=False)
    if kind == "chain":
        for x, y in arch[::2]:
            c.part(ellipse(x, y, 0.014, 0.014), "brass", "ball")
    else:
        if kind == "double":
            c.tube([(x + 0.03, y - 0.03) for x, y in arch], 0.026, "deep")
        c.tube(arch, s.num("handle width", 0.024, 0.045), s.pick("handle paint",
            ("deep", "second", (140, 92, 56))))
    r = s.num("corner", 0.0, 0.09)
    c.part([(0.5 - upper, top), (0.5 + upper, top), (0.5 + lower, bottom - r - 0.03),
        (0.5 + lower - r * 0.3, bottom - 0.02),
        (0.5 + lower - r - 0.02, bottom), (0.5 - lower + r + 0.02, bottom),
        (0.5 - lower + r * 0.3, bottom - 0.02),
        (0.5 - lower, bottom - r - 0.03)], "main", "round")
    closure = s.trait("closure", ("flap", "zip", "clasp"))
    if closure == "flap":
        y = top + (bottom - top) * s.num("flap", 0.4, 0.7)
        w = (upper + lower) / 2
        c.part(curve([(0.5 - upper, top - 0.005), (0.5 + upper, top - 0.005), (0.5 + w * 0.95, y - 0.06),
            (0.5, y + s.num("flap point", -0.02, 0.05)), (0.5 - w * 0.95, y - 0.06)]),
               s.pick("flap paint", ("plain", "second", "deep")), "flat")
        c.part(box(0.47, y - 0.05, 0.53, y + 0.015, 0.012), "brass", "flat")
    elif closure == "zip":
        c.line([(0.5 - upper + 0.02, top + 0.02), (0.5 + upper - 0.02, top + 0.02)], 0.014, "brass")
        if s.chance("tassel", 0.5):
            x = 0.5 + upper - 0.06
            c.line([(x, top + 0.02), (x + 0.015, top + 0.1)], 0.012, "second")
            c.part([(x + 0.005, top + 0.09), (x + 0.03, top + 0.09), (x + 0.045, top + 0.21),
                (x - 0.01, top + 0.21)], "second", "round")
    else:
        for side in (-1, 1):
            c.part(ellipse(0.5 + side * 0.014, top - 0.012, 0.017, 0.017), "brass", "ball")
    if s.chance("front pocket", 0.35):
        c.part(box(0.5 - lower * 0.6, bottom - 0.2, 0.5 + lower * 0.6, bottom - 0.04, 0.03), "plain", "flat")
    if s.chance("trim", 0.4):
        c.line([(0.5 - lower + 0.03, bottom - 0.035), (0.5 + lower - 0.03, bottom - 0.035)], 0.03, "second")
    c.mark(0.5 - lower * 0.55, bottom - 0.1, 0.06)


@product("Bags > Handbags > Tote bags", ("Tote Bag", "Shopper", "Shopping Tote"),
    ("canvas", "cotton", "leather", "felt"), (9, 89), patterns=CLOTH, stance="lies")
def tote(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.34, 0.46), 0.94
    upper, lower = s.num("upper", 0.24, 0.36), s.num("lower", 0.22, 0.34)
    span, rise = s.num("span", 0.08, 0.16), s.num("rise", 0.18, 0.33)
    paint = s.pick("handle paint", ("plain", "second", "deep"))
    for shift in (0.035, 0.0):
        c.tube(curve([(0.5 - span + shift, top + 0.02), (0.5 - span * 0.9 + shift, top - rise * 0.7 - shift),
            (0.5 + shift, top - rise - shift), (0.5 + span * 0.9 + shift, top - rise * 0.7 - shift),
                      (0.5 + span + shift, top + 0.02)], closed=False), s.num("strap", 0.025, 0.05), paint)
    c.part([(0.5 - upper, top), (0.5 + upper, top), (0.5 + lower, bottom), (0.5 - lower, bottom)], "main",
        "cloth")
    if s.chance("base", 0.4):
        h = s.num("base height", 0.08, 0.2)
        c.part([(0.5 - lower - 0.004, bottom - h), (0.5 + lower + 0.004, bottom - h), (0.5 + lower, bottom),
            (0.5 - lower, bottom)], "second", "flat")
    for side in (-1, 1):
        c.part(box(0.5 + side * span - 0.025, top, 0.5 + side * span + 0.025, top + s.num("tab", 0.05, 0.16)),
            paint, "flat")
    c.line([(0.5 - upper + 0.01, top + 0.025), (0.5 + upper - 0.01, top + 0.025)], 0.005, "deep")
    if s.chance("print", 0.55):
        r = s.num("print", 0.07, 0.13)
        c.part(ellipse(0.5, 0.68, r, r), "white", "none", edge=0)
        c.mark(0.5, 0.68, r * 1.1)
    else:
        c.mark(0.5 + lower * 0.5, 0.86, 0.06)


@product("Bags > Luggage > Suitcases", ("Suitcase", "Trolley Case", "Cabin Suitcase"),
    ("plastic", "metal", "nylon"), (59, 320), patterns=PLAIN, sizes=("S", "M", "L"))
def suitcase(c: Canvas, s: Shape) -> None:
    width, top, bottom = s.num("width", 0.2, 0.29), s.num("top", 0.24, 0.36), 0.9
    span = s.num("handle", 0.08, 0.14)
    c.tube([(0.5 - span, top + 0.02), (0.5 - span, 0.06), (0.5 + span, 0.06), (0.5 + span, top + 0.02)],
        0.022, "metal")
    c.line([(0.5 - span, 0.06), (0.5 + span, 0.06)], 0.04, "dark")
    for side in (-1, 1):
        c.part(ellipse(0.5 + side * (width - 0.05), bottom + 0.025, 0.03, 0.035), "dark", "ball")
    c.part(box(0.5 - width, top, 0.5 + width, bottom, s.num("corner", 0.02, 0.09)), "main", "round")
    ribs = s.trait("shell", ("vertical ribs", "horizontal ribs", "smooth", "straps"))
    n = s.count("ribs", 3, 8)
    if ribs == "vertical ribs":
        for k in range(1, n):
            x = 0.5 - width + 2 * width * k / n
            c.line([(x, top + 0.05), (x, bottom - 0.05)], 0.012, "deep")
            c.line([(x + 0.009, top + 0.05), (x + 0.009, bottom - 0.05)], 0.006, "pale")
    elif ribs == "horizontal ribs":
        for k in range(1, n):
            y = top + (bottom - top) * k / n
            c.line([(0.5 - width + 0.03, y), (0.5 + width - 0.03, y)], 0.012, "deep")
    elif ribs == "straps":
        for side in (-1, 1):
            x = 0.5 + side * width * 0.5
            c.part(box(x - 0.022, top, x + 0.022, bottom), "second", "round")
            c.part(box(x - 0.032, top + 0.12, x + 0.032, top + 0.17, 0.008), "metal", "flat")
    if s.chance("corner guards", 0.4):
        for x in (0.5 - width, 0.5 + width - 0.08):
            for y in (top, bottom - 0.08):
                c.part(box(x, y, x + 0.08, y + 0.08, 0.03), "second", "flat")
    c.tube([(0.44, top + 0.005), (0.45, top - 0.03), (0.55, top - 0.03), (0.56, top + 0.005)], 0.026, "deep")
    c.mark(0.5, top + 0.12, 0.07)
