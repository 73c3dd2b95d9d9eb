"""Toys and music."""

from __future__ import annotations

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb
from tgq.demo.products import PLAIN, product


@product("Toys > Soft toys > Teddy bears", ("Teddy Bear", "Plush Bear", "Soft Toy Bear"),
    ("plush", "plush", "felt"), (9, 59), patterns=PLAIN, sizes=("20 cm", "30 cm", "50 cm"), weight=1.2)
def teddy(c: Canvas, s: Shape) -> None:
    head, ear, belly = s.num("head", 0.16, 0.22), s.num("ear", 0.05, 0.085), s.num("belly", 0.17, 0.24)
    hy, by = 0.32, s.num("body", 0.64, 0.68)
    arm, leg = s.num("arm", 0.06, 0.085), s.num("leg", 0.075, 0.11)
    for side in (-1, 1):
        c.part(ellipse(0.5 + side * head * 0.82, hy - head * 0.75, ear, ear), "main", "ball")
        c.part(ellipse(0.5 + side * head * 0.82, hy - head * 0.73, ear * 0.6, ear * 0.6),
            s.pick("inner", ("pale", "second")), "ball", edge=0.1)
        x, y = 0.5 + side * (belly + s.num("arm out", 0.03, 0.1)), by + s.num("arm y", -0.12, 0.06)
        c.part(limb((0.5 + side * belly * 0.6, by - 0.14), (x, y), arm * 1.7, arm * 1.7), "main", "flat",
            edge=0.2)
        c.part(ellipse(x, y, arm, arm), "main", "ball")
    c.part(ellipse(0.5, by, belly, belly * 1.08), "main", "ball")
    if s.chance("tummy", 0.6):
        c.part(ellipse(0.5, by + 0.02, belly * 0.62, belly * 0.7), s.pick("inner", ("pale", "second")),
            "ball", edge=0.1)
    for side in (-1, 1):
        x, y = 0.5 + side * s.num("leg x", 0.13, 0.2), 0.87
        c.part(ellipse(x, y, leg, leg * 1.1), "main", "ball")
        c.part(ellipse(x, y + 0.005, leg * 0.6, leg * 0.68), s.pick("inner", ("pale", "second")), "ball",
            edge=0.1)
    c.part(ellipse(0.5, hy, head, head * s.num("head shape", 0.85, 1.0)), "main", "ball")
    c.part(ellipse(0.5, hy + head * 0.36, head * 0.46, head * 0.36), "pale", "ball", edge=0.1)
    eye = s.num("eye", 0.016, 0.028)
    for side in (-1, 1):
        c.part(ellipse(0.5 + side * head * 0.4, hy - head * 0.12, eye, eye), (30, 24, 22), "ball", edge=0)
        c.part(ellipse(0.5 + side * head * 0.4 - eye * 0.3, hy - head * 0.12 - eye * 0.35, eye * 0.28,
            eye * 0.28), "white", "none", edge=0)
    c.part(curve([(0.5 - 0.03, hy + head * 0.18), (0.5 + 0.03, hy + head * 0.18), (0.5, hy + head * 0.36)]),
        (50, 34, 30), "ball", edge=0)
    c.line(curve([(0.46, hy + head * 0.5), (0.5, hy + head * 0.57), (0.54, hy + head * 0.5)], closed=False),
        0.01, (60, 40, 34))
    wear = s.trait("wears", ("bow tie", "scarf", "nothing", "jumper"))
    y = hy + head * 0.98
    if wear == "bow tie":
        for side in (-1, 1):
            c.part([(0.5, y), (0.5 + side * 0.09, y - 0.05), (0.5 + side * 0.09, y + 0.05)], "second", "flat")
        c.part(ellipse(0.5, y, 0.022, 0.022), "second", "ball")
    elif wear == "scarf":
        c.part(box(0.5 - head * 0.8, y - 0.03, 0.5 + head * 0.8, y + 0.035, 0.03), "second", "tube")
        c.part(limb((0.5 + head * 0.4, y + 0.02), (0.5 + head * 0.55, y + 0.18), 0.07, 0.08), "second",
            "flat")
    elif wear == "jumper":
        c.part(curve([(0.5 - belly * 0.75, by - belly * 0.8), (0.5 + belly * 0.75, by - belly * 0.8),
            (0.5 + belly * 1.02, by), (0.5 + belly * 0.9, by + belly * 0.45),
            (0.5 - belly * 0.9, by + belly * 0.45), (0.5 - belly * 1.02, by)]), "second", "ball")
    c.mark(0.5, by + 0.03, 0.1)


