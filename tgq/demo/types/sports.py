"""Sports."""

from __future__ import annotations

import math

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb, polygon
from tgq.demo.products import PLAIN, product


@product("Sports > Racket sports > Rackets", ("Racket", "Tennis Racket", "Training Racket"),
    ("metal", "plastic"), (19, 190), stance="lies", weight=1.2)
def racket(c: Canvas, s: Shape) -> None:
    w, top, low = s.num("head width", 0.17, 0.23), 0.05, s.num("head end", 0.5, 0.6)
    cy, ry, frame = (top + low) / 2, (low - top) / 2, s.num("frame", 0.024, 0.045)
    egg = s.num("egg", -0.05, 0.05)
    head = curve([(0.5, top), (0.5 + w * 0.8, cy - ry * 0.6), (0.5 + w, cy + egg),
        (0.5 + w * 0.7, cy + ry * 0.7), (0.5, low), (0.5 - w * 0.7, cy + ry * 0.7), (0.5 - w, cy + egg),
        (0.5 - w * 0.8, cy - ry * 0.6)])
    string = s.pick("strings", ((238, 238, 230), (250, 230, 120), "second"))
    n = s.count("string count", 7, 13)
    for k in range(1, n):
        t = k / n * 2 - 1
        half = math.sqrt(max(0.0, 1 - t * t)) * 0.94
        c.line([(0.5 + w * t, cy - ry * half), (0.5 + w * t, cy + ry * half)], 0.006, string)
        c.line([(0.5 - w * half, cy + ry * t), (0.5 + w * half, cy + ry * t)], 0.006, string)
    c.tube([*head, head[0]], frame, "plain")
    arc = len(head) // 8
    for k in range(s.count("accents", 1, 4)):
        start = (k * 2 * arc + arc) % len(head)
        c.line(head[start:start + arc], frame * 0.7, "second")
    yoke = s.trait("throat", ("open", "closed"))
    neck = s.num("neck", 0.66, 0.72)
    if yoke == "open":
        for side in (-1, 1):
            c.tube([(0.5 + side * w * 0.5, low - 0.07), (0.5, neck)], frame * 0.9, "plain")
    c.tube([(0.5, low - 0.01), (0.5, neck + 0.05)], frame * 1.1, "plain" if yoke == "closed" else "second")
    g = s.num("grip", 0.05, 0.07)
    c.part(box(0.5 - g / 2, neck, 0.5 + g / 2, 0.96, 0.015), s.pick("grip paint",
        ("dark", "white", "second")), "round")
    for k in range(7):
        y = neck + 0.02 + (0.94 - neck) * k / 7
        c.line([(0.5 - g / 2, y + 0.02), (0.5 + g / 2, y)], 0.006, (120, 120, 124))
    c.mark(0.5, cy, 0.12, "second" if s.chance("stencil", 0.5) else None)


@product("Sports > Fitness > Dumbbells", ("Dumbbell", "Hand Weight", "Gym Dumbbell"),
    ("rubber", "steel", "plastic"), (9, 89), stance="stands", sizes=("2 kg", "5 kg", "10 kg"))
def dumbbell(c: Canvas, s: Shape) -> None:
    half, bar = s.num("half", 0.32, 0.42), s.num("bar", 0.05, 0.08)
    y = 0.55
    kind = s.trait("form", ("hexagonal", "discs", "round"))
    c.part(box(0.5 - half, y - bar / 2, 0.5 + half, y + bar / 2, 0.02),
        s.pick("bar paint", ("metal", "dark", "second")), "tube")
    if s.chance("knurled", 0.6):
        for k in range(-5, 6):
            c.line([(0.5 + k * 0.022 - 0.01, y - bar * 0.4), (0.5 + k * 0.022 + 0.01, y + bar * 0.4)], 0.005,
                (110, 112, 118))
    r, thick = s.num("radius", 0.15, 0.24), s.num("thick", 0.14, 0.22)
    for side in (-1, 1):
        x = 0.5 + side * (half - thick / 2 + 0.02)
        if kind == "hexagonal":
            q = thick / 2
            c.part([(x - q, y - r * 0.55), (x - q * 0.8, y - r), (x + q * 0.8, y - r), (x + q, y - r * 0.55),
                (x + q, y + r * 0.55), (x + q * 0.8, y + r), (x - q * 0.8, y + r), (x - q, y + r * 0.55)],
                "main", "tube")
            c.line([(x - q, y - r * 0.5), (x + q, y - r * 0.5)], 0.006, "deep")
            c.line([(x - q, y + r * 0.5), (x + q, y + r * 0.5)], 0.006, "deep")
        elif kind == "discs":
            n = s.count("discs", 2, 4)
            for k in range(n):
                q = r * (1 - 0.16 * k)
                dx = x - side * thick * 0.4 + side * thick * k / n
                c.part(box(dx - thick / n * 0.48, y - q, dx + thick / n * 0.48, y + q, 0.02),
                    "main" if k % 2 == 0 else s.pick("other disc", ("second", "deep", "plain")), "tube")
        else:
            c.part(box(x - thick / 2, y - r, x + thick / 2, y + r, s.num("round", 0.05, 0.11)), "main",
                "tube")
        if s.chance("end cap", 0.5):
            c.part(box(x + side * thick * 0.3 - 0.02, y - r * 0.9, x + side * thick * 0.3 + 0.02, y + r * 0.9,
                0.012), "second", "tube")
        c.mark(x, y, 0.09)


