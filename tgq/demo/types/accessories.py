"""What is worn beside clothes."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb, polygon
from tgq.demo.products import CLOTH, PLAIN, product


@product("Accessories > Headwear > Caps", ("Cap", "Baseball Cap", "Peaked Cap"),
    ("cotton", "denim", "wool", "nylon"), (9, 45), patterns=PLAIN, stance="lies", weight=1.2)
def cap(c: Canvas, s: Shape) -> None:
    rx, high, line = s.num("crown width", 0.25, 0.31), s.num("crown height", 0.24, 0.38), 0.62
    cx = 0.57
    reach, dip = s.num("brim", 0.18, 0.34), s.num("brim dip", 0.0, 0.1)
    flat = s.num("flat", 0.4, 0.8)
    crown = curve([(cx - rx, line), (cx - rx * 0.95, line - high * 0.5),
        (cx - rx * flat * 0.75, line - high * 0.95), (cx, line - high),
        (cx + rx * flat * 0.75, line - high * 0.95),
                   (cx + rx * 0.95, line - high * 0.5), (cx + rx, line)], closed=False)
    c.part([*crown, (cx, line + 0.03)], "main", "ball")
    seams = s.count("panels", 2, 4)
    for k in range(1, seams):
        t = k / seams * 2 - 1
        c.line(curve([(cx, line - high), (cx + rx * t * 0.7, line - high * 0.6), (cx + rx * t, line)],
            closed=False), 0.006, "deep")
    if s.trait("front", ("patch", "panel", "plain")) == "panel":
        c.part(curve([(cx - rx, line), (cx - rx * 0.95, line - high * 0.5),
            (cx - rx * 0.5, line - high * 0.93), (cx - rx * 0.2, line - high * 0.5),
            (cx - rx * 0.25, line + 0.01)]), "second", "flat")
    elif s.traits["front"] == "patch":
        c.part(box(cx - rx * 0.62, line - high * 0.66, cx - rx * 0.05, line - high * 0.2, 0.03), "second",
            "flat")
    c.part(curve([(cx - rx * 0.98, line - 0.03), (cx - rx * 0.2, line + 0.02), (cx + rx * 0.15, line + 0.045),
        (cx - rx * 0.6, line + dip + 0.08), (cx - rx - reach * 0.75, line + dip + 0.06),
                  (cx - rx - reach, line + dip), (cx - rx - reach * 0.5, line - 0.02)]),
                  s.pick("brim paint", ("plain", "second", "deep")), "tube")
    c.part(ellipse(cx, line - high, 0.022, 0.014), "second", "ball")
    if s.chance("vent", 0.5):
        c.part(ellipse(cx + rx * 0.35, line - high * 0.65, 0.012, 0.012), "dark", "none")
    c.mark(cx - rx * 0.34, line - high * 0.43, s.num("mark", 0.08, 0.13))


@product("Accessories > Watches > Watches", ("Watch", "Wrist Watch", "Analog Watch"),
    ("leather", "steel", "rubber"), (29, 420), stance="lies", weight=1.2)
def watch(c: Canvas, s: Shape) -> None:
    r = s.num("case", 0.16, 0.23)
    strap = r * s.num("strap", 0.55, 0.85)
    paint = "metal" if c.look.material == "steel" else "main"
    c.part([(0.5 - strap, 0.5), (0.5 - strap * 0.75, 0.03), (0.5 + strap * 0.75, 0.03), (0.5 + strap, 0.5)],
        paint, "round")
    c.part([(0.5 - strap, 0.5), (0.5 - strap * 0.7, 0.97), (0.5 + strap * 0.7, 0.97), (0.5 + strap, 0.5)],
        paint, "round")
    if c.look.material == "steel":
        for k in range(8):
            for y in (0.05 + 0.035 * k, 0.95 - 0.035 * k):
                c.line([(0.5 - strap * 0.75, y), (0.5 + strap * 0.75, y)], 0.006, (110, 114, 120))
    else:
        for k in range(4):
            c.part(ellipse(0.5, 0.78 + 0.045 * k, 0.012, 0.012), "dark", "none")
        c.line([(0.5 - strap * 0.7, 0.06), (0.5 + strap * 0.7, 0.06)], 0.02, "deep")
    case = s.pick("case paint", ("metal", "brass", "dark", (196, 140, 120)))
    round_case = s.trait("case", ("round", "square")) == "round"
    body = ellipse(0.5, 0.5, r, r) if round_case else box(0.5 - r * 0.9, 0.5 - r, 0.5 + r * 0.9, 0.5 + r,
        r * 0.3)
    c.part(box(0.5 + r * 0.9, 0.47, 0.5 + r + 0.04, 0.53, 0.012), case, "tube")
    c.part(body, case, "ball")
    ring = s.num("bezel", 0.76, 0.9)
    dial = s.pick("dial", ("white", "dark", "second", "pale", "main"))
    c.part(ellipse(0.5, 0.5, r * ring, r * ring) if round_case else box(0.5 - r * 0.9 * ring, 0.5 - r * ring,
        0.5 + r * 0.9 * ring, 0.5 + r * ring, r * 0.22), dial, "flat")
    ink = "dark" if sum(c.rgb(dial)) > 380 else "white"
    n = s.pick("hours", (4, 12, 12))
    for k in range(n):
        a = 360 * k / n
        tip, root = ellipse(0.5, 0.5, r * ring * 0.9, r * ring * 0.9, a, a + 1)[0], ellipse(0.5, 0.5,
            r * ring * 0.76, r * ring * 0.76, a, a + 1)[0]
        c.line([tip, root], 0.011, ink)
    for length, width, a in ((0.5, 0.016, s.num("hour", 0, 360)), (0.72, 0.011, s.num("minute", 0, 360))):
        c.line([(0.5, 0.5), ellipse(0.5, 0.5, r * ring * length, r * ring * length, a, a + 1)[0]], width, ink)
    for k in range(s.count("small dials", 0, 2)):
        c.part(ellipse(0.5 + (-1 if k else 1) * r * 0.36, 0.56, r * 0.18, r * 0.18), "second", "flat")
    c.mark(0.5, 0.5 - r * 0.38, 0.05, ink)


@product("Accessories > Eyewear > Sunglasses", ("Sunglasses", "Shades", "Sun Glasses"), ("plastic", "metal"),
    (15, 190), patterns=("solid", "solid", "solid", "striped", "dotted"), stance="lies", weight=1.2)
def sunglasses(c: Canvas, s: Shape) -> None:
    kind = s.trait("frame", ("round", "square", "aviator", "cat eye"))
    w, h = s.num("lens width", 0.15, 0.2), s.num("lens height", 0.1, 0.17)
    gap, y, rim = w + s.num("bridge", 0.02, 0.05), 0.5, s.num("rim", 0.016, 0.05)
    lens = s.pick("lens", ((50, 52, 58), (94, 66, 44), (58, 88, 82), (70, 84, 140), (190, 120, 60)))
    for side in (-1, 1):
        x = 0.5 + side * gap
        c.tube(curve([(x + side * w * 0.95, y - h * 0.55), (x + side * (w + 0.06), y - h * 0.6),
            (x + side * (w + 0.1), y - h * 0.1), (x + side * (w + 0.07), y + h * s.num("temple", 0.4, 1.4))],
            closed=False), s.num("arm", 0.02, 0.04))

    def ring(x: float, side: int, k: float) -> list[tuple[float, float]]:
        if kind == "round":
            return ellipse(x, y, min(w, h * 1.2) * k, min(w, h * 1.2) * k)
        if kind == "square":
            return box(x - w * k, y - h * 0.85 * k, x + w * k, y + h * 0.85 * k, h * 0.4)
        if kind == "aviator":
            return curve([(x - side * w * k, y - h * 0.75 * k), (x + side * w * k, y - h * 0.8 * k),
                (x + side * w * 0.95 * k, y + h * 0.2 * k), (x + side * w * 0.2 * k, y + h * 1.15 * k),
                (x - side * w * 0.75 * k, y + h * 0.5 * k)])
        return curve([(x - side * w * 0.95 * k, y - h * 0.4 * k), (x + side * w * 0.4 * k, y - h * 0.75 * k),
            (x + side * w * 1.15 * k, y - h * 1.1 * k), (x + side * w * 0.9 * k, y + h * 0.3 * k),
            (x, y + h * 0.8 * k), (x - side * w * 0.85 * k, y + h * 0.35 * k)])

    c.tube(curve([(0.5 - gap + w * 0.8, y - h * 0.2), (0.5, y - h * s.num("bridge arch", 0.25, 0.6)),
        (0.5 + gap - w * 0.8, y - h * 0.2)], closed=False), max(0.02, rim * 0.8), "plain")
    if s.chance("top bar", 0.3):
        c.tube([(0.5 - gap * 0.7, y - h * 0.75), (0.5 + gap * 0.7, y - h * 0.75)], 0.018, "second")
    for side in (-1, 1):
        x = 0.5 + side * gap
        c.part(ring(x, side, 1.0 + rim * 2.4), "main", "tube")
        c.part(ring(x, side, 1.0 - rim), lens, "flat", edge=0.5)
        c.line([(x - w * 0.45, y - h * 0.1), (x - w * 0.05, y - h * 0.45)], 0.016, (210, 214, 222))
    c.mark(0.5 + gap + w * 0.95, y - h * 0.62, 0.03)


@product("Accessories > Rainwear > Umbrellas", ("Umbrella", "Rain Umbrella", "Stick Umbrella"),
    ("nylon", "polyester"), (9, 65), patterns=CLOTH)
def umbrella(c: Canvas, s: Shape) -> None:
    r, top, edge = s.num("radius", 0.36, 0.46), s.num("top", 0.08, 0.2), s.num("edge", 0.44, 0.54)
    paint = s.pick("handle", ("wood", "dark", "second"))
    c.line([(0.5, top - 0.05), (0.5, 0.86)], 0.018, "metal")
    if s.trait("handle", ("crook", "straight")) == "crook":
        c.tube(curve([(0.5, 0.76), (0.5, 0.9), (0.54, 0.95), (0.59, 0.93), (0.6, 0.88)], closed=False), 0.034,
            paint)
    else:
        c.part(box(0.475, 0.76, 0.525, 0.95, 0.02), paint, "round")
    n = s.count("panels", 4, 7)
    round_top = s.num("round", 0.5, 0.85)
    dome = curve([(0.5 - r, edge), (0.5 - r * 0.82, edge - (edge - top) * round_top * 0.75),
        (0.5 - r * 0.35, top + 0.03), (0.5, top), (0.5 + r * 0.35, top + 0.03),
        (0.5 + r * 0.82, edge - (edge - top) * round_top * 0.75), (0.5 + r, edge)], closed=False)
    scallops = []
    for k in range(n):
        a, b = 0.5 + r - 2 * r * k / n, 0.5 + r - 2 * r * (k + 1) / n
        scallops += [(a, edge), ((a * 3 + b) / 4, edge - 0.022), ((a + b) / 2, edge - 0.03),
            ((a + 3 * b) / 4, edge - 0.022)]
    c.part(dome + scallops, "main", "ball")
    if s.chance("two tone", 0.35):
        for k in range(0, n, 2):
            a, b = 0.5 - r + 2 * r * k / n, 0.5 - r + 2 * r * (k + 1) / n
            c.part([*curve([(a, edge), (0.5 + (a - 0.5) * 0.7, (edge + top) / 2 - 0.06), (0.5, top)],
                closed=False), *curve([(0.5, top), (0.5 + (b - 0.5) * 0.7, (edge + top) / 2 - 0.06),
                (b, edge)], closed=False), ((a + b) / 2, edge - 0.03)], "second", "flat", edge=0.2)
    for k in range(1, n):
        x = 0.5 - r + 2 * r * k / n
        c.line(curve([(x, edge), (0.5 + (x - 0.5) * 0.7, (edge + top) / 2 - 0.06), (0.5, top)], closed=False),
            0.005, "deep")
    c.part(polygon(0.5, top - 0.03, 0.02, 3), paint, "flat")
    c.mark(0.5 + r * 0.5, edge - 0.1, 0.07)


@product("Accessories > Scarves > Ties", ("Tie", "Necktie", "Neck Tie"),
    ("cotton", "wool", "polyester", "linen"), (12, 79), patterns=CLOTH[1:], stance="lies")
def tie(c: Canvas, s: Shape) -> None:
    wide, end, knot = s.num("blade", 0.09, 0.17), s.num("end", 0.8, 0.9), s.num("knot", 0.045, 0.075)
    tail = s.num("tail", -0.1, 0.02)
    c.part([(0.5 - 0.02, 0.14), (0.5 + 0.04, 0.14), (0.5 + wide * 0.75, end + tail),
        (0.5 + wide * 0.35, end + tail + 0.07), (0.5 - wide * 0.1, end + tail)], "deep", "flat")
    shape = s.trait("tip", ("pointed", "square"))
    point = 0.085 if shape == "pointed" else 0.0
    c.part([(0.5 - knot * 0.6, 0.17), (0.5 + knot * 0.6, 0.17), (0.5 + wide, end), (0.5, end + point),
        (0.5 - wide, end)], "main", "round")
    c.part(curve([(0.5 - knot, 0.06), (0.5 + knot, 0.06), (0.5 + knot * 0.62, 0.17),
        (0.5 - knot * 0.62, 0.17)], steps=4), s.pick("knot paint", ("main", "second", "deep")), "round")
    if s.chance("clip", 0.35):
        y = s.num("clip at", 0.4, 0.55)
        c.part(box(0.5 - wide * 0.65, y, 0.5 + wide * 0.4, y + 0.022, 0.008), "brass", "tube")
    if s.chance("tip band", 0.4):
        c.part(limb((0.5 - wide * 0.95, end - 0.06), (0.5 + wide * 0.95, end - 0.06), 0.035, 0.035), "second",
            "flat")
    c.mark(0.5, end - 0.12, 0.06)