@product("Toys > Vehicles > Toy cars", ("Toy Car", "Model Car", "Push Car"), ("plastic", "wood", "metal"),
    (5, 45), patterns=PLAIN, weight=1.2)
def toy_car(c: Canvas, s: Shape) -> None:
    ground, wheel = 0.76, s.num("wheel", 0.075, 0.115)
    sill, deck = ground - wheel * 0.75, s.num("deck", 0.46, 0.54)
    kind = s.trait("body", ("saloon", "van", "pickup", "racer"))
    x0, x1 = s.num("front", 0.05, 0.1), s.num("rear", 0.9, 0.95)
    roof = s.num("roof", 0.24, 0.34)
    glass = (176, 212, 228)
    slope = s.num("slope", 0.05, 0.12)
    if kind == "saloon":
        a, b = s.num("cabin a", 0.28, 0.36), s.num("cabin b", 0.68, 0.8)
        c.part(curve([(a - slope, deck + 0.02), (a + 0.02, roof), (b - 0.04, roof), (b + slope, deck + 0.02)],
            closed=False, steps=4), "plain", "tube")
        c.part([(a - slope * 0.5 + 0.03, deck - 0.01), (a + 0.045, roof + 0.045),
            ((a + b) / 2 - 0.015, roof + 0.045), ((a + b) / 2 - 0.015, deck - 0.01)], glass, "flat")
        c.part([((a + b) / 2 + 0.015, deck - 0.01), ((a + b) / 2 + 0.015, roof + 0.045),
            (b - 0.055, roof + 0.045), (b + slope * 0.5 - 0.02, deck - 0.01)], glass, "flat")
    elif kind == "van":
        c.part(box(0.26, roof - 0.04, x1, sill, 0.05), "main", "tube")
        c.part([(0.29, deck - 0.01), (0.33, roof + 0.02), (0.47, roof + 0.02), (0.47, deck - 0.01)], glass,
            "flat")
        c.part(box(0.52, roof + 0.02, 0.86, deck - 0.01, 0.02), s.pick("side", (glass, "second")), "flat")
    elif kind == "pickup":
        c.part([(0.3, deck + 0.02), (0.38, roof + 0.02), (0.56, roof + 0.02), (0.58, deck + 0.02)], "plain",
            "tube")
        c.part([(0.36, deck - 0.005), (0.405, roof + 0.06), (0.53, roof + 0.06), (0.545, deck - 0.005)],
            glass, "flat")
        if s.chance("cargo", 0.6):
            c.part(box(0.64, deck - 0.14, 0.84, deck + 0.04, 0.02), (190, 142, 92), "flat")
    else:
        c.part(curve([(0.42, deck + 0.03), (0.46, deck - 0.09), (0.6, deck - 0.12), (0.7, deck + 0.03)]),
            "second", "ball")
        c.part(ellipse(0.54, deck - 0.08, 0.06, 0.06), glass, "ball")
        c.part(limb((0.88, deck + 0.02), (0.9, deck - 0.14), 0.03, 0.03), "dark", "flat")
        c.part(box(0.82, deck - 0.17, 0.98, deck - 0.12, 0.015), "second", "tube")
    c.part(curve([(x0, sill), (x0 - 0.015, deck + 0.06), (x0 + 0.08, deck + s.num("bonnet", -0.01, 0.05)),
        (0.3, deck), (x1 - 0.03, deck), (x1 + 0.01, deck + 0.06), (x1, sill)], closed=False, steps=4), "main",
        "tube")
    if s.chance("stripe", 0.5):
        c.part(box(x0 + 0.01, deck + 0.06, x1 - 0.01, deck + 0.06 + s.num("stripe", 0.025, 0.06)), "second",
            "flat", edge=0.15)
    c.part(ellipse(x0 + 0.03, deck + 0.09, 0.026, 0.03), (252, 240, 180), "ball")
    c.part(box(x1 - 0.03, deck + 0.06, x1 + 0.005, deck + 0.11, 0.008), (206, 50, 46), "flat")
    if s.chance("siren", 0.2):
        c.part(box(0.45, roof - 0.06, 0.53, roof + 0.005, 0.015), (70, 130, 230), "ball")
    rim = s.pick("rim", ("metal", "second", "white", "brass"))
    for x in (s.num("axle a", 0.2, 0.26), s.num("axle b", 0.72, 0.8)):
        c.part(ellipse(x, ground - wheel * 0.3, wheel * 1.18, wheel * 1.18, 180, 360), "deep", "none")
        for k, paint in ((1.0, "rubber"), (0.58, rim), (0.2, "dark")):
            c.part(ellipse(x, ground - wheel * 0.2, wheel * k, wheel * k), paint, "ball")
    c.mark(0.5, deck + 0.11, 0.08)