@product("Sports > Fitness > Kettlebells", ("Kettlebell", "Gym Kettlebell", "Swing Weight"),
    ("metal", "rubber", "steel"), (15, 99), sizes=("4 kg", "8 kg", "16 kg"))
def kettlebell(c: Canvas, s: Shape) -> None:
    r, cy = s.num("radius", 0.24, 0.32), s.num("centre", 0.58, 0.64)
    span, rise, grip = s.num("span", 0.11, 0.19), s.num("rise", 0.18, 0.3), s.num("grip", 0.055, 0.085)
    top = cy - r
    square = s.trait("handle", ("round", "square")) == "square"
    bend = 0.98 if square else 0.75
    c.tube(curve([(0.5 - span * 1.25, top + 0.12), (0.5 - span * bend * 1.05, top - rise * 0.55),
        (0.5 - span * 0.5 * bend, top - rise * 0.9), (0.5 + span * 0.5 * bend, top - rise * 0.9),
        (0.5 + span * bend * 1.05, top - rise * 0.55), (0.5 + span * 1.25, top + 0.12)], closed=False), grip,
        s.pick("handle paint", ("metal", "plain", "dark", "deep")))
    flat = s.num("flat", 0.75, 0.92)
    c.part(curve([(0.5 - r * 0.6, top + r * 0.2), (0.5, top), (0.5 + r * 0.6, top + r * 0.2), (0.5 + r, cy),
        (0.5 + r * 0.75, cy + r * flat * 0.75), (0.5 + r * 0.45, cy + r * flat),
        (0.5 - r * 0.45, cy + r * flat), (0.5 - r * 0.75, cy + r * flat * 0.75), (0.5 - r, cy)]), "main",
        "ball")
    if s.chance("ring", 0.5):
        c.line([(0.5 - r * 0.92, cy + r * 0.42), (0.5 + r * 0.92, cy + r * 0.42)],
            s.num("ring width", 0.02, 0.05), "second")
    for side in (-1, 1) if s.chance("collars", 0.5) else ():
        c.part(limb((0.5 + side * span * 1.1, top - 0.02), (0.5 + side * span * 1.25, top + 0.05), grip * 1.2,
            grip * 1.2), "second", "flat")
    if s.chance("plate", 0.6):
        q = s.num("plate size", 0.09, 0.14)
        c.part(polygon(0.5, cy - 0.01, q, 6) if s.chance("hexagon", 0.4) else ellipse(0.5, cy - 0.01, q, q),
            s.pick("plate paint", ("second", "white", "deep")), "flat")
    c.mark(0.5, cy - 0.01, 0.12)


@product("Sports > Boards > Skateboards", ("Skateboard", "Cruiser Board", "Longboard"),
    ("wood", "bamboo", "plastic"), (25, 160), patterns=("striped", "checked", "chevron", "triangles",
    "colour block", "solid", "dotted"), stance="lies")
