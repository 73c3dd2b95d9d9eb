"""Clothing."""

from __future__ import annotations

import math

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import along, box, curve, ellipse, limb, mirror
from tgq.demo.products import CLOTH, PLAIN, product

SIZES = ("XS", "S", "M", "L", "XL")


def _top(c: Canvas, s: Shape, sleeve: tuple[float, float], hem: tuple[float, float], flare: float = 0.0,
         cuff: str = "main") -> tuple[float, float, float]:
    """Sleeves and body of an upper garment; returns neck width, body width and hem line."""
    neck = s.num("neck width", 0.06, 0.1)
    shoulder = s.num("shoulder", 0.19, 0.25)
    width = s.num("body width", 0.165, 0.225)
    bottom = s.num("hem", *hem)
    length = s.num("sleeve length", *sleeve)
    angle = math.radians(s.num("sleeve angle", 52, 72))
    thick = s.num("sleeve width", 0.1, 0.15)
    if length > 0.05:
        for side in (-1, 1):
            a = (0.5 + side * (shoulder - 0.03), 0.19)
            b = (a[0] + side * length * math.cos(angle), a[1] + length * math.sin(angle))
            c.part(limb(a, b, thick * 1.15, thick * 0.72), "main", "round")
            cuff_start = along(a, b, 1 - 0.028 / length)
            c.part(limb(cuff_start, b, thick * 0.74, thick * 0.74), cuff, "flat")
    waist = s.num("waist", -0.025, 0.012)
    side_line = curve([(width, 0.3), (width + waist, 0.48), (width + flare, bottom)], closed=False)
    round_hem = s.num("hem curve", 0.0, 0.03)
    c.part(mirror([(neck, 0.105), (shoulder, 0.145), (shoulder + 0.012, 0.19), *side_line,
        (0.06, bottom + round_hem)]),
           "main", "cloth")
    return neck, width, bottom


def _neckline(c: Canvas, s: Shape, neck: float, kinds: tuple[str, ...]) -> str:
    kind = s.trait("neck", kinds)
    depth = s.num("neck depth", 0.045, 0.085)
    if kind == "v-neck":
        hole = [(0.5 - neck, 0.1), (0.5 + neck, 0.1), (0.5, 0.12 + depth * 1.7)]
        c.part(hole, "deep", "hollow")
        c.line([hole[0], hole[2], hole[1]], 0.014, "second")
    elif kind == "turtleneck":
        c.part(box(0.5 - neck, 0.045, 0.5 + neck, 0.14, 0.02), "main", "round")
        c.line([(0.5 - neck, 0.09), (0.5 + neck, 0.09)], 0.006, "deep")
    elif kind == "boat neck":
        c.part(ellipse(0.5, 0.108, neck * 1.5, 0.022), "deep", "hollow")
    else:
        c.part(ellipse(0.5, 0.1, neck, depth, 0, 180), "deep", "hollow")
        c.line(ellipse(0.5, 0.1, neck, depth, 0, 180), 0.015, "second" if s.chance("ringer", 0.4) else "deep")
    if kind == "polo collar":
        c.part([(0.5, 0.17), (0.5 - neck * 1.2, 0.085), (0.5 - neck * 1.5, 0.15), (0.5 - 0.05, 0.2)],
            "second", "flat")
        c.part([(0.5, 0.17), (0.5 + neck * 1.2, 0.085), (0.5 + neck * 1.5, 0.15), (0.5 + 0.05, 0.2)],
            "second", "flat")
        for k in range(2):
            c.part(ellipse(0.5, 0.2 + 0.035 * k, 0.007, 0.007), "white", "none")
    return kind


@product("Clothing > Tops > T-shirts", ("T-Shirt", "Tee", "Short Sleeve Tee", "Jersey Top"),
    ("cotton", "linen", "polyester"),
         (9, 39), patterns=CLOTH, stance="worn", sizes=SIZES, weight=2.2)
