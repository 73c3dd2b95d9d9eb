"""Kitchen and table ware."""

from __future__ import annotations

import math

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb, mirror, profile
from tgq.demo.products import CLOTH, product


@product("Kitchen > Cups > Mugs", ("Mug", "Coffee Mug", "Tea Cup"), ("ceramic", "porcelain", "steel"),
    (5, 29), patterns=CLOTH, weight=1.8)
def mug(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.14, 0.32), 0.88
    wide, foot = s.num("rim", 0.22, 0.32), s.num("foot", 0.16, 0.31)
    belly = s.num("belly", -0.02, 0.07)
    cx = 0.43
    reach, y0, y1 = s.num("handle reach", 0.1, 0.2), top + s.num("handle top", 0.08,
        0.16), bottom - s.num("handle bottom", 0.1, 0.2)
    kind = s.trait("handle", ("round", "square", "pointed"))
    edge = cx + min(wide, foot) - 0.02
    grip = {"round": curve([(edge, y0), (edge + reach * 0.8, y0 + 0.01), (edge + reach + 0.05, (y0 + y1) / 2),
        (edge + reach * 0.8, y1 - 0.01), (edge, y1)], closed=False),
            "square": [(edge, y0), (edge + reach + 0.05, y0), (edge + reach + 0.05, y1), (edge, y1)],
            "pointed": [(edge, y0), (edge + reach + 0.07, y0 + 0.04), (edge, y1)]}[kind]
    c.tube(grip, s.num("handle width", 0.04, 0.07), s.pick("handle paint", ("plain", "plain", "second")))
    side = curve([(wide, top), ((wide + foot) / 2 + belly, (top + bottom) / 2), (foot, bottom - 0.02)],
        closed=False)
    c.part(mirror([*side, (foot * 0.8, bottom), (0.02, bottom + 0.015)], cx), "main", "round")
    c.part(ellipse(cx, top, wide, 0.05), "pale", "flat")
    c.part(ellipse(cx, top + 0.008, wide - 0.022, 0.038), s.pick("inside",
        ("deep", "second", "white", (92, 54, 30))), "hollow")
    if s.chance("band", 0.35):
        y = bottom - s.num("band at", 0.08, 0.3)
        c.line([(cx - (wide + foot) / 2 - belly * 0.6, y), (cx + (wide + foot) / 2 + belly * 0.6, y)], 0.03,
            "second")
    c.mark(cx, (top + bottom) / 2 + 0.03, s.num("mark", 0.08, 0.16))


@product("Kitchen > Hot drinks > Kettles", ("Kettle", "Electric Kettle", "Water Kettle"),
    ("steel", "plastic", "ceramic", "metal"), (19, 119), weight=1.4)
def kettle(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.26, 0.4), 0.87
    rim, belly, foot = s.num("rim", 0.12, 0.2), s.num("belly", 0.2, 0.29), s.num("foot", 0.18, 0.28)
    cx = 0.48
    at = s.num("belly at", 0.5, 0.85)
    middle = top + (bottom - top) * at
    spout_y = top + s.num("spout y", 0.06, 0.3)
    kind = s.trait("spout", ("short", "gooseneck", "beak"))
    if kind == "gooseneck":
        c.tube(curve([(cx - belly * 0.85, bottom - 0.1), (cx - belly - 0.1, bottom - 0.14),
            (cx - belly - 0.08, top + 0.1), (cx - belly - 0.18, top - 0.02)], closed=False), 0.045)
    elif kind == "short":
        c.part([(cx - rim - 0.02, spout_y + 0.17), (cx - belly - s.num("spout", 0.06, 0.14), spout_y - 0.08),
            (cx - belly - 0.02, spout_y - 0.1), (cx - rim, spout_y)], "plain", "flat")
    else:
        c.part([(cx - rim + 0.02, top), (cx - rim - s.num("beak", 0.07, 0.14), top - 0.005),
            (cx - rim - 0.04, top + 0.16)], "plain", "flat")
    grip = s.trait("handle", ("side", "top"))
    paint = s.pick("handle paint", ("dark", "wood", "second", "deep"))
    if grip == "side":
        out = s.num("handle out", 0.12, 0.2)
        c.tube(curve([(cx + rim - 0.01, top + 0.03), (cx + rim + out * 0.9, top - 0.02),
            (cx + belly + out * 0.8, (top + bottom) / 2 - 0.05), (cx + belly - 0.02,
            bottom - s.num("handle end", 0.12, 0.28))],
                     closed=False), s.num("handle width", 0.045, 0.07), paint)
    else:
        rise = s.num("handle rise", 0.12, 0.24)
        c.tube(curve([(cx - rim - 0.02, top + 0.1), (cx - rim * 0.9, top - rise * 0.8), (cx, top - rise),
            (cx + rim * 0.9, top - rise * 0.8), (cx + rim + 0.02, top + 0.1)], closed=False), 0.045, paint)
    side = curve([(rim, top), (rim + (belly - rim) * 0.6, top + (middle - top) * 0.4), (belly, middle),
        (foot, bottom)], closed=False)
    c.part(mirror([*side, (0.02, bottom + 0.01)], cx), "main", "round")
    c.part(box(cx - foot - 0.02, bottom, cx + foot + 0.02, bottom + 0.05, 0.02),
        s.pick("base", ("dark", "deep", "second")), "tube")
    lid = s.num("lid", 0.02, 0.07)
    c.part(curve([(cx - rim, top + 0.005), (cx - rim * 0.7, top - lid), (cx + rim * 0.7, top - lid),
        (cx + rim, top + 0.005)], closed=False), s.pick("lid paint", ("plain", "deep", "second")), "round")
    c.part(ellipse(cx, top - lid - 0.014, s.num("knob", 0.02, 0.035), 0.022), paint, "ball")
    if s.chance("window", 0.35):
        c.part(box(cx + belly * 0.25, middle - 0.12, cx + belly * 0.25 + 0.04, middle + 0.1, 0.02), "glass",
            "round")
    if s.chance("band", 0.35):
        c.line([(cx - belly * 0.96, bottom - 0.07), (cx + belly * 0.96, bottom - 0.07)], 0.022, "second")
    c.mark(cx - 0.04, middle, 0.075)


