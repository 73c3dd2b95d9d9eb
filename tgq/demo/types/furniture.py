"""Furniture and lamps."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb
from tgq.demo.products import CLOTH, PLAIN, product


@product("Furniture > Seating > Chairs", ("Chair", "Dining Chair", "Side Chair"),
    ("oak", "walnut", "metal", "plastic", "velvet"), (39, 260), patterns=PLAIN, weight=1.6)
def chair(c: Canvas, s: Shape) -> None:
    seat, width, back = s.num("seat at", 0.5, 0.6), s.num("seat width", 0.17, 0.24), s.num("back top", 0.05,
        0.2)
    depth, splay = s.num("depth", 0.05, 0.09), s.num("splay", -0.02, 0.06)
    leg, paint = s.num("leg", 0.022, 0.045), s.pick("leg paint", ("wood", "metal", "dark", "plain",
        (98, 62, 40)))
    lean = s.num("lean", -0.01, 0.04)
    for side in (-1, 1):
        c.tube([(0.5 + side * (width - 0.04), seat + 0.02), (0.5 + side * (width - 0.045 + splay * 0.6),
            0.87)], leg * 0.85, paint)
    kind = s.trait("back", ("solid", "slats", "ladder", "open"))
    post = (0.5 - width + 0.02, 0.5 + width - 0.02)
    for x, side in zip(post, (-1, 1), strict=True):
        c.tube([(x, seat), (x + side * lean, back)], leg, paint if kind != "solid" else "deep")
    left, right = post[0] - lean, post[1] + lean
    if kind == "solid":
        end = seat - s.num("back gap", 0.03, 0.12)
        c.part(curve([(left, back + 0.02), (0.5, back - s.num("back arch", 0.0, 0.05)), (right, back + 0.02),
            (post[1], end), (post[0], end)]), "main", "round")
    elif kind == "slats":
        n = s.count("slats", 3, 6)
        for k in range(n):
            t = (k + 0.5) / n
            c.tube([(left + (right - left) * t, back + 0.03), (post[0] + (post[1] - post[0]) * t, seat)],
                0.02, "plain")
        c.part(box(left - 0.02, back, right + 0.02, back + 0.06, 0.02), "main", "tube")
    elif kind == "ladder":
        n = s.count("rungs", 2, 4)
        for k in range(n):
            y = back + 0.02 + (seat - back - 0.08) * k / n
            c.part(box(left, y, right, y + 0.05, 0.02), "main", "tube")
    else:
        c.tube([(left, back + 0.02), (right, back + 0.02)], leg * 1.2, "plain")
    for side in (-1, 1):
        c.tube([(0.5 + side * (width - 0.005), seat + depth), (0.5 + side * (width + splay), 0.96)], leg,
            paint)
    if s.chance("stretcher", 0.4):
        c.tube([(0.5 - width - splay * 0.5, 0.8), (0.5 + width + splay * 0.5, 0.8)], leg * 0.7, paint)
    inset = s.num("seat taper", 0.0, 0.05)
    c.part(curve([(0.5 - width + inset, seat - 0.02), (0.5 + width - inset, seat - 0.02),
        (0.5 + width + 0.02, seat + depth), (0.5 - width - 0.02, seat + depth)], steps=3), "main", "flat")
    c.part(box(0.5 - width - 0.022, seat + depth - 0.015, 0.5 + width + 0.022,
        seat + depth + s.num("cushion", 0.015, 0.05), 0.02), "deep", "tube")
    if s.chance("arms", 0.3):
        y = seat - s.num("arm", 0.1, 0.16)
        for side in (-1, 1):
            x = 0.5 + side * (width + 0.015)
            c.tube([(0.5 + side * (width - 0.02), y), (x + side * 0.015, y + 0.02), (x, seat + depth)],
                leg * 0.9, paint)
    c.mark(0.5, seat + depth * 0.4, 0.05)


@product("Furniture > Tables > Tables", ("Table", "Coffee Table", "Side Table"),
    ("oak", "walnut", "metal", "bamboo"), (45, 420), weight=1.2)
def table(c: Canvas, s: Shape) -> None:
    top, width, thick = s.num("height", 0.26, 0.55), s.num("width", 0.3, 0.46), s.num("board", 0.03, 0.07)
    deep, ground = s.num("depth", 0.03, 0.08), 0.88
    kind = s.trait("base", ("four legs", "pedestal", "trestle", "hairpin"))
    paint = s.pick("leg paint", ("plain", "dark", "metal", "white", "deep"))
    inset, splay, leg = s.num("inset", 0.02, 0.1), s.num("splay", -0.01, 0.05), s.num("leg", 0.025, 0.055)
    if kind == "pedestal":
        c.part(ellipse(0.5, ground, s.num("foot", 0.14, 0.24), 0.04), paint, "flat")
        w = s.num("column", 0.025, 0.07)
        c.part(curve([(0.5 - w * 1.6, top), (0.5 - w * 0.6, (top + ground) / 2), (0.5 - w * 1.5, ground),
            (0.5 + w * 1.5, ground), (0.5 + w * 0.6, (top + ground) / 2), (0.5 + w * 1.6, top)]), paint,
            "round")
    else:
        for side in (-1, 1):
            x = 0.5 + side * (width - inset)
            if kind == "trestle":
                for lean in (-1, 1):
                    c.tube([(x, top + 0.02), (x + lean * 0.08, ground)], leg, paint)
                c.tube([(x - 0.045, (top + ground) / 2 + 0.05), (x + 0.045, (top + ground) / 2 + 0.05)],
                    leg * 0.7, paint)
            elif kind == "hairpin":
                c.line([(x - 0.04, top + 0.02), (x + side * splay, ground), (x + 0.04, top + 0.02)], 0.014,
                    "dark")
            else:
                c.tube([(x - side * 0.07, top), (x - side * 0.07 + side * splay, ground - deep)], leg * 0.8,
                    paint)
                c.part(limb((x, top), (x + side * splay, ground), leg * 1.3, leg * 0.8), paint, "round")
    if s.chance("shelf", 0.35) and kind != "pedestal":
        y = ground - s.num("shelf at", 0.08, 0.16)
        c.part(box(0.5 - width + inset, y, 0.5 + width - inset, y + 0.03), "main", "tube")
    if s.chance("drawer", 0.35):
        c.part(box(0.5 - width * 0.5, top + thick - 0.01, 0.5 + width * 0.5, top + thick + 0.09), "main",
            "flat")
        c.part(ellipse(0.5, top + thick + 0.04, 0.018, 0.018), "metal", "ball")
    c.part([(0.5 - width + deep, top - deep), (0.5 + width - deep, top - deep), (0.5 + width, top),
        (0.5 - width, top)], "main", "flat")
    c.part(box(0.5 - width, top, 0.5 + width, top + thick, s.num("edge", 0.0, 0.03)),
        "deep" if s.chance("dark edge", 0.5) else "main", "tube")
    c.mark(0.5 + width * 0.7, top + thick / 2, min(0.05, thick))


@product("Furniture > Seating > Sofas", ("Sofa", "Couch", "Loveseat"), ("linen", "velvet", "leather", "wool"),
    (199, 1400), patterns=PLAIN)
def sofa(c: Canvas, s: Shape) -> None:
    width, back, seat = s.num("width", 0.36, 0.46), s.num("back", 0.24, 0.38), s.num("seat", 0.56, 0.63)
    ground, base = 0.86, s.num("base", 0.76, 0.81)
    arm, arm_top = s.num("arm", 0.05, 0.12), s.num("arm top", 0.42, 0.54)
    paint = s.pick("leg paint", ("wood", "dark", "metal"))
    for x in (0.5 - width + 0.05, 0.5 + width - 0.05):
        c.part(limb((x, base - 0.01), (x + s.num("leg splay", -0.03, 0.03), ground), 0.05,
            s.num("leg end", 0.018, 0.05)), paint, "round")
    c.part(box(0.5 - width, back, 0.5 + width, base, s.num("back round", 0.02, 0.12)), "main", "flat")
    n = s.count("cushions", 1, 3)
    inner = width - arm * 0.8
    for k in range(n):
        x0, x1 = 0.5 - inner + 2 * inner * k / n, 0.5 - inner + 2 * inner * (k + 1) / n
        c.part(box(x0, back + 0.05, x1, seat + 0.02, 0.05), "main", "ball")
        if s.chance("tufted", 0.35):
            for i in range(2):
                for j in range(2):
                    c.part(ellipse(x0 + (x1 - x0) * (0.33 + 0.33 * i), back + 0.12 + 0.1 * j, 0.008, 0.008),
                        "deep", "none")
    for k in range(n):
        x0, x1 = 0.5 - inner + 2 * inner * k / n, 0.5 - inner + 2 * inner * (k + 1) / n
        c.part(box(x0, seat, x1, seat + 0.1, 0.035), "main", "tube")
    c.part(box(0.5 - width, seat + 0.09, 0.5 + width, base, 0.02), "plain", "flat")
    for side in (-1, 1):
        x = 0.5 + side * (width - arm * 0.2)
        c.part(box(x - arm / 2, arm_top, x + arm / 2, base + 0.005, s.num("arm round", 0.01, 0.06)), "main",
            "round")
    for k in range(s.count("pillows", 0, 2)):
        x = 0.5 + (-1 if k else 1) * inner * 0.72
        c.part(curve([(x - 0.075, seat - 0.12), (x + 0.075, seat - 0.13), (x + 0.08, seat + 0.02),
            (x - 0.08, seat + 0.025)]), "second", "ball")
    c.mark(0.5 - width + 0.1, base - 0.035, 0.04)


@product("Furniture > Lighting > Lamps", ("Lamp", "Table Lamp", "Bedside Lamp"),
    ("linen", "paper", "metal", "cotton"), (19, 160), patterns=CLOTH, weight=1.3)
def lamp(c: Canvas, s: Shape) -> None:
    top, high = s.num("top", 0.05, 0.12), s.num("shade height", 0.2, 0.34)
    upper, lower = s.num("shade top", 0.09, 0.22), s.num("shade bottom", 0.2, 0.33)
    end, ground = top + high, s.num("ground", 0.84, 0.95)
    paint = s.pick("foot paint", ("wood", "metal", "dark", "second", "white"))
    kind = s.trait("stand", ("column", "vase", "tripod", "sphere"))
    if kind == "tripod":
        for x in (-0.17, 0.05, 0.17):
            c.tube([(0.5, end - 0.03), (0.5 + x * s.num("spread", 0.8, 1.2), ground)],
                s.num("leg", 0.022, 0.035), paint)
    else:
        c.tube([(0.5, end - 0.03), (0.5, ground)], s.num("pole", 0.018, 0.04),
            "metal" if kind != "column" else paint)
        if kind == "vase":
            w = s.num("vase", 0.08, 0.15)
            c.part(curve([(0.5 - 0.03, end + 0.06), (0.5 + 0.03, end + 0.06),
                (0.5 + w, (end + ground) / 2 + s.num("vase at", -0.05, 0.08)), (0.5 + w * 0.5, ground),
                (0.5 - w * 0.5, ground),
                          (0.5 - w, (end + ground) / 2 + s.num("vase at", -0.05, 0.08))]), paint, "round")
        elif kind == "sphere":
            for k in range(s.count("balls", 1, 3)):
                r = (ground - end) / 7
                c.part(ellipse(0.5, ground - r * (1.3 + 2 * k), r * 1.15, r), paint, "ball")
        c.part(box(0.5 - s.num("foot", 0.1, 0.17), ground - 0.03, 0.5 + s.num("foot", 0.1, 0.17), ground,
            0.015), paint, "tube")
    bulge = s.num("bulge", -0.03, 0.05)
    right = curve([(upper, top), ((upper + lower) / 2 + bulge, (top + end) / 2), (lower, end)], closed=False)
    c.part([(0.5 + x, y) for x, y in right] + ellipse(0.5, end, lower, 0.025, 0, 180) + [(0.5 - x, y) for x,
        y in reversed(right)], "main", "round")
    if s.chance("trim", 0.5):
        for y, w in ((top + 0.012, upper), (end - 0.005, lower)):
            c.line([(0.5 - w, y), (0.5 + w, y)], 0.016, "second")
    if s.chance("pull", 0.3):
        c.line([(0.56, end), (0.56, end + 0.09)], 0.006, "dark")
        c.part(ellipse(0.56, end + 0.1, 0.014, 0.014), "brass", "ball")
    c.mark(0.5, ground - 0.016, 0.04)


@product("Furniture > Seating > Stools", ("Stool", "Bar Stool", "Counter Stool"),
    ("oak", "metal", "walnut", "leather"), (25, 160))
def stool(c: Canvas, s: Shape) -> None:
    top, ground, w = s.num("top", 0.12, 0.5), 0.94, s.num("seat", 0.15, 0.23)
    paint, leg = s.pick("leg paint", ("wood", "metal", "dark", "plain", "brass")), s.num("leg", 0.022, 0.045)
    splay = s.num("splay", -0.02, 0.09)
    if s.trait("base", ("four legs", "three legs", "pedestal")) == "pedestal":
        c.part(ellipse(0.5, ground - 0.02, s.num("foot", 0.15, 0.21), 0.035), paint, "flat")
        c.tube([(0.5, top), (0.5, ground - 0.03)], leg * 1.4, paint)
        c.line(ellipse(0.5, top + (ground - top) * 0.62, 0.1, 0.025), 0.016, paint)
    else:
        inner = (0.4, -0.4) if s.traits["base"] == "four legs" else (0.0,)
        for t in inner:
            c.tube([(0.5 + w * t, top + 0.03), (0.5 + (w + splay) * t, ground - 0.05)], leg * 0.85, paint)
        y = top + (ground - top) * s.num("ring at", 0.45, 0.75)
        x = (w - 0.03) + (splay + 0.03) * (y - top) / (ground - top)
        c.tube([(0.5 - x, y), (0.5 + x, y)], leg * 0.75, paint)
        for side in (-1, 1):
            c.tube([(0.5 + side * (w - 0.03), top + 0.03), (0.5 + side * (w + splay), ground)], leg, paint)
    if s.chance("low back", 0.3):
        high = s.num("back", 0.08, 0.11)
        c.part(curve([(0.5 - w, top), (0.5 - w - 0.01, top - high), (0.5, top - high - 0.015),
            (0.5 + w + 0.01, top - high), (0.5 + w, top)]), "deep", "round")
    thick = s.num("cushion", 0.03, 0.09)
    c.part(box(0.5 - w, top, 0.5 + w, top + thick, thick * 0.4), "main", "tube")
    c.part(ellipse(0.5, top, w, s.num("seat depth", 0.02, 0.05)), "main", "flat")
    c.mark(0.5, top + thick * 0.6, 0.045)


@product("Furniture > Storage > Bookcases", ("Bookcase", "Shelf", "Shelving Unit", "Display Shelf"),
    ("oak", "walnut", "metal", "bamboo"), (39, 320))
def bookcase(c: Canvas, s: Shape) -> None:
    w, top, ground = s.num("width", 0.17, 0.34), s.num("top", 0.05, 0.24), 0.9
    post, board = s.num("post", 0.018, 0.045), s.num("board", 0.018, 0.035)
    rows = s.count("rows", 2, 5)
    for x in (0.5 - w + 0.03, 0.5 + w - 0.03):
        c.part(box(x - 0.018, ground - 0.02, x + 0.018, ground + 0.05), "dark", "flat")
    if s.trait("back", ("closed", "open")) == "closed":
        c.part(box(0.5 - w, top, 0.5 + w, ground), s.pick("back paint", ("deep", "second", "pale")), "hollow")
    columns = s.count("columns", 1, 2)
    for i in range(rows):
        floor = top + (ground - top) * (i + 1) / rows
        high = (ground - top) / rows
        for j in range(columns):
            x0, x1 = 0.5 - w + post + 2 * w * j / columns, 0.5 - w + 2 * w * (j + 1) / columns - post
            what = s.pick(f"on {i} {j}", ("books", "books", "nothing", "vase", "box", "drawer"))
            if what == "books":
                x, k = x0 + 0.01, 0
                while x < x0 + (x1 - x0) * s.num(f"books {i} {j}", 0.4, 0.95) - 0.03:
                    bw, bh = s.num(f"b {i} {j} {k}", 0.016, 0.036), high * s.num(f"h {i} {j} {k}", 0.5, 0.78)
                    c.part(box(x, floor - bh, x + bw, floor), s.pick(f"c {i} {j} {k}",
                        ((178, 60, 52), (48, 92, 140), (226, 190, 110), (80, 120, 90), (236, 230, 216),
                        (70, 62, 84))), "flat")
                    x, k = x + bw, k + 1
            elif what == "vase":
                xm = (x0 + x1) / 2
                c.part(curve([(xm - 0.015, floor - high * 0.7), (xm + 0.015, floor - high * 0.7),
                    (xm + 0.04, floor - high * 0.25), (xm + 0.02, floor), (xm - 0.02, floor),
                    (xm - 0.04, floor - high * 0.25)]), "second", "round")
            elif what == "box":
                c.part(box(x0 + 0.02, floor - high * 0.45, x1 - 0.02, floor, 0.008), (206, 180, 146), "flat")
            elif what == "drawer":
                c.part(box(x0, floor - high + board, x1, floor), "main", "flat")
                c.part(ellipse((x0 + x1) / 2, floor - high * 0.45, 0.013, 0.013), "metal", "ball")
        c.part(box(0.5 - w, floor - board / 2, 0.5 + w, floor + board / 2), "main", "tube")
    c.part(box(0.5 - w - s.num("cornice", 0.0, 0.02), top - board, 0.5 + w + s.num("cornice", 0.0, 0.02),
        top + board / 2), "main", "tube")
    for k in range(columns + 1):
        x = 0.5 - w + 2 * w * k / columns
        c.part(box(x - post / 2, top, x + post / 2, ground), "main", "round")
    c.mark(0.5, top - board * 0.2, 0.03)


@product("Furniture > Storage > Dressers", ("Dresser", "Chest of Drawers", "Sideboard"),
    ("oak", "walnut", "wood", "bamboo"), (79, 490))
def dresser(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.24, 0.43), s.num("top", 0.24, 0.46), s.num("bottom", 0.78, 0.86)
    ground = 0.92
    paint = s.pick("leg paint", ("plain", "dark", "metal", "wood"))
    for side in (-1, 1):
        x = 0.5 + side * (w - 0.05)
        c.part(limb((x, bottom - 0.01), (x + side * s.num("splay", 0.0, 0.03), ground), 0.045,
            s.num("leg", 0.018, 0.045)), paint, "round")
    c.part(box(0.5 - w, top, 0.5 + w, bottom, 0.008), "main", "flat")
    rows, columns = s.count("rows", 2, 4), s.count("columns", 1, 3)
    kind, metal = s.trait("pulls", ("knobs", "bars", "cut-outs")), s.pick("pull paint",
        ("brass", "metal", "dark"))
    front = s.pick("front", ("main", "second", "pale"))
    for i in range(rows):
        for j in range(columns):
            wide, high = (2 * w - 0.015) / columns, (bottom - top - 0.05) / rows
            x0, x1 = 0.5 - w + 0.015 + wide * j, 0.5 - w + wide * (j + 1)
            y0, y1 = top + 0.04 + high * i, top + 0.03 + high * (i + 1)
            c.part(box(x0, y0, x1, y1, s.num("corner", 0.0, 0.02)), front, "flat")
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if kind == "knobs":
                for dx in (-0.25, 0.25) if x1 - x0 > 0.3 else (0,):
                    c.part(ellipse(x + dx * (x1 - x0), y, 0.014, 0.014), metal, "ball")
            elif kind == "bars":
                c.part(box(x - 0.05, y - 0.009, x + 0.05, y + 0.009, 0.008), metal, "tube")
            else:
                c.part(ellipse(x, y0, 0.035, 0.02, 0, 180), "dark", "none")
    c.part(box(0.5 - w - 0.015, top - 0.012, 0.5 + w + 0.015, top + 0.025, 0.006),
        s.pick("top paint", ("plain", "deep", "white")), "tube")
    c.mark(0.5 + w * 0.86, bottom - 0.035, 0.035)