def tshirt(c: Canvas, s: Shape) -> None:
    neck, width, _ = _top(c, s, (0.03, 0.22), (0.66, 0.88),
        cuff=s.pick("cuff", ("main", "second")))
    _neckline(c, s, neck, ("crew neck", "v-neck", "polo collar", "boat neck"))
    if s.chance("pocket", 0.3):
        x = 0.5 + width * 0.45
        c.part(box(x - 0.045, 0.27, x + 0.045, 0.37, 0.012), s.pick("pocket paint", ("second", "main")),
            "flat")
    elif s.chance("print", 0.4):
        c.part(ellipse(0.5, 0.36, s.num("print w", 0.05, 0.1), s.num("print h", 0.05, 0.1)), "second", "flat",
            edge=0)
        c.mark(0.5, 0.36, 0.09)
    c.mark(0.5 - width * 0.5, 0.26, 0.045)


@product("Clothing > Tops > Shirts", ("Shirt", "Button-Down Shirt", "Casual Shirt"),
    ("cotton", "linen", "denim"), (19, 79),
         patterns=CLOTH, stance="worn", sizes=SIZES, weight=1.6)
def shirt(c: Canvas, s: Shape) -> None:
    neck, width, bottom = _top(c, s, (0.14, 0.46), (0.72, 0.9),
        cuff=s.pick("cuff", ("main", "second", "white")))
    c.part(ellipse(0.5, 0.1, neck, 0.04), "deep", "hollow")
    paint = s.pick("collar paint", ("main", "main", "white", "second"))
    spread = s.num("collar spread", 0.02, 0.09)
    for side in (-1, 1):
        c.part([(0.5, 0.155), (0.5 + side * neck, 0.075), (0.5 + side * (neck + 0.035), 0.115),
                (0.5 + side * (0.02 + spread), 0.155 + s.num("collar length", 0.02, 0.07))], paint, "flat")
    c.line([(0.5, 0.155), (0.5, bottom + 0.005)], 0.006, "deep")
    n = s.count("buttons", 4, 8)
    for k in range(n):
        c.part(ellipse(0.515, 0.2 + (bottom - 0.25) * k / (n - 1), 0.009, 0.009),
            s.pick("button", ("white", "dark", "second")), "none")
    for side in (-1, 1) if s.chance("two pockets", 0.4) else (1,):
        x = 0.5 + side * width * 0.5
        c.part(box(x - 0.05, 0.27, x + 0.05, 0.37, 0.01), "main", "flat")
        if s.chance("flap", 0.4):
            c.part([(x - 0.05, 0.27), (x + 0.05, 0.27), (x, 0.31)], "main", "flat")
    c.mark(0.5 + width * 0.5, 0.33, 0.035)


@product("Clothing > Tops > Hoodies", ("Hoodie", "Hooded Sweatshirt", "Pullover Hoodie"),
    ("cotton", "fleece", "polyester"), (25, 89),
         patterns=PLAIN, stance="worn", sizes=SIZES, weight=1.6)
def hoodie(c: Canvas, s: Shape) -> None:
    hood = s.num("hood width", 0.13, 0.19)
    top = s.num("hood top", 0.0, 0.05)
    c.part(curve([(0.5, top), (0.5 + hood, 0.09), (0.5 + hood * 0.9, 0.2), (0.5, 0.22),
        (0.5 - hood * 0.9, 0.2), (0.5 - hood, 0.09)]),
           "main", "ball")
    _, width, bottom = _top(c, s, (0.36, 0.5), (0.7, 0.86),
        cuff=s.pick("cuff", ("second", "deep", "plain")))
    c.part(curve([(0.5, top + 0.04), (0.5 + hood * 0.66, 0.1), (0.5 + hood * 0.4, 0.19), (0.5, 0.215),
        (0.5 - hood * 0.4, 0.19),
                  (0.5 - hood * 0.66, 0.1)]), s.pick("lining", ("deep", "second")), "hollow")
    c.part(box(0.5 - width - 0.004, bottom - 0.035, 0.5 + width + 0.004, bottom + 0.02, 0.015), "deep",
        "flat")
    if s.trait("closure", ("pullover", "full zip")) == "full zip":
        c.line([(0.5, 0.21), (0.5, bottom)], 0.014, "metal")
        c.line([(0.5, 0.21), (0.5, bottom)], 0.004, "dark")
    drop = s.num("cord", 0.08, 0.22)
    for side in (-1, 1):
        c.line(curve([(0.5 + side * 0.035, 0.205), (0.5 + side * 0.05, 0.21 + drop * 0.6),
            (0.5 + side * 0.04, 0.21 + drop)], closed=False), 0.01, "white")
    w, y = s.num("pouch", 0.09, 0.14), bottom - s.num("pouch height", 0.14, 0.2)
    if s.chance("kangaroo pocket", 0.75):
        c.part([(0.5 - w * 0.6, y), (0.5 + w * 0.6, y), (0.5 + w, bottom - 0.05), (0.5 - w, bottom - 0.05)],
            s.pick("pouch paint", ("plain", "second", "main")), "flat")
    c.mark(0.5 + s.num("mark x", -0.08, 0.08), 0.34, s.num("mark size", 0.05, 0.13))