@product("Kitchen > Hot drinks > Teapots", ("Teapot", "Tea Pot", "Infuser Teapot"),
    ("ceramic", "porcelain", "steel"), (15, 79), patterns=CLOTH)
def teapot(c: Canvas, s: Shape) -> None:
    rx, ry = s.num("rx", 0.2, 0.27), s.num("ry", 0.16, 0.26)
    cx, cy = 0.5, 0.58
    lift = s.num("spout", 0.02, 0.16)
    c.part(curve([(cx - rx * 0.8, cy + ry * 0.5), (cx - rx - 0.07, cy + ry * 0.1),
        (cx - rx - 0.15, cy - ry * 0.6 - lift), (cx - rx - 0.1, cy - ry * 0.7 - lift),
        (cx - rx - 0.01, cy - ry * 0.25), (cx - rx * 0.8, cy - 0.04)]),
           "plain", "flat")
    if s.trait("handle", ("side", "top")) == "side":
        out = s.num("handle", 0.12, 0.2)
        c.tube(curve([(cx + rx * 0.85, cy - ry * 0.5), (cx + rx + out * 0.7, cy - ry * 0.7),
            (cx + rx + out, cy), (cx + rx * 0.85, cy + ry * 0.5)], closed=False), s.num("grip", 0.035, 0.055),
            "plain")
    else:
        c.tube(ellipse(cx, cy - ry * 0.7, rx * 0.85, s.num("arch", 0.2, 0.32), 180, 360), 0.03,
            s.pick("grip paint", ("wood", "dark", "second")))
    c.part(ellipse(cx, cy + ry * 0.93, rx * 0.55, 0.035), "deep", "flat")
    flat = s.num("square", 0.0, 0.12)
    c.part(curve([(cx, cy - ry), (cx + rx * (0.72 + flat), cy - ry * (0.7 + flat)), (cx + rx, cy),
        (cx + rx * (0.72 + flat), cy + ry * (0.7 + flat)), (cx, cy + ry),
        (cx - rx * (0.72 + flat), cy + ry * (0.7 + flat)),
                  (cx - rx, cy), (cx - rx * (0.72 + flat), cy - ry * (0.7 + flat))]), "main", "ball")
    lid = rx * s.num("lid", 0.4, 0.65)
    c.part(curve([(cx - lid, cy - ry * 0.86), (cx - lid * 0.7, cy - ry - 0.03),
        (cx + lid * 0.7, cy - ry - 0.03), (cx + lid, cy - ry * 0.86), (cx, cy - ry * 0.8)]),
        s.pick("lid paint", ("plain", "second", "pale")), "ball")
    c.part(ellipse(cx, cy - ry - 0.05, s.num("knob", 0.022, 0.04), 0.03), "second", "ball")
    c.mark(cx, cy + 0.03, 0.1)