def skateboard(c: Canvas, s: Shape) -> None:
    w, nose, waist = s.num("width", 0.1, 0.15), s.num("nose", 0.5, 1.0), s.num("waist", -0.03, 0.005)
    for y in (0.22, 0.78):
        for side in (-1, 1):
            c.part(box(0.5 + side * (w + 0.01) - 0.03, y - 0.05, 0.5 + side * (w + 0.01) + 0.03, y + 0.05,
                0.02), s.pick("wheels", ("white", "second", "dark", (240, 180, 60))), "round")
    kind = s.trait("deck", ("popsicle", "cruiser", "fish tail"))
    tip = [(0.5 + w * 0.7 * nose, 0.06), (0.5, 0.03), (0.5 - w * 0.7 * nose, 0.06)]
    right, left = [(0.5 + w * 0.8, 0.9), (0.5 + w, 0.78), (0.5 + w + waist, 0.5),
        (0.5 + w, 0.22)], [(0.5 - w, 0.22), (0.5 - w - waist, 0.5), (0.5 - w, 0.78), (0.5 - w * 0.8, 0.9)]
    tail = {"popsicle": [(0.5 - w * 0.55 * nose, 0.95), (0.5, 0.97), (0.5 + w * 0.55 * nose, 0.95)],
        "cruiser": [(0.5 - w * 0.7, 0.95), (0.5 + w * 0.7, 0.95)],
            "fish tail": [(0.5 - w * 0.75, 0.97), (0.5, 0.9), (0.5 + w * 0.75, 0.97)]}[kind]
    c.part(curve([*right, *tip, *left, *tail]), "main", "round")
    for y in (0.22, 0.78):
        for dx in (-0.022, 0.022):
            for dy in (-0.028, 0.028):
                c.part(ellipse(0.5 + dx, y + dy, 0.008, 0.008), "metal", "none")
    art = s.trait("art", ("none", "circle", "bolt", "band"))
    if art == "circle":
        c.part(ellipse(0.5, 0.5, w * 0.75, w * 0.75), "second", "flat", edge=0.15)
    elif art == "bolt":
        c.part([(0.53, 0.36), (0.45, 0.52), (0.495, 0.52), (0.47, 0.66), (0.555, 0.47), (0.505, 0.47)],
            "second", "flat", edge=0.15)
    elif art == "band":
        c.part(box(0.5 - w - waist + 0.004, 0.42, 0.5 + w + waist - 0.004, 0.58), "second", "round",
            edge=0.15)
    c.mark(0.5, 0.5, w * 0.9)


@product("Sports > Cycling > Bicycles", ("Bicycle", "City Bike", "Road Bike", "Bike"), ("metal", "steel"),
    (149, 1400), weight=1.2)
def bicycle(c: Canvas, s: Shape) -> None:
    r = s.num("wheel", 0.17, 0.215)
    ground = 0.86
    rear, front = (0.06 + r, ground - r), (0.94 - r, ground - r)
    crank = (s.num("crank", 0.42, 0.47), ground - r + s.num("drop", -0.01, 0.03))
    seat = (crank[0] - s.num("seat tilt", 0.05, 0.09), s.num("saddle", 0.32, 0.42))
    head = (front[0] - s.num("fork", 0.07, 0.11), s.num("head", 0.32, 0.42))
    tyre = s.num("tyre", 0.014, 0.034)
    for x, y in (rear, front):
        for k in range(8):
            a = math.pi * k / 8
            c.line([(x - r * math.cos(a), y - r * math.sin(a)), (x + r * math.cos(a), y + r * math.sin(a))],
                0.003, (150, 152, 158))
        ring = ellipse(x, y, r, r)
        c.line(ring, tyre, s.pick("tyres", ("rubber", "rubber", (206, 190, 160))))
        c.line(ellipse(x, y, r - tyre, r - tyre), 0.007, "metal")
        c.part(ellipse(x, y, 0.018, 0.018), "metal", "ball")
        if s.chance("mudguards", 0.4):
            c.line(ellipse(x, y, r + tyre, r + tyre, 190, 330), 0.014, "second")
    tube = s.num("tube", 0.02, 0.036)
    frame = s.trait("frame", ("diamond", "step-through", "mixte"))
    top = {"diamond": seat[1] + 0.06, "step-through": crank[1] - 0.12, "mixte": seat[1] + 0.13}[frame]
    join = (seat[0] + (crank[0] - seat[0]) * (top - seat[1]) / (crank[1] - seat[1]), top)
    low_head = (head[0] + 0.02, head[1] + 0.09)
    for start, end, w in ((rear, crank, 0.7), (rear, (seat[0] + 0.01, seat[1] + 0.08), 0.65),
            (low_head, crank, 1.1), ((head[0] + 0.01, head[1] + 0.03), join, 1.0), (seat, crank, 1.0)):
        c.tube([start, end], tube * w, "plain")
    c.tube([head, low_head, front], tube * 0.9, s.pick("fork paint", ("plain", "second", "metal")))
    c.part(ellipse(*crank, s.num("chainring", 0.035, 0.06), s.num("chainring", 0.035, 0.06)), "dark", "flat")
    c.line([crank, (crank[0] + 0.06, crank[1] + 0.06)], 0.014, "metal")
    c.part(box(crank[0] + 0.035, crank[1] + 0.055, crank[0] + 0.095, crank[1] + 0.073, 0.006), "dark", "none")
    c.line([(seat[0], seat[1] + 0.05), (seat[0] - 0.005, seat[1] - 0.01)], 0.016, "metal")
    c.part(curve([(seat[0] - 0.07, seat[1] - 0.035), (seat[0] + 0.07, seat[1] - 0.015),
        (seat[0] + 0.06, seat[1] + 0.002), (seat[0] - 0.06, seat[1] + 0.01)]),
        s.pick("saddle paint", ("dark", (140, 92, 56), "second")), "tube")
    bars = s.trait("handlebar", ("flat", "drop", "raised"))
    stem = (head[0] - 0.015, head[1] - 0.05)
    c.line([head, stem], 0.018, "metal")
    line = {"flat": [stem, (stem[0] + 0.06, stem[1] - 0.01), (stem[0] - 0.06, stem[1])],
        "drop": [stem, (stem[0] + 0.07, stem[1]), (stem[0] + 0.1, stem[1] + 0.05),
        (stem[0] + 0.05, stem[1] + 0.09)],
            "raised": [stem, (stem[0] + 0.03, stem[1] - 0.06), (stem[0] - 0.07, stem[1] - 0.07)]}[bars]
    c.line(curve(line, closed=False), 0.02, "dark")
    if s.chance("basket", 0.35):
        x, y = head[0] + 0.05, head[1] - 0.02
        c.part([(x, y - 0.05), (x + 0.16, y - 0.05), (x + 0.14, y + 0.07), (x + 0.02, y + 0.07)],
            s.pick("basket", ((190, 150, 100), "second", "metal")), "flat")
    if s.chance("rack", 0.35):
        c.line([(seat[0] - 0.02, seat[1] + 0.14), (rear[0] - 0.08, seat[1] + 0.14), rear], 0.012, "dark")
    mid = ((low_head[0] + crank[0]) / 2, (low_head[1] + crank[1]) / 2)
    c.mark(*mid, tube * 1.8)