@product("Clothing > Dresses > Dresses", ("Dress", "Summer Dress", "Midi Dress", "Day Dress"),
    ("cotton", "linen", "polyester", "velvet"), (29, 129),
         patterns=CLOTH, stance="worn", sizes=SIZES, weight=1.8)
def dress(c: Canvas, s: Shape) -> None:
    sleeve = {"sleeveless": 0.0, "short sleeve": 0.13, "long sleeve": 0.4}[s.trait("sleeve",
        ("sleeveless", "short sleeve", "long sleeve"))]
    neck = s.num("neck width", 0.06, 0.1)
    shoulder = s.num("shoulder", 0.13, 0.17)
    waist, at = s.num("waist", 0.09, 0.13), s.num("waist at", 0.34, 0.45)
    flare, bottom = s.num("flare", 0.13, 0.36), s.num("hem", 0.74, 0.96)
    for side in (-1, 1):
        if sleeve:
            a = (0.5 + side * (shoulder - 0.02), 0.12)
            b = (a[0] + side * sleeve * 0.5, a[1] + sleeve * 0.85)
            c.part(limb(a, b, 0.09, s.num("sleeve end", 0.06, 0.13)), "main", "round")
    c.part(mirror([(0.02, at), (waist, at),
        *curve([(waist, at), (waist + (flare - waist) * s.num("skirt curve", 0.35, 0.75), (at + bottom) / 2),
        (flare, bottom)], closed=False),
                   (flare * 0.5, bottom + 0.02)]), "main", "cloth")
    folds = s.count("folds", 2, 7)
    for k in range(1, folds):
        t = k / folds * 2 - 1
        c.line([(0.5 + waist * t * 0.9, at + 0.02), (0.5 + flare * t * 0.95, bottom)], 0.004, "deep")
    c.part(mirror([(neck, 0.07), (shoulder, 0.085), *curve([(shoulder, 0.1), (shoulder - 0.02, 0.2),
        (waist, at)], closed=False)]), "main", "cloth")
    if s.chance("belt", 0.5):
        c.part(box(0.5 - waist - 0.004, at - 0.018, 0.5 + waist + 0.004, at + 0.018), "second", "tube")
    kind = s.trait("neck", ("round neck", "v-neck", "square neck"))
    depth = s.num("neck depth", 0.03, 0.09)
    hole = {"round neck": ellipse(0.5, 0.068, neck, depth, 0, 180),
        "v-neck": [(0.5 - neck, 0.065), (0.5 + neck, 0.065), (0.5, 0.1 + depth)],
            "square neck": box(0.5 - neck, 0.062, 0.5 + neck, 0.07 + depth)}[kind]
    c.part(hole, "deep", "hollow")
    if s.chance("hem band", 0.4):
        c.line([(0.5 - flare * 0.97, bottom - 0.035), (0.5 + flare * 0.97, bottom - 0.035)], 0.02, "second")
    c.mark(0.5 + shoulder * 0.5, 0.22, 0.04)


@product("Clothing > Bottoms > Trousers", ("Trousers", "Pants", "Straight Leg Pants", "Chinos"),
    ("denim", "cotton", "linen", "wool"), (25, 110),
         patterns=("solid", "solid", "solid", "checked", "striped"), stance="worn",
         sizes=("28", "30", "32", "34", "36"), weight=1.6)
