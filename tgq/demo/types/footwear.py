"""Shoes, drawn from the side with the toe to the left."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import along, box, curve, ellipse, limb
from tgq.demo.products import CLOTH, PLAIN, product

SIZES = ("38", "39", "40", "41", "42", "43")


@product("Shoes > Sports shoes > Sneakers", ("Sneakers", "Trainers", "Running Shoes", "Low Top Sneakers"),
    ("canvas", "leather", "suede", "nylon"), (39, 159),
         patterns=PLAIN, sizes=SIZES, weight=2.0)
def sneaker(c: Canvas, s: Shape) -> None:
    sole, wedge = s.num("sole", 0.05, 0.1), s.num("wedge", 0.0, 0.05)
    ground, top = 0.74, s.num("collar", 0.26, 0.44)
    toe, box_height = s.num("toe", 0.03, 0.08), s.num("toe box", 0.1, 0.17)
    base = ground - sole
    upper = curve([(toe + 0.02, base), (toe, base - box_height * 0.55), (toe + 0.09, base - box_height),
        (0.36, base - box_height - 0.06), (0.56, top + 0.02)], closed=False)
    heel = curve([(0.64, top + 0.05), (0.8, top + 0.055), (0.92, top - 0.01), (0.945, top + 0.06),
        (0.93, base - wedge)], closed=False)
    c.part([(0.56, top + 0.01), (0.6, top - 0.03), (0.93, top - 0.02), (0.9, top + 0.09), (0.6, top + 0.1)],
        "deep", "hollow")
    c.part(upper + heel + [(0.93, base + 0.02), (toe + 0.02, base + 0.02)], "main", "ball")
    if s.chance("toe cap", 0.5):
        c.part(curve([(toe + 0.01, base), (toe + 0.0, base - box_height * 0.5),
            (toe + 0.08, base - box_height * 0.97), (toe + 0.17, base - box_height * 0.6),
            (toe + 0.19, base)]),
               s.pick("cap paint", ("white", "second", "deep")), "ball")
    c.part(curve([(0.945, top + 0.04), (0.95, base), (0.78, base), (0.8, base - 0.1), (0.87, top + 0.1)]),
        s.pick("heel paint", ("second", "deep", "plain")), "round")
    swoosh = s.trait("side design", ("stripes", "panel", "plain", "zigzag"))
    if swoosh == "stripes":
        for k in range(s.count("stripes", 1, 4)):
            x = 0.48 + 0.07 * k
            c.part([(x, base - 0.01), (x + 0.03, base - 0.01), (x + 0.1, top + 0.12), (x + 0.07, top + 0.12)],
                "second", "flat", edge=0.2)
    elif swoosh == "panel":
        c.part(curve([(0.34, base - 0.02), (0.5, base - 0.16), (0.78, base - 0.14), (0.76, base - 0.02)]),
            "second", "flat")
    elif swoosh == "zigzag":
        c.line([(0.38 + 0.07 * k, base - (0.05 if k % 2 else 0.13)) for k in range(6)], 0.022, "second")
    tongue = [(0.55, top + 0.03), (0.53, top - 0.05), (0.61, top - 0.06), (0.64, top + 0.06)]
    c.part(curve(tongue), s.pick("tongue", ("second", "plain", "white")), "flat")
    n = s.count("laces", 3, 6)
    a, b = (0.56, top + 0.045), (0.34, base - box_height - 0.04)
    for k in range(n):
        x, y = along(a, b, k / (n - 0.5))
        c.line([(x - 0.015, y - 0.005), (x + 0.055, y + 0.045)], 0.018,
            s.pick("lace paint", ("white", "white", "dark", "second")))
    c.part(curve([(toe - 0.005, base), (toe - 0.015, ground - 0.01), (0.2, ground), (0.93, ground),
        (0.965, base - wedge * 0.4)], closed=False)
           + [(0.94, base - wedge), (0.5, base - wedge * 0.2), (toe, base - 0.005)],
           s.pick("sole paint", ("white", "white", "dark", "second", (196, 152, 96))), "tube")
    if s.chance("sole line", 0.6):
        c.line([(toe + 0.005, base + sole * 0.45), (0.94, base + sole * 0.45 - wedge * 0.5)], 0.01, "second")
    c.mark(0.7, base - 0.09 - 0.3 * (base - top - 0.2), 0.07)


@product("Shoes > Boots > Boots", ("Boots", "Ankle Boots", "Winter Boots", "Lace-Up Boots"),
    ("leather", "suede", "rubber", "patent leather"), (59, 220),
         sizes=SIZES, weight=1.2)
def boot(c: Canvas, s: Shape) -> None:
    top = s.num("shaft", 0.06, 0.42)
    heel, sole = s.num("heel", 0.03, 0.13), s.num("sole", 0.025, 0.06)
    ground = 0.93
    base = ground - sole
    toe, width = s.num("toe", 0.12, 0.22), s.num("shaft width", 0.27, 0.36)
    back = 0.8
    point = s.num("toe height", 0.08, 0.15)
    body = curve([(toe + 0.01, base), (toe + 0.01, base - point), (toe + 0.15, base - point - 0.08),
        (back - width, base - 0.3), (back - width + s.num("lean", -0.04, 0.03), top)], closed=False)
    c.part([(back - width, top), (back, top), (back - 0.02, top + 0.05), (back - width + 0.02, top + 0.05)],
        "deep", "hollow")
    c.part(body + curve([(back + s.num("flare", -0.02, 0.03), top), (back - 0.01, base - 0.25),
        (back + 0.015, base - heel), (back, base)], closed=False), "main", "round")
    kind = s.trait("closure", ("lace-up", "zip", "pull-on", "buckle"))
    if kind == "lace-up":
        n = s.count("eyelets", 4, 8)
        for k in range(n):
            x, y = along((back - width + 0.015, top + 0.05), (toe + 0.17, base - point - 0.08), k / n)
            c.line([(x - 0.01, y), (x + 0.06, y + 0.035)], 0.014, s.pick("lace", ("dark", "second", "white")))
    elif kind == "zip":
        c.line([(back - width * 0.45, top + 0.03), (back - width * 0.4, base - 0.08)], 0.014, "metal")
    elif kind == "buckle":
        for k in range(s.count("straps", 1, 3)):
            y = base - 0.2 - 0.1 * k
            if y > top + 0.04:
                c.line([(back - width - 0.01, y), (back, y - 0.015)], 0.035, "deep")
                c.part(box(back - width * 0.6, y - 0.035, back - width * 0.6 + 0.06, y + 0.02, 0.008),
                    "metal", "flat")
    else:
        c.part([(back - width * 0.7, top + 0.05), (back - width * 0.3, top + 0.05),
            (back - width * 0.5, base - 0.18)], "second", "flat")
    if s.chance("cuff", 0.4):
        c.part(box(back - width - 0.015, top - 0.01, back + 0.015, top + s.num("cuff height", 0.04, 0.09),
            0.02), s.pick("cuff paint", ("second", "pale", "deep")), "tube")
    c.part(curve([(toe, base), (toe - 0.01, ground - 0.005), (0.45, ground), (0.5, base + sole * 0.6),
        (0.6, base + sole * 0.4)], closed=False)
           + [(0.62, ground), (back + 0.01, ground), (back + 0.015, base - heel), (0.62, base - heel * 0.55),
           (0.5, base)], s.pick("sole paint", ("dark", "rubber", (150, 108, 70), "second")), "flat")
    c.mark(back - width * 0.3, base - 0.16, 0.06)


@product("Shoes > Heels > Pumps", ("Pumps", "High Heels", "Court Shoes"),
    ("leather", "patent leather", "suede", "velvet"), (39, 180), patterns=("solid", "solid", "dotted"),
    sizes=SIZES[:4])
def pump(c: Canvas, s: Shape) -> None:
    ground = 0.82
    heel = s.num("heel height", 0.14, 0.42)
    thick = s.num("heel width", 0.018, 0.085)
    toe = 0.06
    high = ground - heel
    strap = s.trait("strap", ("none", "ankle strap", "t-strap"))
    c.part([(0.83, high - 0.02), (0.93, high - 0.04), (0.93, ground - 0.04), (0.93 - thick * 0.3, ground),
        (0.93 - thick * 1.1, ground), (0.86, high + heel * 0.45)],
           s.pick("heel paint", ("plain", "deep", "second")), "round")
    vamp = (s.num("vamp", 0.27, 0.4), ground - s.num("vamp height", 0.14, 0.19) - heel * 0.12)
    counter = (0.935, high - s.num("counter", 0.13, 0.18))
    dip = (vamp[1] + counter[1]) / 2 + s.num("topline", 0.05, 0.1)
    low = ((vamp[0] + counter[0]) / 2 - 0.02, min(dip, ground - heel * 0.62 - 0.06))  # above the sole
    far = ((vamp[0] + counter[0]) / 2, (vamp[1] + counter[1]) / 2 + 0.015)
    c.part(curve([vamp, far, (counter[0] - 0.03, counter[1] + 0.005), (0.85, high - 0.06), low]), "pale",
        "hollow")
    arch = curve([(toe + 0.02, ground - 0.004), (0.3, ground - 0.008), (0.48, ground - heel * 0.3),
        (0.7, high + 0.03), (0.92, high + 0.01)], closed=False)
    tip = toe - (0.035 if s.chance("pointed", 0.6) else -0.005)
    top = curve([(0.945, high - 0.03), counter, (low[0] + (counter[0] - low[0]) * 0.55,
        low[1] - (low[1] - counter[1]) * 0.3),
        low, vamp, (toe + 0.1, ground - 0.105), (tip, ground - 0.03)], closed=False)
    c.part(arch + top, "main", "ball")
    if s.chance("toe cap", 0.35):
        c.part(curve([(tip + 0.01, ground - 0.03), (toe + 0.08, ground - 0.095), (toe + 0.13, ground - 0.085),
            (toe + 0.14, ground - 0.012), (toe + 0.03, ground - 0.006)]), "second", "flat")
    if strap != "none":
        y = counter[1] - s.num("strap height", 0.04, 0.12)
        ends = {"ankle strap": (0.74, low[1] - 0.02), "t-strap": vamp}[strap]
        c.tube(curve([(0.925, counter[1] + 0.03), (0.9, y), ((0.9 + ends[0]) / 2, (y + ends[1]) / 2 - 0.03),
            ends],
            closed=False), 0.024, "second")
    if s.chance("bow", 0.35):
        x, y = vamp[0] - 0.02, vamp[1] + 0.01
        for side in (-1, 1):
            c.part([(x, y), (x + side * 0.06, y - 0.04), (x + side * 0.06, y + 0.04)], "second", "flat")
    c.line([(toe - 0.01, ground - 0.005), (0.3, ground - 0.005)], 0.014, "dark")
    c.mark(0.82, high - 0.03, 0.045)


@product("Shoes > Sandals > Flip-flops", ("Flip-Flops", "Sandals", "Beach Slippers"),
    ("rubber", "leather", "plastic"), (6, 49), patterns=CLOTH, stance="lies", sizes=SIZES)
def flip_flop(c: Canvas, s: Shape) -> None:
    ball, heel, long = s.num("ball", 0.12, 0.155), s.num("heel", 0.085, 0.115), s.num("length", 0.35, 0.43)
    kind = s.trait("strap", ("toe post", "cross", "double band"))
    for side in (-1, 1):
        x = 0.5 + side * 0.19

        def sole(k: float, x: float = x, side: int = side) -> list[tuple[float, float]]:
            return curve([(x - side * 0.02, 0.5 - long * k), (x + side * ball * 0.75 * k,
                0.5 - long * 0.8 * k), (x + side * ball * k, 0.5 - long * 0.4 * k),
                (x + side * heel * 0.9 * k, 0.5 + 0.05),
                          (x + side * heel * k, 0.5 + long * 0.75 * k), (x, 0.5 + long * k),
                          (x - side * heel * k, 0.5 + long * 0.75 * k), (x - side * heel * 0.75 * k, 0.5),
                          (x - side * ball * k, 0.5 - long * 0.5 * k),
                          (x - side * ball * 0.75 * k, 0.5 - long * 0.88 * k)])

        c.part(sole(1.0), s.pick("rim", ("deep", "dark", "second", "white")), "flat")
        c.part(sole(0.92), "main", "flat")
        w, paint = s.num("band", 0.03, 0.06), s.pick("band paint", ("second", "deep", "dark"))
        if kind == "toe post":
            post = (x - side * 0.015, 0.5 - long * 0.55)
            for end in (-1, 1):
                c.tube(curve([post, (x + end * ball * 0.6, 0.5 - long * 0.32),
                    (x + end * ball * 0.9, 0.5 + 0.02)], closed=False), w, paint)
            c.part(ellipse(*post, 0.02, 0.02), paint, "ball")
        elif kind == "cross":
            c.part(limb((x - ball * 0.98, 0.5 - long * 0.6), (x + ball * 0.98, 0.5 - long * 0.1), w * 1.7,
                w * 1.7), paint, "tube")
            c.part(limb((x + ball * 0.98, 0.5 - long * 0.6), (x - ball * 0.98, 0.5 - long * 0.1), w * 1.7,
                w * 1.7), paint, "tube")
        else:
            for t in (0.58, 0.18):
                c.part(limb((x - ball, 0.5 - long * t), (x + ball, 0.5 - long * t), w * 1.8, w * 1.8), paint,
                    "tube")
                c.part(box(x + side * ball * 0.5 - 0.02, 0.5 - long * t - w, x + side * ball * 0.5 + 0.02,
                    0.5 - long * t + w, 0.006), "metal", "flat")
        c.mark(x, 0.5 + long * 0.68, 0.07)


@product("Shoes > Formal shoes > Loafers", ("Loafers", "Slip-On Shoes", "Penny Loafers", "Moccasins"),
    ("leather", "suede", "patent leather", "velvet"), (45, 190), sizes=SIZES)
def loafer(c: Canvas, s: Shape) -> None:
    ground, sole, heel = 0.72, s.num("sole", 0.02, 0.045), s.num("heel", 0.02, 0.06)
    base, toe = ground - sole, s.num("toe", 0.04, 0.08)
    high, back = s.num("vamp", 0.14, 0.22), s.num("back", 0.2, 0.3)
    front = s.num("toe height", 0.07, 0.12)
    mouth = s.num("mouth", 0.4, 0.5)
    c.part(curve([(mouth, base - high), (0.7, base - high - 0.01), (0.93, base - back),
        (0.88, base - back * 0.5), (0.6, base - high * 0.7)]), "deep", "hollow")
    c.part(curve([(toe + 0.01, base), (toe, base - front), (toe + 0.13, base - front - 0.045),
        (mouth - 0.06, base - high - 0.03), (mouth, base - high)], closed=False)
           + curve([(mouth + 0.03, base - high * 0.85), (0.66, base - high * 0.62),
           (0.82, base - back * 0.86), (0.93, base - back), (0.955, base - back * 0.5), (0.945, base)],
           closed=False), "main", "ball")
    c.line(curve([(toe + 0.03, base - front * 0.9), (toe + 0.15, base - front * 0.75),
        (mouth - 0.05, base - high * 0.7)], closed=False), 0.012, "deep")
    kind = s.trait("trim", ("penny strap", "tassel", "buckle", "plain"))
    if kind in ("penny strap", "buckle"):
        c.part([(mouth - 0.13, base - high - 0.005), (mouth - 0.04, base - high - 0.03),
            (mouth + 0.07, base - 0.015), (mouth - 0.06, base - 0.015)], s.pick("strap", ("deep", "second")),
            "flat")
        c.part(box(mouth - 0.1, base - high * 0.82, mouth - 0.02, base - high * 0.6, 0.012),
            "brass" if kind == "buckle" else "dark", "flat")
    elif kind == "tassel":
        for dx in (-0.03, 0.03):
            c.line([(mouth - 0.08, base - high * 0.9), (mouth - 0.09 + dx, base - high * 0.55)], 0.012,
                "deep")
            c.part(limb((mouth - 0.09 + dx, base - high * 0.55), (mouth - 0.1 + dx * 1.3, base - high * 0.2),
                0.018, 0.045), "second", "round")
    if s.chance("heel tab", 0.4):
        c.part(curve([(0.945, base - back * 0.95), (0.955, base - back * 0.5), (0.945, base - 0.01),
            (0.86, base - 0.01), (0.88, base - back * 0.6)]), "second", "flat")
    paint = s.pick("sole paint", ("dark", (150, 108, 70), "white", "deep"))
    c.part([(toe, base), (toe + 0.02, ground), (0.66, ground), (0.68, ground - 0.005),
        (0.955, ground - 0.005), (0.955, base)], paint, "flat")
    c.part(box(0.72, ground - 0.01, 0.955, ground + heel, 0.008), paint, "flat")
    c.mark(0.78, base - 0.09, 0.05)
