"""Garden."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import along, box, curve, ellipse, limb
from tgq.demo.products import CLOTH, PLAIN, product


@product("Garden > Watering > Watering cans", ("Watering Can", "Garden Watering Can", "Plant Waterer"),
    ("metal", "plastic", "steel"), (9, 59), patterns=PLAIN, weight=1.2)
def watering_can(c: Canvas, s: Shape) -> None:
    x0, x1 = s.num("left", 0.36, 0.42), s.num("right", 0.7, 0.76)
    top, bottom = s.num("top", 0.4, 0.52), 0.88
    taper = s.num("taper", -0.04, 0.05)
    tip = (s.num("tip x", 0.07, 0.13), s.num("tip y", 0.24, 0.42))
    root = (x0 + 0.03, bottom - s.num("spout at", 0.1, 0.22))
    c.part(limb(root, tip, s.num("spout", 0.07, 0.11), 0.04), "plain", "tube")
    if s.trait("spout", ("rose", "open")) == "rose":
        a, b = along(root, tip, 0.98), along(root, tip, 1.15)
        c.part(limb(a, b, 0.05, s.num("rose", 0.11, 0.17)), s.pick("rose paint",
            ("second", "metal", "deep", "brass")), "flat")
    paint = s.pick("handle paint", ("plain", "second", "dark", "wood"))
    kind = s.trait("handle", ("bow", "back", "both"))
    w = s.num("handle width", 0.03, 0.05)
    if kind != "bow":
        out = s.num("handle out", 0.1, 0.18)
        c.tube(curve([(x1 - 0.03, top + 0.02), (x1 + out * 0.8, top - 0.01), (x1 + out, (top + bottom) / 2),
            (x1 - 0.01, bottom - 0.1)], closed=False), w, paint)
    if kind != "back":
        rise = s.num("rise", 0.14, 0.26)
        c.tube(curve([(x0 + 0.03, top + 0.03), (x0 + 0.05, top - rise * 0.8), ((x0 + x1) / 2, top - rise),
            (x1 - 0.05, top - rise * 0.8), (x1 - 0.03, top + 0.03)], closed=False), w, paint)
    c.part(ellipse((x0 + x1) / 2, top, (x1 - x0) / 2, 0.04), "deep", "hollow")
    c.part([*ellipse((x0 + x1) / 2, top, (x1 - x0) / 2, 0.04, 180, 0), (x1 - taper, bottom),
        *ellipse((x0 + x1) / 2, bottom, (x1 - x0) / 2 - taper, 0.025, 0, 180), (x0 + taper, bottom)], "main",
        "round")
    if s.chance("half cover", 0.5):
        c.part(ellipse((x0 + x1) / 2, top, (x1 - x0) / 2, 0.04, 90, 270), "plain", "flat")
    for k in range(s.count("bands", 0, 2)):
        y = bottom - 0.06 - 0.2 * k
        c.line([(x0 + taper * 0.7, y), (x1 - taper * 0.7, y)], 0.02, "second")
    c.line([along(root, tip, 0.45), (x0 + 0.02, top + 0.05)], 0.018, paint)
    c.mark((x0 + x1) / 2, (top + bottom) / 2 + 0.02, 0.09)


@product("Garden > Planting > Flower pots", ("Flower Pot", "Planter", "Plant Pot"),
    ("terracotta", "ceramic", "plastic"), (4, 49), patterns=CLOTH, sizes=("15 cm", "20 cm", "30 cm"),
    weight=1.2)
def flower_pot(c: Canvas, s: Shape) -> None:
    top, bottom = s.num("top", 0.48, 0.58), 0.9
    rim, foot = s.num("rim", 0.2, 0.3), s.num("foot", 0.12, 0.22)
    plant = s.trait("plant", ("cactus", "leaves", "snake plant", "none"))
    leaf = s.pick("green", ((70, 132, 74), (96, 156, 80), (52, 110, 88)))
    if plant == "cactus":
        w, high = s.num("cactus", 0.07, 0.12), s.num("cactus high", 0.14, 0.4)
        for side in (-1, 1):
            if s.chance(f"arm {side}", 0.6):
                y = high + s.num(f"arm at {side}", 0.06, 0.14)
                c.tube(curve([(0.5, y + 0.12), (0.5 + side * 0.15, y + 0.11), (0.5 + side * 0.16, y)],
                    closed=False), 0.07, leaf)
        c.part(box(0.5 - w, high, 0.5 + w, top + 0.05, w), leaf, "round")
        for k in (-0.5, 0.0, 0.5):
            c.line([(0.5 + w * k, high + 0.04), (0.5 + w * k, top)], 0.006, (230, 236, 200))
    elif plant == "leaves":
        n = s.count("leaves", 5, 9)
        for k in range(n):
            t = k / (n - 1) * 2 - 1
            tip = (0.5 + t * s.num("spread", 0.24, 0.38), top - s.num("leaf", 0.24,
                0.42) * (1 - 0.45 * abs(t)))
            mid = along((0.5, top), tip, 0.55)
            w = s.num("leaf width", 0.04, 0.075)
            c.part(curve([(0.5, top + 0.02), (mid[0] - w, mid[1]), tip, (mid[0] + w, mid[1])]), leaf, "flat")
            c.line([(0.5, top), tip], 0.005, (190, 216, 160))
    elif plant == "snake plant":
        n = s.count("blades", 3, 6)
        for k in range(n):
            x = 0.5 + (k - (n - 1) / 2) * rim * 1.5 / n
            y = s.num(f"blade {k}", 0.08, 0.3)
            c.part(curve([(x - 0.02, top + 0.03), (x - 0.038, (top + y) / 2), (x + (x - 0.5) * 0.5, y),
                (x + 0.038, (top + y) / 2), (x + 0.02, top + 0.03)]), leaf, "round")
            c.line([(x, top), (x + (x - 0.5) * 0.4, y + 0.06)], 0.01, (222, 216, 130))
    kind = s.trait("form", ("tapered", "round", "cylinder", "square"))
    belly = {"tapered": (rim + foot) / 2, "round": rim * 1.12, "cylinder": rim, "square": rim}[kind]
    low = foot if kind in ("tapered", "round") else rim * 0.97
    wall = curve([(rim, top), (belly, (top + bottom) / 2), (low, bottom)], closed=False)
    if s.chance("saucer", 0.4):
        c.part(box(0.5 - low - 0.06, bottom - 0.015, 0.5 + low + 0.06, bottom + 0.03, 0.015), "second",
            "tube")
    if s.chance("feet", 0.3):
        for x in (-0.7, 0.7):
            c.part(limb((0.5 + x * low, bottom - 0.01), (0.5 + x * low * 1.15, bottom + 0.07), 0.035, 0.02),
                "wood", "round")
    c.part([(0.5 + x, y) for x, y in wall] + [(0.5 - x, y) for x, y in reversed(wall)], "main",
        "flat" if kind == "square" else "round")
    if s.chance("rim", 0.6):
        c.part(box(0.5 - rim - 0.02, top - 0.02, 0.5 + rim + 0.02, top + s.num("rim height", 0.03, 0.08),
            0.008), s.pick("rim paint", ("plain", "second", "deep")), "round")
    c.mark(0.5, (top + bottom) / 2 + 0.05, 0.08)


@product("Garden > Tools > Spades", ("Spade", "Garden Shovel", "Digging Spade"), ("steel", "metal"), (9, 59),
    stance="lies")
def spade(c: Canvas, s: Shape) -> None:
    w, start = s.num("blade", 0.11, 0.18), s.num("blade top", 0.54, 0.66)
    shaft, paint = s.num("shaft", 0.03, 0.05), s.pick("shaft paint", ("wood", "dark", "second"))
    c.tube([(0.5, 0.08), (0.5, start + 0.05)], shaft, paint)
    grip = s.trait("handle", ("D-grip", "T-grip", "ball"))
    tint = s.pick("grip paint", ("dark", "second", "plain", "wood"))
    if grip == "D-grip":
        g = s.num("grip", 0.07, 0.1)
        c.tube(curve([(0.5, 0.17), (0.5 - g, 0.12), (0.5 - g, 0.05), (0.5 + g, 0.05), (0.5 + g, 0.12)],
            steps=4), 0.034, tint)
    elif grip == "T-grip":
        c.tube([(0.5 - 0.1, 0.06), (0.5 + 0.1, 0.06)], 0.05, tint)
    else:
        c.part(ellipse(0.5, 0.07, 0.045, 0.045), tint, "ball")
    c.part([(0.5 - shaft, start - 0.1), (0.5 + shaft, start - 0.1), (0.5 + shaft * 1.3, start + 0.06),
        (0.5 - shaft * 1.3, start + 0.06)], "deep", "round")
    kind = s.trait("blade", ("pointed", "square", "round"))
    low = s.num("blade end", 0.9, 0.96)
    if kind == "square":
        blade = [(0.5 - w, start), (0.5 + w, start), (0.5 + w * 0.92, low), (0.5 - w * 0.92, low)]
    elif kind == "pointed":
        blade = curve([(0.5 - w, start), (0.5 + w, start), (0.5 + w, start + 0.16), (0.5, low + 0.01),
            (0.5 - w, start + 0.16)], steps=4)
    else:
        blade = curve([(0.5 - w, start + 0.01), (0.5, start - 0.01), (0.5 + w, start + 0.01),
            (0.5 + w * 1.04, start + 0.15), (0.5 + w * 0.6, low - 0.02), (0.5 - w * 0.6, low - 0.02),
            (0.5 - w * 1.04, start + 0.15)])
    c.part(blade, "main", "round")
    c.part([(0.5 - shaft * 0.9, start - 0.02), (0.5 + shaft * 0.9, start - 0.02), (0.5, start + 0.16)],
        "deep", "round")
    for side in (-1, 1):
        c.line([(0.5 + side * w * 0.35, start), (0.5 + side * w, start)], 0.018, "deep")
    if s.chance("band", 0.5):
        y = s.num("band at", 0.25, 0.45)
        c.line([(0.5, y), (0.5, y + s.num("band", 0.03, 0.1))], shaft * 1.1, "second")
    c.mark(0.5, start + 0.2, 0.07)


@product("Garden > Birds > Birdhouses", ("Birdhouse", "Nesting Box", "Bird House"),
    ("wood", "oak", "bamboo", "plastic"), (9, 59), patterns=PLAIN)
def birdhouse(c: Canvas, s: Shape) -> None:
    w, eaves, bottom = s.num("width", 0.17, 0.26), s.num("eaves", 0.36, 0.46), s.num("bottom", 0.78, 0.88)
    ridge = s.num("ridge", 0.1, 0.24)
    taper = s.num("taper", -0.04, 0.05)
    stand = s.trait("mounting", ("pole", "hanging", "wall"))
    if stand == "pole":
        c.part(box(0.47, bottom - 0.01, 0.53, 0.98), "wood", "round")
    elif stand == "hanging":
        c.line(ellipse(0.5, ridge - 0.03, 0.04, 0.05), 0.012, "dark")
    else:
        c.part(box(0.46, ridge - 0.07, 0.54, bottom + 0.07, 0.01), "wood", "flat")
    c.part([(0.5, ridge + 0.03), (0.5 + w, eaves), (0.5 + w - taper, bottom), (0.5 - w + taper, bottom),
        (0.5 - w, eaves)], "main", "flat")
    if s.chance("planks", 0.5):
        for k in range(1, 5):
            c.line([(0.5 - w + 0.01, eaves + (bottom - eaves) * k / 5),
                (0.5 + w - 0.01, eaves + (bottom - eaves) * k / 5)], 0.006, "deep")
    over, thick = s.num("overhang", 0.05, 0.1), s.num("roof", 0.04, 0.075)
    slope = (eaves - ridge) / w
    paint = s.pick("roof paint", ("second", "deep", "dark", (150, 70, 50)))
    for side in (-1, 1):
        c.part(limb((0.5 - side * 0.01, ridge), (0.5 + side * (w + over), eaves + over * slope), thick,
            thick), paint, "flat")
    r = s.num("hole", 0.05, 0.085)
    y = eaves + s.num("hole at", 0.04, 0.12)
    door = s.trait("entrance", ("round", "heart", "arch"))
    if s.chance("ring", 0.5):
        c.part(ellipse(0.5, y, r * 1.25, r * 1.25), "second", "flat")
    if door == "heart":
        c.part(curve([(0.5, y - r * 0.5), (0.5 + r * 0.8, y - r * 0.9), (0.5 + r, y - r * 0.1), (0.5, y + r),
            (0.5 - r, y - r * 0.1), (0.5 - r * 0.8, y - r * 0.9)]), (36, 28, 24), "none")
    elif door == "arch":
        c.part([*ellipse(0.5, y, r * 0.85, r, 180, 360), (0.5 + r * 0.85, y + r), (0.5 - r * 0.85, y + r)],
            (36, 28, 24), "none")
    else:
        c.part(ellipse(0.5, y, r, r), (36, 28, 24), "none")
    c.tube([(0.5, y + r + 0.05), (0.5, y + r + 0.06)], 0.034, "wood")
    c.part(box(0.5 - w - 0.03, bottom - 0.01, 0.5 + w + 0.03, bottom + 0.03, 0.006), paint, "tube")
    c.mark(0.5 + w * 0.5, bottom - 0.07, 0.06)