@product("Sports > Cycling > Helmets", ("Helmet", "Bike Helmet", "Cycling Helmet"), ("plastic", "nylon"),
    (15, 120), patterns=PLAIN, sizes=("S", "M", "L"))
def helmet(c: Canvas, s: Shape) -> None:
    w, top, rim = s.num("width", 0.33, 0.4), s.num("top", 0.16, 0.26), s.num("rim", 0.58, 0.66)
    point = s.num("tail", 0.0, 0.1)
    for dx in (-0.12, 0.14):
        c.line(curve([(0.5 + dx * 1.4, rim - 0.02), (0.5 + dx, rim + 0.14),
            (0.5, rim + s.num("strap", 0.24, 0.32))], closed=False), 0.022, "dark")
    c.part(box(0.47, rim + 0.22, 0.53, rim + 0.27, 0.012), "dark", "flat")
    c.part(curve([(0.5 - w, rim - 0.02), (0.5 - w * 0.92, rim - 0.22), (0.5 - w * 0.5, top + 0.02),
        (0.5, top), (0.5 + w * 0.6, top + 0.04), (0.5 + w + point * 0.4, rim - 0.2),
        (0.5 + w + point, rim - 0.03), (0.5 + w * 0.7, rim + 0.02), (0.5, rim - 0.03),
        (0.5 - w * 0.75, rim + 0.03)]), "main", "ball")
    vents = s.trait("vents", ("slots", "holes", "few"))
    if vents == "slots":
        n = s.count("slots", 3, 5)
        for k in range(n):
            y0 = top + 0.07 + k * (rim - top - 0.1) / n
            c.part(curve([(0.5 - w * 0.62, y0 + 0.04), (0.5, y0 - 0.015), (0.5 + w * 0.66, y0 + 0.045),
                (0.5, y0 + 0.03)]), (40, 40, 44), "hollow")
    elif vents == "holes":
        for i in range(s.count("rows", 2, 3)):
            for j in range(4):
                c.part(ellipse(0.5 - w * 0.55 + j * w * 0.37, top + 0.12 + i * 0.12 + 0.03 * abs(j - 1.5),
                    0.035, 0.022), (40, 40, 44), "hollow")
    else:
        for side in (-1, 1):
            c.part(ellipse(0.5 + side * w * 0.35, top + 0.14, 0.06, 0.02), (40, 40, 44), "hollow")
    if s.chance("stripe", 0.5):
        c.part(curve([(0.5 - w * 0.98, rim - 0.08), (0.5, rim - 0.14), (0.5 + w + point * 0.7, rim - 0.1),
            (0.5 + w, rim - 0.05), (0.5, rim - 0.09), (0.5 - w * 0.98, rim - 0.04)]), "second", "flat",
            edge=0.2)
    if s.chance("visor", 0.45):
        c.part(curve([(0.5 - w * 0.98, rim - 0.1), (0.5 - w * 0.6, rim - 0.08), (0.5 - w * 0.65, rim),
            (0.5 - w - s.num("visor", 0.06, 0.14), rim + 0.01)]), s.pick("visor paint",
            ("dark", "second", "deep")), "tube")
    c.mark(0.5 + w * 0.45, rim - 0.16, 0.08)