@product("Toys > Bath toys > Rubber ducks", ("Rubber Duck", "Bath Duck", "Bath Toy"), ("rubber", "plastic"),
    (3, 19), patterns=("solid", "solid", "dotted", "striped", "floral"))
def duck(c: Canvas, s: Shape) -> None:
    head, hx, hy = s.num("head", 0.14, 0.19), s.num("head x", 0.34, 0.4), s.num("head y", 0.26, 0.34)
    base = s.num("base", 0.84, 0.9)
    tail = s.num("tail", 0.36, 0.52)
    c.part(curve([(0.22, 0.6), (0.2, 0.75), (0.34, base), (0.66, base), (0.84, 0.72), (0.93, tail),
        (0.78, 0.56), (0.6, 0.55), (0.46, 0.46)]), "main", "ball")
    c.part(curve([(0.46, 0.62), (0.62, s.num("wing top", 0.54, 0.6)), (0.8, 0.6), (0.7, 0.76), (0.5, 0.77)]),
        s.pick("wing", ("deep", "second", "main")), "ball")
    bill = s.pick("bill", ((240, 130, 40), (226, 70, 44), (250, 200, 70)))
    c.part(curve([(hx - head * 0.7, hy), (hx - head * s.num("bill", 1.35, 1.75), hy + 0.03),
        (hx - head * 1.2, hy + 0.08), (hx - head * 0.6, hy + 0.09)]), bill, "tube")
    c.part(ellipse(hx, hy, head, head * 0.96), "main", "ball")
    c.part(ellipse(hx - head * 0.4, hy - head * 0.2, 0.032, 0.04), "white", "flat")
    c.part(ellipse(hx - head * 0.44, hy - head * 0.18, 0.018, 0.024), (26, 24, 24), "ball", edge=0)
    hat = s.trait("wears", ("nothing", "top hat", "sailor cap", "sunglasses", "crown"))
    top = hy - head * 0.85
    if hat == "top hat":
        c.part(box(hx - head * 0.5, top - 0.14, hx + head * 0.5, top + 0.02, 0.01), "dark", "round")
        c.part(box(hx - head * 0.8, top, hx + head * 0.8, top + 0.03, 0.015), "dark", "tube")
        c.line([(hx - head * 0.5, top - 0.02), (hx + head * 0.5, top - 0.02)], 0.025, "second")
    elif hat == "sailor cap":
        c.part(curve([(hx - head * 0.6, top + 0.01), (hx - head * 0.8, top - 0.07),
            (hx + head * 0.8, top - 0.07), (hx + head * 0.6, top + 0.01)]), "white", "tube")
        c.line([(hx - head * 0.6, top), (hx + head * 0.6, top)], 0.022, "second")
    elif hat == "sunglasses":
        for dx in (-0.75, -0.05):
            c.part(box(hx + head * dx - 0.01, hy - head * 0.45, hx + head * dx + head * 0.55, hy + 0.005,
                0.03), "dark", "flat")
        c.line([(hx - head * 0.4, hy - head * 0.35), (hx + head, hy - head * 0.3)], 0.014, "dark")
    elif hat == "crown":
        c.part([(hx - head * 0.5, top + 0.03), (hx - head * 0.6, top - 0.09), (hx - head * 0.25, top - 0.03),
            (hx, top - 0.11), (hx + head * 0.25, top - 0.03), (hx + head * 0.6, top - 0.09),
            (hx + head * 0.5, top + 0.03)], "brass", "flat")
    if s.chance("scarf", 0.3):
        c.part(curve([(hx - head * 0.7, hy + head * 0.7), (hx + head * 0.9, hy + head * 0.6),
            (hx + head, hy + head * 0.85), (hx - head * 0.6, hy + head * 1.0)]), "second", "tube")
    c.mark(0.36, 0.7, 0.07)