@product("Kitchen > Cookware > Pans", ("Frying Pan", "Skillet", "Non-Stick Pan"),
    ("metal", "steel", "ceramic"), (15, 99), stance="lies", sizes=("20 cm", "24 cm", "28 cm"))
def pan(c: Canvas, s: Shape) -> None:
    r = s.num("radius", 0.24, 0.31)
    cx, cy = 0.34, 0.6
    angle = math.radians(s.num("angle", -45, -25))
    end = (cx + math.cos(angle) * (r + s.num("handle", 0.26, 0.38)),
        cy + math.sin(angle) * (r + s.num("handle", 0.26, 0.38)))
    start = (cx + math.cos(angle) * r * 0.95, cy + math.sin(angle) * r * 0.95)
    w = s.num("handle width", 0.04, 0.075)
    c.part(limb(start, end, w * 0.7, w), s.pick("handle paint", ("dark", "wood", "second", "metal")), "tube")
    c.part(ellipse(*end, w / 2, w / 2), s.pick("handle paint", ("dark", "wood", "second", "metal")), "flat",
        edge=0)
    c.cut(ellipse(end[0] - 0.005, end[1] + 0.002, w * 0.22, w * 0.22))
    if s.chance("pour lip", 0.4):
        c.part([(cx - r * 0.6, cy - r * 0.85), (cx - r * 0.2, cy - r * 1.0), (cx - r * 0.55, cy - r * 1.12)],
            "plain", "flat")
    if s.chance("helper handle", 0.3):
        c.tube(ellipse(cx - math.cos(angle) * r, cy - math.sin(angle) * r, 0.07, 0.07), 0.025, "dark")
    c.part(ellipse(cx, cy, r, r), "plain", "ball")
    rim = s.num("rim", 0.025, 0.05)
    c.part(ellipse(cx, cy, r - rim, r - rim), s.pick("inside", ("dark", "metal", (214, 206, 192), "deep")),
        "hollow")
    c.part(ellipse(cx, cy, r - rim * 2.2, r - rim * 2.2), s.pick("inside",
        ("dark", "metal", (214, 206, 192), "deep")), "flat", edge=0.15)
    for k in range(s.count("rings", 0, 3)):
        q = (r - rim * 2.2) * (0.75 - 0.22 * k)
        c.line(ellipse(cx, cy, q, q), 0.004, (120, 120, 124))
    c.mark(cx, cy, 0.1)


@product("Kitchen > Bottles > Water bottles", ("Water Bottle", "Drinking Bottle", "Flask"),
    ("steel", "plastic", "glass"), (8, 45), patterns=CLOTH, sizes=("350 ml", "500 ml", "750 ml"), weight=1.3)
def bottle(c: Canvas, s: Shape) -> None:
    width, bottom = s.num("width", 0.1, 0.17), 0.96
    shoulder, top = s.num("shoulder", 0.26, 0.42), s.num("neck top", 0.14, 0.2)
    neck = width * s.num("neck", 0.45, 0.95)
    waist = s.num("waist", -0.04, 0.01)
    cap = s.num("cap", 0.06, 0.13)
    paint = s.pick("cap paint", ("dark", "second", "metal", "wood", "white"))
    kind = s.trait("cap", ("screw", "loop", "sports"))
    if kind == "loop":
        c.tube(ellipse(0.5, top - cap * 0.7, neck * 0.75, 0.075, 180, 360), 0.026, paint)
    elif kind == "sports":
        c.part(box(0.5 - 0.03, top - cap - 0.06, 0.5 + 0.03, top - cap + 0.02, 0.02), "white", "round")
    side = curve([(neck, top), (neck, top + 0.03), (width, shoulder),
        (width + waist, (shoulder + bottom) / 2), (width, bottom - 0.04), (width - 0.02, bottom)],
        closed=False)
    c.part(mirror(side), "main", "round")
    c.part(box(0.5 - neck - 0.01, top - cap, 0.5 + neck + 0.01, top + 0.01, 0.02), paint, "round")
    if s.chance("grip", 0.45):
        y, h = s.num("grip at", 0.45, 0.62), s.num("grip height", 0.06, 0.2)
        c.part(box(0.5 - width - waist * 0.8 - 0.006, y, 0.5 + width + waist * 0.8 + 0.006, y + h, 0.015),
            "second", "round")
    if s.chance("base ring", 0.4):
        c.part(box(0.5 - width - 0.002, bottom - 0.06, 0.5 + width + 0.002, bottom, 0.02), "second", "round")
    c.mark(0.5, s.num("mark at", 0.7, 0.84), 0.09)