@product("Sports > Ball games > Balls", ("Ball", "Football", "Play Ball", "Match Ball"),
    ("leather", "rubber", "plastic"), (5, 69), weight=1.1)
def ball(c: Canvas, s: Shape) -> None:
    r = 0.42
    kind = s.trait("design", ("panels", "basketball", "stripes", "beach", "volleyball"))
    c.part(ellipse(0.5, 0.5, r, r), "main", "ball")
    if kind == "panels":
        q = s.num("panel", 0.11, 0.15)
        sides = s.pick("panel sides", (5, 6, 5))
        turn = s.num("turn", 0, 72)
        c.part(polygon(0.5, 0.5, q, sides, turn), "second", "flat")
        for k in range(sides):
            a = math.radians(turn + 360 * k / sides)
            x, y = math.cos(a), math.sin(a)
            c.line([(0.5 + q * x, 0.5 + q * y), (0.5 + r * 0.62 * x, 0.5 + r * 0.62 * y)], 0.012, "dark")
            b, e = a - 0.34, a + 0.34
            c.part([(0.5 + r * 0.62 * x, 0.5 + r * 0.62 * y), (0.5 + r * 0.8 * math.cos(b),
                0.5 + r * 0.8 * math.sin(b)), (0.5 + r * 0.97 * math.cos(b * 0.35 + a * 0.65),
                0.5 + r * 0.97 * math.sin(b * 0.35 + a * 0.65)),
                    (0.5 + r * 0.97 * math.cos(e * 0.35 + a * 0.65),
                    0.5 + r * 0.97 * math.sin(e * 0.35 + a * 0.65)),
                    (0.5 + r * 0.8 * math.cos(e), 0.5 + r * 0.8 * math.sin(e))], "second", "flat")
    elif kind == "basketball":
        w = s.num("seam", 0.012, 0.022)
        c.line([(0.51 - r, 0.5), (0.49 + r, 0.5)], w, "dark")
        c.line([(0.5, 0.51 - r), (0.5, 0.49 + r)], w, "dark")
        bow = s.num("bow", 0.12, 0.26)
        for side in (-1, 1):
            c.line(curve([(0.5 + side * r * 0.72, 0.5 - r * 0.66), (0.5 + side * bow, 0.5),
                (0.5 + side * r * 0.72, 0.5 + r * 0.66)], closed=False), w, "dark")
    elif kind == "stripes":
        for k in range(s.count("stripes", 1, 3)):
            y = s.num("stripe at", -0.5, 0.1) + 0.38 * k
            h = math.sqrt(max(0.0, 1 - y * y)) * r * 0.985
            c.part(curve([(0.5 - h, 0.5 + r * y), (0.5, 0.5 + r * y + 0.06), (0.5 + h, 0.5 + r * y)],
                closed=False) + curve([(0.5 + h * 0.97, 0.5 + r * y + 0.07), (0.5, 0.5 + r * y + 0.14),
                (0.5 - h * 0.97, 0.5 + r * y + 0.07)], closed=False), "second", "flat", edge=0.2)
    elif kind == "beach":
        n, turn = s.count("sectors", 3, 5) * 2, s.num("turn", 0, 60)
        px, py = 0.5 + s.num("pole x", -0.14, 0.14), 0.5 + s.num("pole y", -0.14, 0.14)
        for k in range(0, n, 2):
            c.part([(px, py), *ellipse(0.5, 0.5, r * 0.995, r * 0.995, turn + 360 * k / n,
                turn + 360 * (k + 1) / n)], "second" if k % 4 == 0 or n == 6 else "white", "flat", edge=0.15)
        c.part(ellipse(px, py, 0.05, 0.05), "white", "ball")
    else:
        turn, rings = s.num("turn", 0, 120), s.count("rings", 2, 3)
        for k in range(3):
            a = turn + 120 * k
            for j in range(rings, 0, -1):
                q = r * 0.995 * j / rings
                paint = "second" if j % 2 == (k % 2 if s.chance("mixed", 0.5) else 0) else "plain"
                c.part([(0.5, 0.5), *ellipse(0.5, 0.5, q, q, a, a + 120)], paint, "ball", edge=0.45)
    c.mark(0.5 + s.num("mark x", -0.06, 0.06), 0.5, 0.11)