@product("Toys > Space > Toy rockets", ("Toy Rocket", "Rocket", "Space Rocket Toy"),
    ("plastic", "wood", "metal"), (9, 49), patterns=PLAIN)
def rocket(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.1, 0.17), 0.05, s.num("bottom", 0.76, 0.82)
    shoulder, fin = s.num("nose", 0.2, 0.34), s.num("fin", 0.1, 0.2)
    drop = s.num("fin drop", 0.0, 0.12)
    paint = s.pick("fin paint", ("second", "deep", "metal"))
    shape = s.trait("fins", ("swept", "square", "rounded"))
    for side in (-1, 1):
        x = 0.5 + side * w * 0.8
        f = [(x, bottom - 0.26), (x + side * fin, bottom - 0.04), (x + side * fin, bottom + drop + 0.03),
            (x, bottom - 0.02)]
        if shape == "square":
            f = [(x, bottom - 0.2), (x + side * fin, bottom - 0.2), (x + side * fin, bottom + drop),
                (x, bottom)]
        c.part(curve(f) if shape == "rounded" else f, paint, "flat")
    c.part([(0.5 - w * 0.55, bottom - 0.01), (0.5 + w * 0.55, bottom - 0.01), (0.5 + w * 0.7, bottom + 0.06),
        (0.5 - w * 0.7, bottom + 0.06)], "dark", "round")
    if s.chance("flame", 0.5):
        c.part(curve([(0.5 - w * 0.5, bottom + 0.06), (0.5 + w * 0.5, bottom + 0.06),
            (0.5 + w * 0.25, bottom + 0.12), (0.5, 0.96), (0.5 - w * 0.25, bottom + 0.12)]), (250, 150, 50),
            "ball", edge=0.1)
    belly = w * s.num("belly", 1.0, 1.25)
    body = curve([(0.0, top), (w * 0.7, (top + shoulder) / 2), (w, shoulder),
        (belly, (shoulder + bottom) / 2), (w * 0.85, bottom)], closed=False)
    c.part([(0.5 + x, y) for x, y in body] + [(0.5 - x, y) for x, y in reversed(body)], "main", "round")
    nose = [p for p in body if p[1] <= shoulder]
    c.part([(0.5 + x, y) for x, y in nose] + [(0.5 - x, y) for x, y in reversed(nose)],
        s.pick("nose paint", ("second", "deep", "metal")), "round")
    for k in range(s.count("windows", 1, 3)):
        y = shoulder + 0.09 + 0.13 * k
        r = s.num("window", 0.035, 0.055)
        c.part(ellipse(0.5, y, r * 1.3, r * 1.3), "metal", "ball")
        c.part(ellipse(0.5, y, r, r), (120, 190, 226), "ball")
    if s.chance("belt", 0.4):
        c.line([(0.5 - w * 0.95, bottom - 0.1), (0.5 + w * 0.95, bottom - 0.1)], 0.03, "second")
    c.mark(0.5, bottom - 0.05, 0.06)


@product("Toys > Building > Building blocks", ("Building Blocks", "Toy Blocks", "Block Set"),
    ("wood", "plastic"), (9, 69), stance="stands")
def blocks(c: Canvas, s: Shape) -> None:
    n = s.count("columns", 2, 4)
    side = s.num("block", 0.15, 0.22)
    x0, ground = 0.5 - n * side / 2, 0.9
    tints = ("main", "second", "deep", "pale", "white")
    studs = s.trait("kind", ("plain", "studded")) == "studded"
    for k in range(n):
        high = s.count(f"high {k}", 1, 3)
        for j in range(high):
            x, y = x0 + side * k + (s.num(f"shift {k} {j}", -0.02, 0.02) if j else 0), ground - side * (j + 1)
            if studs:
                for dx in (0.28, 0.72):
                    c.part(box(x + side * dx - side * 0.13, y - side * 0.14, x + side * dx + side * 0.13,
                        y + 0.01, 0.006), s.pick(f"tint {k} {j}", tints), "round")
            c.part(box(x, y, x + side, y + side, s.num("corner", 0.0, 0.025)), s.pick(f"tint {k} {j}", tints),
                "flat")
            if (k + j) % 2 == 0:
                c.mark(x + side / 2, y + side / 2, side * 0.5)
        y, x = ground - side * high, x0 + side * k
        roof = s.pick(f"roof {k}", ("none", "triangle", "arch", "ball"))
        if roof == "triangle" and not studs:
            c.part([(x, y), (x + side / 2, y - side * 0.75), (x + side, y)], s.pick(f"roof tint {k}", tints),
                "flat")
        elif roof == "arch" and not studs:
            c.part(ellipse(x + side / 2, y, side / 2, side * 0.6, 180, 360), s.pick(f"roof tint {k}", tints),
                "ball")
        elif roof == "ball":
            c.part(ellipse(x + side / 2, y - side * 0.3, side * 0.3, side * 0.3),
                s.pick(f"roof tint {k}", tints), "ball")