@product("Kitchen > Glasses > Wine glasses", ("Wine Glass", "Stem Glass", "Goblet"), ("glass",), (6, 39))
def wine_glass(c: Canvas, s: Shape) -> None:
    rim, belly, deep = s.num("rim", 0.11, 0.22), s.num("belly", 0.16, 0.25), s.num("bowl", 0.28, 0.45)
    top, foot = 0.07, s.num("foot", 0.14, 0.21)
    end = top + deep
    c.part(ellipse(0.5, 0.92, foot, 0.035), "pale", "flat", opacity=0.8)
    c.part(profile([(0.03, end - 0.01), (s.num("stem", 0.009, 0.024), end + 0.06), (0.014, 0.85),
        (0.05, 0.915)]), "pale", "round", opacity=0.85)
    bowl = profile([(rim, top), (belly, top + deep * s.num("belly at", 0.45, 0.72)),
        (belly * 0.6, end - 0.03), (0.02, end)])
    c.part(bowl, "plain", "round", opacity=0.5)
    fill = s.num("wine", 0.3, 0.6)
    if s.chance("filled", 0.6):
        w = belly * 0.93
        c.part(profile([(w, top + deep * (1 - fill * 0.9)), (belly * 0.82, top + deep * 0.75),
            (belly * 0.5, end - 0.045), (0.02, end - 0.015)]), s.pick("drink",
            ((128, 20, 48), (232, 200, 110), (232, 130, 130))), "round", opacity=0.85)
    if s.chance("gold rim", 0.35):
        c.line([(0.5 - rim, top + 0.006), (0.5 + rim, top + 0.006)], 0.014, "brass")
    c.line([(0.5 - belly * 0.7, top + deep * 0.3), (0.5 - belly * 0.74, top + deep * 0.6)], 0.014, "white")
    c.mark(0.5, 0.925, 0.035)


@product("Kitchen > Appliances > Toasters", ("Toaster", "Two-Slice Toaster", "Retro Toaster"),
    ("steel", "plastic", "metal"), (25, 119))
def toaster(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.28, 0.4), s.num("top", 0.34, 0.46), 0.8
    r = s.num("round", 0.05, 0.18)
    if s.chance("bread", 0.6):
        for dx in (-0.13, 0.07)[: s.count("slices", 1, 2)]:
            c.part(curve([(0.5 + dx - 0.09, top + 0.05), (0.5 + dx - 0.1, top - 0.08), (0.5 + dx, top - 0.11),
                (0.5 + dx + 0.1, top - 0.08), (0.5 + dx + 0.09, top + 0.05)]), (206, 150, 88), "flat")
    for x in (0.5 - w * 0.75, 0.5 + w * 0.75):
        c.part(box(x - 0.04, bottom - 0.02, x + 0.04, bottom + 0.035, 0.012), "dark", "flat")
    c.part(box(0.5 - w, top, 0.5 + w, bottom, r), "main", "tube")
    c.part(box(0.5 - w * 0.72, top + 0.005, 0.5 + w * 0.72, top + 0.03, 0.012), "dark", "none")
    paint = s.pick("panel", ("second", "metal", "deep", "dark"))
    if s.trait("finish", ("band", "side panels", "plain")) == "band":
        c.part(box(0.5 - w, bottom - 0.1, 0.5 + w, bottom, 0.03), paint, "tube")
    elif s.traits["finish"] == "side panels":
        for side in (-1, 1):
            x = 0.5 + side * w
            c.part(box(min(x, x - side * 0.09), top + 0.01, max(x, x - side * 0.09), bottom, r * 0.7), paint,
                "round")
    x = 0.5 + w * s.num("lever at", 0.55, 0.8)
    c.line([(x, top + 0.1), (x, bottom - 0.12)], 0.016, "dark")
    c.part(box(x - 0.045, top + s.num("lever", 0.09, 0.2), x + 0.045, top + s.num("lever", 0.09, 0.2) + 0.04,
        0.015), "dark", "tube")
    for k in range(s.count("knobs", 1, 3)):
        c.part(ellipse(0.5 - w * 0.6 + 0.1 * k, bottom - 0.08, 0.03, 0.03),
            s.pick("knob", ("metal", "white", "dark")), "ball")
    c.mark(0.5, (top + bottom) / 2, 0.09)