def trousers(c: Canvas, s: Shape) -> None:
    waist, hip = s.num("waist", 0.13, 0.165), s.num("hip", 0.165, 0.21)
    bottom, ankle = s.num("length", 0.72, 0.97), s.num("ankle", 0.04, 0.11)
    knee, gap = s.num("knee", 0.075, 0.1), s.num("gap", 0.02, 0.09)
    for side in (-1, 1):
        x = 0.5 + side * (gap + hip * 0.55)
        outer = curve([(0.5 + side * waist, 0.09), (0.5 + side * hip, 0.24), (x + side * knee, 0.55),
            (x + side * ankle, bottom)], closed=False)
        inner = [(x - side * ankle, bottom), (x - side * knee * 0.8, 0.58), (0.5, 0.33), (0.5, 0.09)]
        c.part(outer + inner, "main", "round" if s.chance("crease", 0.5) else "cloth")
        if s.chance("turn-up", 0.4):
            c.part(box(x - ankle - 0.004, bottom - 0.04, x + ankle + 0.004, bottom, 0.004), "pale", "flat")
        c.line(curve([(0.5 + side * waist * 0.55, 0.125), (0.5 + side * waist * 0.7, 0.18),
            (0.5 + side * hip * 0.98, 0.2)], closed=False), 0.006, "deep")
    band = s.num("band", 0.03, 0.055)
    c.part(box(0.5 - waist - 0.004, 0.075, 0.5 + waist + 0.004, 0.075 + band, 0.008),
        s.pick("band paint", ("main", "deep", "second")), "flat")
    c.line(curve([(0.5, 0.1), (0.5, 0.24), (0.515, 0.3)], closed=False), 0.006, "deep")
    if s.chance("side stripe", 0.3):
        for side in (-1, 1):
            x = 0.5 + side * (gap + hip * 0.55)
            c.line(curve([(0.5 + side * (waist - 0.015), 0.13), (0.5 + side * (hip - 0.018), 0.24),
                (x + side * (knee - 0.015), 0.55), (x + side * (ankle - 0.015), bottom - 0.01)],
                         closed=False), 0.016, "second")
    if s.trait("closure", ("button", "drawstring")) == "button":
        c.part(ellipse(0.5, 0.075 + band / 2, 0.012, 0.012), "metal", "ball")
    else:
        for side in (-1, 1):
            c.line(curve([(0.5, 0.1), (0.5 + side * 0.03, 0.15), (0.5 + side * 0.02, 0.2)], closed=False),
                0.008, "white")
    c.mark(0.5 + hip * 0.6, 0.16, 0.04)


@product("Clothing > Bottoms > Shorts", ("Shorts", "Bermuda Shorts", "Summer Shorts"),
    ("cotton", "linen", "denim", "polyester"), (15, 59), patterns=CLOTH, stance="worn", sizes=SIZES)
def shorts(c: Canvas, s: Shape) -> None:
    waist, leg = s.num("waist", 0.19, 0.24), s.num("leg", 0.17, 0.24)
    top, bottom, out = 0.2, s.num("length", 0.58, 0.84), s.num("flare", 0.02, 0.1)
    for side in (-1, 1):
        c.part([(0.5, top), (0.5 + side * waist, top), (0.5 + side * (waist + 0.04), top + 0.16),
            (0.5 + side * (waist + out), bottom), (0.5 + side * (waist + out - leg), bottom + 0.01),
            (0.5, top + 0.28)], "main", "cloth")
        if s.chance("cuff", 0.4):
            c.part(limb((0.5 + side * (waist + out + 0.004), bottom - 0.02),
                (0.5 + side * (waist + out - leg), bottom - 0.01), 0.045, 0.045), "second", "flat")
        if s.chance("side stripe", 0.3):
            c.part([(0.5 + side * (waist - 0.03), top), (0.5 + side * waist, top),
                (0.5 + side * (waist + out), bottom), (0.5 + side * (waist + out - 0.035), bottom)], "second",
                "flat")
        if s.chance("cargo", 0.35):
            x = 0.5 + side * (waist - 0.03)
            c.part(box(x - 0.07, bottom - 0.22, x + 0.07, bottom - 0.09, 0.012), "plain", "flat")
            c.line([(x - 0.07, bottom - 0.185), (x + 0.07, bottom - 0.185)], 0.008, "deep")
        c.line(curve([(0.5 + side * waist * 0.5, top + 0.06), (0.5 + side * waist * 0.75, top + 0.13),
            (0.5 + side * (waist + 0.02), top + 0.15)], closed=False), 0.006, "deep")
    band = s.num("band", 0.04, 0.075)
    c.part(box(0.5 - waist - 0.004, top - 0.01, 0.5 + waist + 0.004, top - 0.01 + band, 0.012),
        s.pick("band paint", ("main", "second", "deep")), "flat")
    c.line([(0.5, top + band), (0.5, top + 0.28)], 0.006, "deep")
    if s.trait("waist", ("drawstring", "button", "elastic")) == "drawstring":
        for side in (-1, 1):
            c.line(curve([(0.5, top + 0.025), (0.5 + side * 0.04, top + 0.09),
                (0.5 + side * 0.03, top + 0.15)], closed=False), 0.011, "white")
    elif s.traits["waist"] == "button":
        c.part(ellipse(0.5, top + band / 2 - 0.01, 0.016, 0.016), "metal", "ball")
    c.mark(0.5 + waist * 0.6, bottom - 0.06, 0.05)