@product("Music > Instruments > Guitars", ("Guitar", "Acoustic Guitar", "Six-String Guitar"),
    ("wood", "walnut", "lacquer"), (79, 890), stance="lies")
def guitar(c: Canvas, s: Shape) -> None:
    upper, waist, lower = s.num("upper", 0.13, 0.17), s.num("waist", 0.09, 0.13), s.num("lower", 0.17, 0.23)
    c.part(box(0.465, 0.12, 0.535, 0.6), (104, 66, 42), "round")
    kind = s.trait("body", ("acoustic", "electric", "cutaway"))
    head = s.num("head", 0.04, 0.06)
    c.part(curve([(0.5 - head, 0.02), (0.5 + head, 0.02), (0.5 + head * 0.8, 0.13), (0.5 - head * 0.8, 0.13)],
        steps=3), s.pick("head paint", ("dark", "plain", "second")), "flat")
    for side in (-1, 1):
        for k in range(3):
            c.part(ellipse(0.5 + side * (head + 0.012), 0.035 + 0.035 * k, 0.015, 0.011), "metal", "ball")
    if kind == "electric":
        horn = s.num("horn", 0.1, 0.18)
        body = curve([(0.5 - 0.05, 0.56), (0.5 - upper, 0.56 - horn), (0.5 - upper - 0.03, 0.6),
            (0.5 - waist, 0.7), (0.5 - lower, 0.86), (0.5, 0.96), (0.5 + lower, 0.86), (0.5 + waist, 0.7),
            (0.5 + upper + 0.02, 0.6), (0.5 + upper * 0.85, 0.58 - horn * 0.6), (0.5 + 0.05, 0.56)])
    else:
        corner = [(0.5 + 0.05, 0.52), (0.5 + 0.09, 0.6)] if kind == "cutaway" else [(0.5 + upper * 0.8, 0.47),
            (0.5 + upper, 0.54)]
        body = curve([(0.5, 0.46), *corner, (0.5 + waist, 0.64), (0.5 + lower, 0.8),
            (0.5 + lower * 0.7, 0.93), (0.5, 0.97), (0.5 - lower * 0.7, 0.93), (0.5 - lower, 0.8),
            (0.5 - waist, 0.64), (0.5 - upper, 0.54), (0.5 - upper * 0.8, 0.47)])
    c.part(body, "main", "ball")
    if kind == "electric":
        c.part(curve([(0.5 - 0.04, 0.6), (0.5 + 0.09, 0.58), (0.5 + lower * 0.7, 0.84), (0.5 + 0.02, 0.86),
            (0.5 - 0.07, 0.76)]), s.pick("guard", ("white", "second", "dark")), "flat")
        for y in (0.67, 0.75):
            c.part(box(0.45, y, 0.55, y + 0.035, 0.012), "dark", "tube")
    else:
        c.part(ellipse(0.5, 0.66, 0.062, 0.062), "second", "flat")
        c.part(ellipse(0.5, 0.66, 0.05, 0.05), (40, 26, 18), "hollow")
        if s.chance("guard", 0.5):
            c.part(curve([(0.55, 0.63), (0.6, 0.7), (0.58, 0.78), (0.54, 0.72)]), "dark", "flat")
    c.part(box(0.468, 0.13, 0.532, 0.62), (104, 66, 42), "round")
    for k in range(9):
        c.line([(0.468, 0.17 + 0.045 * k), (0.532, 0.17 + 0.045 * k)], 0.005, "metal")
    c.part(box(0.43, 0.84, 0.57, 0.868, 0.008), "dark", "tube")
    for k in range(4):
        c.line([(0.48 + 0.0133 * k, 0.1), (0.478 + 0.0147 * k, 0.85)], 0.003, (226, 226, 220))
    c.mark(0.5, 0.915, 0.06)