@product("Kitchen > Cookware > Pots", ("Pot", "Cooking Pot", "Casserole", "Stockpot"),
    ("steel", "metal", "ceramic"), (25, 189), sizes=("2 l", "4 l", "6 l"))
def pot(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.26, 0.34), s.num("top", 0.34, 0.54), s.num("bottom", 0.8, 0.86)
    taper = s.num("taper", -0.02, 0.06)
    paint = s.pick("handles", ("dark", "metal", "plain", "wood", "brass"))
    y = top + s.num("handle at", 0.05, 0.12)
    for side in (-1, 1):
        x = 0.5 + side * (w - 0.01)
        if s.trait("handles", ("loops", "ears")) == "loops":
            c.tube(curve([(x, y), (x + side * 0.1, y + 0.005), (x + side * 0.1, y + 0.075), (x, y + 0.08)],
                closed=False), 0.03, paint)
        else:
            c.part(curve([(x, y), (x + side * 0.11, y - 0.01), (x + side * 0.11, y + 0.03), (x, y + 0.05)]),
                paint, "tube")
    c.part(mirror([(w, top), *curve([(w, top), (w - taper * 0.2, (top + bottom) / 2),
        (w - taper, bottom - 0.02), (w - taper - 0.03, bottom)], closed=False)]), "main", "round")
    high = s.num("lid", 0.05, 0.14)
    clear = s.trait("lid", ("matching", "glass")) == "glass"
    c.part(curve([(0.5 - w - 0.01, top), (0.5 - w * 0.7, top - high * 0.75), (0.5, top - high),
        (0.5 + w * 0.7, top - high * 0.75), (0.5 + w + 0.01, top)], closed=False),
        "glass" if clear else "plain", "ball")
    c.part(box(0.5 - w - 0.018, top - 0.012, 0.5 + w + 0.018, top + 0.016, 0.012),
        "metal" if clear else "deep", "tube")
    c.part(box(0.5 - s.num("knob", 0.025, 0.06), top - high - 0.045, 0.5 + s.num("knob", 0.025, 0.06),
        top - high + 0.005, 0.02), paint, "ball")
    if s.chance("band", 0.35):
        c.line([(0.5 - w + taper * 0.8, bottom - 0.06), (0.5 + w - taper * 0.8, bottom - 0.06)], 0.025,
            "second")
    c.mark(0.5, (top + bottom) / 2 + 0.02, 0.1)


@product("Kitchen > Plates > Plates", ("Plate", "Dinner Plate", "Serving Plate"), ("ceramic", "porcelain"),
    (4, 35), patterns=CLOTH, stance="lies")
def plate(c: Canvas, s: Shape) -> None:
    r = 0.44
    kind = s.trait("shape", ("round", "square", "scalloped", "oval"))
    n = s.count("scallops", 9, 15)

    def ring(k: float) -> list[tuple[float, float]]:
        if kind == "square":
            return box(0.5 - r * 0.9 * k, 0.5 - r * 0.9 * k, 0.5 + r * 0.9 * k, 0.5 + r * 0.9 * k,
                r * s.num("corner", 0.15, 0.5))
        if kind == "scalloped":
            return curve([(0.5 + r * k * (1 + 0.035 * (-1) ** i) * math.cos(i * math.pi / n),
                0.5 + r * k * (1 + 0.035 * (-1) ** i) * math.sin(i * math.pi / n)) for i in range(2 * n)],
                steps=3)
        return ellipse(0.5, 0.5, r * k, r * k * (s.num("oval", 0.66, 0.8) if kind == "oval" else 1))

    c.part(ring(1.0), "main", "ball")
    well = s.num("well", 0.56, 0.74)
    if s.chance("rim ring", 0.6):
        c.line([*ring(s.num("ring at", 0.86, 0.96))], s.num("ring", 0.008, 0.025),
            s.pick("ring paint", ("second", "brass", "white")))
    c.part(ring(well), s.pick("well paint", ("plain", "white", "second", "pale")), "hollow", edge=0.2)
    c.part(ring(well * 0.94), s.pick("well paint", ("plain", "white", "second", "pale")), "flat", edge=0.12)
    for k in range(s.count("dots", 0, 12)):
        a = 360 * k / max(1, s.count("dots", 0, 12))
        x, y = ellipse(0.5, 0.5, r * (well + 0.95) / 2 * 0.98,
            r * (well + 0.95) / 2 * (0.72 if kind == "oval" else 0.98), a, a + 1)[0]
        c.part(ellipse(x, y, 0.018, 0.018), "second", "flat", edge=0.1)
    c.mark(0.5, 0.5, 0.09)