@product("Clothing > Skirts > Skirts", ("Skirt", "A-Line Skirt", "Flared Skirt"),
    ("cotton", "linen", "denim", "wool", "velvet"), (19, 79), patterns=CLOTH, stance="worn", sizes=SIZES)
def skirt(c: Canvas, s: Shape) -> None:
    waist, hem, bottom = s.num("waist", 0.11, 0.15), s.num("hem", 0.18, 0.42), s.num("length", 0.6, 0.94)
    top, bend = 0.14, s.num("bend", 0.4, 0.85)
    side = curve([(waist, top), (waist + (hem - waist) * bend, top + (bottom - top) * 0.5), (hem, bottom)],
        closed=False)
    wave = s.num("wave", 0.0, 0.035)
    n = s.count("folds", 2, 8)
    edge = [(0.5 + hem - 2 * hem * k / (4 * n),
        bottom + wave * (1 + math.sin(k * math.pi / 2))) for k in range(4 * n + 1)]
    c.part([(0.5 - x, y) for x, y in side[::-1]] + [(0.5 + x, y) for x, y in side] + edge, "main", "cloth")
    style = s.trait("style", ("pleated", "plain", "tiered", "button front"))
    if style == "pleated":
        for k in range(1, 2 * n):
            t = k / n - 1
            c.line([(0.5 + waist * t, top + 0.03), (0.5 + hem * t, bottom + wave)], 0.006, "deep")
    elif style == "tiered":
        for t in (0.4, 0.7):
            y, w = top + (bottom - top) * t, waist + (hem - waist) * (bend * min(1,
                t * 2) + (1 - bend) * max(0, t * 2 - 1))
            c.line([(0.5 - w, y), (0.5 + w, y)], 0.018, "second")
    elif style == "button front":
        for k in range(5):
            c.part(ellipse(0.5, top + 0.08 + (bottom - top - 0.1) * k / 5, 0.014, 0.014), "white", "ball")
    c.part(box(0.5 - waist - 0.006, top - 0.03, 0.5 + waist + 0.006, top + s.num("band", 0.01, 0.05), 0.012),
        s.pick("band paint", ("second", "plain", "deep")), "flat")
    if s.chance("bow", 0.25):
        for side_ in (-1, 1):
            c.part([(0.5, top), (0.5 + side_ * 0.07, top - 0.035), (0.5 + side_ * 0.07, top + 0.045)],
                "second", "flat")
    c.mark(0.5 + hem * 0.6, bottom - 0.07, 0.05)


@product("Clothing > Underwear > Socks", ("Socks", "Crew Socks", "Ankle Socks"), ("cotton", "wool", "knit"),
    (4, 19), patterns=CLOTH, stance="lies", sizes=("35-38", "39-42", "43-46"))
def socks(c: Canvas, s: Shape) -> None:
    top, w = s.num("top", 0.05, 0.45), s.num("leg", 0.1, 0.14)
    foot, thick = s.num("foot", 0.3, 0.4), s.num("foot thick", 0.14, 0.18)
    for dx, dy in ((0.08, -0.02), (-0.06, 0.04)):
        x, heel = 0.58 + dx, 0.76 + dy
        y = top + dy
        c.part(curve([(x - w, y), (x + w, y), (x + w, heel - 0.16), (x + w + 0.015, heel),
            (x + w * 0.3, heel + 0.1), (x - foot + 0.03, heel + 0.11), (x - foot - 0.04, heel + 0.03),
            (x - foot + 0.04, heel - thick + 0.08), (x - w * 0.9, heel - thick)], steps=5), "main", "ball")
        if s.chance("heel", 0.6):
            c.part(curve([(x + w + 0.005, heel - 0.07), (x + w + 0.015, heel), (x + w * 0.3, heel + 0.1),
                (x + w * 0.05, heel + 0.02)]), "second", "flat")
        if s.chance("toe", 0.6):
            c.part(curve([(x - foot + 0.07, heel + 0.11), (x - foot - 0.03, heel + 0.08),
                (x - foot - 0.035, heel + 0.01), (x - foot + 0.06, heel - 0.05)]), "second", "flat")
        c.part(box(x - w - 0.006, y - 0.015, x + w + 0.006, y + s.num("cuff", 0.03, 0.1), 0.02),
            s.pick("cuff paint", ("second", "plain", "deep", "white")), "round")
        if s.chance("rings", 0.4):
            for k in range(2):
                c.line([(x - w, y + 0.14 + 0.05 * k), (x + w, y + 0.14 + 0.05 * k)], 0.02, "second")
        c.mark(x, y + 0.2, 0.06)


@product("Clothing > Tops > Jackets", ("Jacket", "Zip Jacket", "Windbreaker", "Bomber Jacket"),
    ("nylon", "leather", "denim", "fleece"), (39, 240), patterns=PLAIN, stance="worn", sizes=SIZES,
    weight=1.3)
def jacket(c: Canvas, s: Shape) -> None:
    neck, width, bottom = _top(c, s, (0.4, 0.52), (0.62, 0.9),
        cuff=s.pick("cuff", ("second", "deep", "main")))
    collar = s.trait("collar", ("stand-up", "lapel", "fur"))
    c.part(ellipse(0.5, 0.1, neck, 0.05), "deep", "hollow")
    if collar == "stand-up":
        for side in (-1, 1):
            c.part([(0.5 + side * 0.006, 0.155), (0.5 + side * neck * 0.9, 0.055),
                (0.5 + side * neck * 1.25, 0.125)], s.pick("collar paint", ("plain", "second")), "flat")
    elif collar == "lapel":
        low = s.num("lapel", 0.26, 0.4)
        c.part([(0.5 - neck, 0.09), (0.5 + neck, 0.09), (0.5, low)], "second", "hollow")
        for side in (-1, 1):
            c.part([(0.5 + side * neck, 0.08), (0.5 + side * (neck + 0.06), 0.2),
                (0.5 + side * (neck + 0.02), 0.215), (0.5, low + 0.01)], "main", "flat")
    else:
        c.part(curve([(0.5 - neck * 1.5, 0.09), (0.5, 0.05), (0.5 + neck * 1.5, 0.09),
            (0.5 + neck * 1.2, 0.2), (0.5, 0.16), (0.5 - neck * 1.2, 0.2)]), (206, 184, 150), "ball")
    c.line([(0.5, 0.16 if collar != "lapel" else 0.4), (0.5, bottom + 0.01)], 0.016,
        s.pick("zip", ("metal", "dark", "second")))
    yoke = s.trait("front", ("plain", "quilted", "chest band", "patch pockets"))
    if yoke == "quilted":
        for k in range(s.count("rows", 4, 8)):
            y = 0.24 + (bottom - 0.27) * k / s.count("rows", 4, 8)
            c.line([(0.5 - width * 0.97, y), (0.49, y + 0.015)], 0.007, "deep")
            c.line([(0.51, y + 0.015), (0.5 + width * 0.97, y)], 0.007, "deep")
    elif yoke == "chest band":
        c.part(box(0.5 - width * 0.98, 0.34, 0.49, 0.42), "second", "flat")
        c.part(box(0.51, 0.34, 0.5 + width * 0.98, 0.42), "second", "flat")
    elif yoke == "patch pockets":
        for side in (-1, 1):
            x = 0.5 + side * width * 0.52
            c.part(box(x - 0.055, 0.28, x + 0.055, 0.39, 0.01), "main", "flat")
            c.line([(x - 0.055, 0.31), (x + 0.055, 0.31)], 0.008, "deep")
    for side in (-1, 1):
        x = 0.5 + side * width * 0.5
        c.line([(x, bottom - 0.2), (x + side * 0.04, bottom - 0.09)], 0.01, "deep")
    c.part(box(0.5 - width - 0.004, bottom - 0.025, 0.5 + width + 0.004, bottom + 0.025, 0.015),
        s.pick("hem paint", ("second", "deep", "plain")), "flat")
    c.mark(0.5 + width * 0.5, 0.25, 0.05)
