"""Electronics."""

from __future__ import annotations

import math

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import box, curve, ellipse, limb
from tgq.demo.products import product


@product("Electronics > Audio > Headphones", ("Headphones", "Over-Ear Headphones", "Wireless Headphones"),
    ("plastic", "metal", "leather"), (25, 320), stance="lies", weight=1.5)
def headphones(c: Canvas, s: Shape) -> None:
    w, top = s.num("band width", 0.26, 0.36), s.num("top", 0.06, 0.14)
    cy, cw, ch = s.num("cup at", 0.6, 0.7), s.num("cup width", 0.07, 0.12), s.num("cup height", 0.12, 0.2)
    square = s.num("square", 0.2, 0.9)
    thick = s.num("band", 0.03, 0.065)
    arch = curve([(0.5 - w, cy - 0.02), (0.5 - w * 0.98, (top + cy) / 2 - 0.08),
        (0.5 - w * square * 0.75, top + 0.03), (0.5, top), (0.5 + w * square * 0.75, top + 0.03),
        (0.5 + w * 0.98, (top + cy) / 2 - 0.08), (0.5 + w, cy - 0.02)], closed=False)
    c.tube(arch, thick, s.pick("band paint", ("plain", "dark", "metal", "second")))
    pad = arch[len(arch) // 3: -len(arch) // 3 + 1]
    if s.chance("padded", 0.6):
        c.tube([(x, y + thick * 0.45) for x, y in pad], thick * 1.1,
            s.pick("pad", ("dark", "second", "deep")))
    shape = s.trait("cups", ("round", "oval", "square"))
    for side in (-1, 1):
        x = 0.5 + side * w
        c.part(box(x - 0.02, cy - ch - 0.06, x + 0.02, cy - ch * 0.4, 0.012), "metal", "round")
        inner = x - side * cw * 0.75
        c.part(ellipse(inner, cy, cw * 0.75, ch * 0.92) if shape != "square" else box(inner - cw * 0.7,
            cy - ch * 0.9, inner + cw * 0.7, cy + ch * 0.9, 0.04), s.pick("pad", ("dark", "second", "deep")),
            "ball")
        k = 1.0 if shape == "oval" else 0.85
        c.part(box(x - cw, cy - ch, x + cw, cy + ch, 0.03) if shape == "square" else ellipse(x, cy, cw,
            ch * k), "main", "ball")
        if s.chance("disc", 0.6):
            c.part(ellipse(x, cy, cw * 0.66, ch * 0.66 * k), s.pick("disc paint",
                ("second", "metal", "deep")), "flat")
        c.mark(x, cy, cw * 0.8)
    if s.trait("connection", ("wireless", "cable")) == "cable":
        c.line(curve([(0.5 - w, cy + ch * 0.8), (0.5 - w + 0.03, cy + ch + 0.1), (0.5, 0.92), (0.56, 0.97)],
            closed=False), 0.014, "dark")
    if s.chance("microphone", 0.3):
        c.line(curve([(0.5 - w - cw * 0.3, cy + ch * 0.5), (0.5 - w + 0.06, cy + ch + 0.08),
            (0.5 - 0.06, cy + ch + 0.07)], closed=False), 0.016, "dark")
        c.part(ellipse(0.5 - 0.05, cy + ch + 0.07, 0.035, 0.022), "dark", "ball")


@product("Electronics > Phones > Phones", ("Phone", "Smartphone", "Mobile Phone"),
    ("plastic", "metal", "glass"), (99, 990), stance="lies", sizes=("64 GB", "128 GB", "256 GB"))
def phone(c: Canvas, s: Shape) -> None:
    w, h, r = s.num("width", 0.17, 0.22), s.num("height", 0.37, 0.45), s.num("corner", 0.015, 0.07)
    dx = s.num("apart", 0.1, 0.16)
    x = 0.5 + dx
    c.part(box(x - w, 0.5 - h + 0.02, x + w, 0.5 + h, r), "main", "flat")
    camera = s.trait("camera", ("bar", "square", "column", "round"))
    cx, cy = x + w * 0.55 - 0.06, 0.5 - h + 0.12
    n, q = s.count("lenses", 1, 3), s.num("lens", 0.022, 0.036)
    if camera == "bar":
        c.part(box(x - w, cy - 0.05, x + w, cy + 0.05), "deep", "tube")
        spots = [(x - w * 0.3 + 0.09 * k, cy) for k in range(n)]
    elif camera == "square":
        c.part(box(cx - 0.06, cy - 0.075, cx + 0.09, cy + 0.085, 0.035), "deep", "flat")
        spots = [(cx - 0.018, cy - 0.032), (cx - 0.018, cy + 0.042), (cx + 0.052, cy + 0.005)][:n]
    elif camera == "column":
        spots = [(cx + 0.04, cy - 0.03 + 0.085 * k) for k in range(n)]
    else:
        c.part(ellipse(x, cy + 0.05, 0.1, 0.1), "deep", "flat")
        spots = [(x + 0.05 * math.cos(2.1 * k), cy + 0.05 + 0.05 * math.sin(2.1 * k)) for k in range(n)]
    for lx, ly in spots:
        c.part(ellipse(lx, ly, q, q), "dark", "ball")
        c.part(ellipse(lx, ly, q * 0.5, q * 0.5), (70, 80, 120), "ball")
    c.mark(x, 0.52, 0.1)
    x = 0.5 - dx
    c.part(box(x - w, 0.5 - h + 0.05, x + w, 0.5 + h + 0.03, r), "deep", "flat")
    bezel = s.num("bezel", 0.008, 0.022)
    y0, y1 = 0.5 - h + 0.05 + bezel, 0.5 + h + 0.03 - bezel
    c.part(box(x - w + bezel, y0, x + w - bezel, y1, max(0.0, r - bezel)),
        s.pick("wallpaper", ((48, 72, 150), (36, 40, 60), (148, 70, 120), (40, 120, 130), (220, 140, 90))),
        "ball", edge=0)
    for i in range(3):
        for j in range(3):
            ix, iy = x + (j - 1) * w * 0.55, y1 - 0.09 - 0.105 * i
            c.part(box(ix - 0.034, iy - 0.034, ix + 0.034, iy + 0.034, 0.013),
                s.pick(f"icon {i}{j}", ((240, 240, 240), (90, 200, 120), (250, 180, 60), (230, 80, 80),
                (90, 160, 240))), "flat", edge=0)
    if s.trait("display", ("notch", "pinhole")) == "notch":
        c.part(box(x - 0.06, y0 - 0.01, x + 0.06, y0 + 0.025, 0.012), "screen", "none", edge=0)
    else:
        c.part(ellipse(x, y0 + 0.022, 0.012, 0.012), "screen", "none", edge=0)


@product("Electronics > Computers > Laptops", ("Laptop", "Notebook", "Ultrabook"), ("metal", "plastic"),
    (299, 1900), sizes=("13 inch", "14 inch", "15 inch"))
def laptop(c: Canvas, s: Shape) -> None:
    w, top, hinge = s.num("width", 0.33, 0.38), s.num("top", 0.18, 0.28), s.num("hinge", 0.6, 0.66)
    reach, front = s.num("reach", 0.05, 0.1), s.num("front", 0.8, 0.86)
    c.part(box(0.5 - w, top, 0.5 + w, hinge, s.num("corner", 0.01, 0.04)), "main", "flat")
    b = s.num("bezel", 0.014, 0.04)
    c.part(box(0.5 - w + 0.008, top + 0.008, 0.5 + w - 0.008, hinge - 0.005, 0.01), "screen", "none", edge=0)
    c.part(box(0.5 - w + b, top + b, 0.5 + w - b, hinge - b * 1.2),
        s.pick("wallpaper", ((60, 110, 180), (170, 90, 120), (50, 130, 120), (220, 150, 90), (90, 84, 160))),
        "ball", edge=0)
    if s.chance("window", 0.6):
        x, y = s.num("window x", 0.3, 0.5), top + s.num("window y", 0.07, 0.13)
        c.part(box(x, y, x + 0.22, y + 0.17, 0.008), "white", "flat", edge=0.1)
        c.part(box(x, y, x + 0.22, y + 0.028, 0.008), "second", "none", edge=0)
    c.part([(0.5 - w, hinge), (0.5 + w, hinge), (0.5 + w + reach, front), (0.5 - w - reach, front)], "main",
        "flat")
    key = s.pick("keys", ("dark", "white", "deep"))
    rows = s.count("key rows", 4, 5)
    for i in range(rows):
        t = 0.08 + 0.5 * i / rows
        y = hinge + (front - hinge) * t
        half = (w + reach * t) * 0.9
        for j in range(12):
            x = 0.5 - half + 2 * half * j / 12
            c.part(box(x, y, x + half / 7.2, y + (front - hinge) * 0.085, 0.004), key, "none", edge=0)
    p = s.num("pad", 0.07, 0.13)
    c.part([(0.5 - p, hinge + (front - hinge) * 0.68), (0.5 + p, hinge + (front - hinge) * 0.68),
        (0.5 + p * 1.06, front - 0.012), (0.5 - p * 1.06, front - 0.012)], "pale", "flat")
    c.part(box(0.5 - w - reach, front, 0.5 + w + reach, front + s.num("thick", 0.015, 0.035), 0.012), "deep",
        "tube")
    c.mark(0.5, hinge - b * 0.55, min(0.035, b))


@product("Electronics > Cameras > Cameras", ("Camera", "Digital Camera", "Photo Camera"),
    ("plastic", "metal", "leather"), (79, 980), weight=1.2)
def camera(c: Canvas, s: Shape) -> None:
    w, top, bottom = s.num("width", 0.32, 0.42), s.num("top", 0.34, 0.42), 0.8
    paint = s.pick("top paint", ("metal", "dark", "second", "deep"))
    hump = s.trait("viewfinder", ("prism", "corner", "none"))
    if hump == "prism":
        q = s.num("prism", 0.09, 0.14)
        c.part([(0.5 - q, top + 0.02), (0.5 - q * 0.6, top - 0.1), (0.5 + q * 0.6, top - 0.1),
            (0.5 + q, top + 0.02)], paint, "round")
    elif hump == "corner":
        c.part(box(0.5 - w * 0.9, top - 0.06, 0.5 - w * 0.45, top + 0.02, 0.015), paint, "round")
    c.part(box(0.5 + w * 0.5, top - 0.05, 0.5 + w * 0.5 + s.num("dial", 0.07, 0.12), top + 0.02, 0.01),
        "metal", "round")
    c.part(ellipse(0.5 - w * 0.72, top - 0.015 - (0.05 if hump == "corner" else 0), 0.035, 0.022),
        s.pick("shutter", ("metal", (200, 50, 50), "second")), "ball")
    c.part(box(0.5 - w, top, 0.5 + w, bottom, s.num("corner", 0.03, 0.09)), "main", "flat")
    c.part(box(0.5 - w, top, 0.5 + w, top + s.num("plate", 0.06, 0.13), 0.03), paint, "tube")
    if s.chance("grip", 0.5):
        c.part(box(0.5 - w - 0.01, top + 0.03, 0.5 - w + s.num("grip", 0.1, 0.15), bottom - 0.01, 0.04),
            "dark", "round")
    lx, ly, r = 0.5 + s.num("lens x", -0.02, 0.1), (top + bottom) / 2 + 0.03, s.num("lens", 0.14, 0.19)
    for k, tint in ((1.0, s.pick("ring", ("dark", "metal", "second"))), (0.84, "dark"), (0.62, (56, 60, 74)),
            (0.42, (40, 52, 96)), (0.2, (22, 24, 40))):
        c.part(ellipse(lx, ly, r * k, r * k), tint, "ball", edge=0.25)
    c.part(ellipse(lx - r * 0.22, ly - r * 0.24, r * 0.1, r * 0.07), "white", "none", edge=0)
    c.part(box(0.5 + w * 0.66, top + 0.035, 0.5 + w * 0.92, top + 0.09, 0.01), (246, 238, 206), "flat")
    if s.chance("strap", 0.5):
        for side in (-1, 1):
            c.line(curve([(0.5 + side * (w - 0.01), top + 0.03), (0.5 + side * (w + 0.05), top - 0.1),
                (0.5 + side * (w - 0.06), top - 0.24), (0.5 + side * 0.1, top - 0.29)], closed=False), 0.024,
                s.pick("strap paint", ("dark", "second", (140, 92, 56))))
    c.mark(0.5 - w * 0.5, top + 0.1 + 0.06, 0.07)


@product("Electronics > Audio > Speakers", ("Speaker", "Bluetooth Speaker", "Portable Speaker"),
    ("plastic", "wood", "walnut"), (19, 260), weight=1.2)
def speaker(c: Canvas, s: Shape) -> None:
    kind = s.trait("form", ("tower", "box", "cylinder"))
    w = {"tower": s.num("tower", 0.14, 0.2), "box": s.num("box", 0.34, 0.43),
        "cylinder": s.num("cyl", 0.16, 0.24)}[kind]
    top, bottom = {"tower": (s.num("top", 0.04, 0.2), 0.93), "box": (s.num("box top", 0.3, 0.45), 0.83),
        "cylinder": (s.num("cyl top", 0.14, 0.32), 0.93)}[kind]
    if kind == "box" and s.chance("handle", 0.5):
        c.tube(curve([(0.5 - w * 0.6, top + 0.01), (0.5 - w * 0.55, top - 0.12), (0.5 + w * 0.55, top - 0.12),
            (0.5 + w * 0.6, top + 0.01)], closed=False), 0.03, s.pick("handle paint",
            ("dark", "second", (140, 92, 56))))
    c.part(box(0.5 - w, top, 0.5 + w, bottom, s.num("corner", 0.01, 0.1)), "main",
        "round" if kind == "cylinder" else "flat")
    if kind == "cylinder":
        c.part(ellipse(0.5, top + 0.015, w, 0.035), "pale", "flat")
        c.part(box(0.5 - w + 0.002, top + 0.1, 0.5 + w - 0.002, bottom - s.num("foot", 0.06, 0.16), 0.01),
            s.pick("grille", ("dark", "second", "deep")), "round")
        n = s.count("slots", 5, 12)
        for k in range(n):
            y = top + 0.14 + (bottom - top - 0.3) * k / n
            c.line([(0.5 - w * 0.9, y), (0.5 + w * 0.9, y)], 0.008, "dark")
        c.mark(0.5, bottom - 0.04, 0.06)
        return
    n = s.count("cones", 1, 3) if kind == "tower" else s.count("cones", 1, 2)
    cone = s.pick("cone", ("dark", "second", (180, 140, 70), "metal"))
    for k in range(n):
        if kind == "tower":
            x, y, r = 0.5, top + (bottom - top) * (k + 0.7) / (n + 0.3), min(w * 0.8,
                (bottom - top) / (2.3 * n + 0.8))
        else:
            x, y, r = 0.5 + (k - (n - 1) / 2) * w * 1.05, (top + bottom) / 2, min((bottom - top) * 0.42,
                w * 0.46)
        r *= s.num("cone size", 0.75, 1.0)
        for q, tint in ((1.0, "metal" if s.chance("chrome", 0.5) else "dark"), (0.88, "dark"), (0.74, cone),
                (0.3, "dark")):
            c.part(ellipse(x, y, r * q, r * q), tint, "ball")
    if s.chance("knobs", 0.5):
        for k in range(s.count("knob count", 1, 3)):
            c.part(ellipse(0.5 + (k - 1) * 0.08, bottom - 0.035, 0.018, 0.018), "metal", "ball")
    if s.chance("feet", 0.4):
        for side in (-1, 1):
            c.part(limb((0.5 + side * w * 0.75, bottom - 0.005), (0.5 + side * w * 0.8, bottom + 0.04), 0.04,
                0.025), "dark", "round")
    c.mark(0.5, top + 0.04, 0.05)


@product("Electronics > Gaming > Game controllers", ("Game Controller", "Gamepad", "Wireless Controller"),
    ("plastic", "rubber"), (19, 89), stance="lies")
def controller(c: Canvas, s: Shape) -> None:
    w, grip, high = s.num("width", 0.36, 0.43), s.num("grip", 0.24, 0.38), s.num("height", 0.14, 0.2)
    cy = 0.42
    for side in (-1, 1):
        c.part(box(0.5 + side * w * 0.6 - 0.09, cy - high - 0.04, 0.5 + side * w * 0.6 + 0.09,
            cy - high + 0.07, 0.03), "deep", "tube")
    c.part(curve([(0.5, cy - high), (0.5 + w * 0.6, cy - high), (0.5 + w * 0.95, cy - high * 0.4),
        (0.5 + w, cy + grip * 0.6), (0.5 + w * 0.86, cy + grip), (0.5 + w * 0.6, cy + grip * 0.75),
        (0.5 + w * 0.35, cy + high * s.num("belly", 0.6, 1.1)),
                  (0.5 - w * 0.35, cy + high * s.num("belly", 0.6, 1.1)), (0.5 - w * 0.6, cy + grip * 0.75),
                  (0.5 - w * 0.86, cy + grip), (0.5 - w, cy + grip * 0.6), (0.5 - w * 0.95, cy - high * 0.4),
                  (0.5 - w * 0.6, cy - high)]), "main", "ball")
    if s.chance("panel", 0.5):
        c.part(box(0.5 - w * 0.26, cy - high * 0.85, 0.5 + w * 0.26, cy - high * 0.05, 0.03),
            s.pick("panel paint", ("second", "dark", "deep")), "flat")
    offset = s.trait("sticks", ("symmetric", "offset")) == "offset"
    r = s.num("stick", 0.048, 0.065)
    left = (0.5 - w * 0.62, cy - high * 0.2) if offset else (0.5 - w * 0.32, cy + high * 0.42)
    cross = (0.5 - w * 0.32, cy + high * 0.42) if offset else (0.5 - w * 0.62, cy - high * 0.2)
    for x, y in (left, (0.5 + w * 0.32, cy + high * 0.42)):
        c.part(ellipse(x, y, r, r), "dark", "ball")
        c.part(ellipse(x, y, r * 0.62, r * 0.62), s.pick("stick paint", ("dark", "second")), "hollow")
    for dx, dy in ((0.055, 0.018), (0.018, 0.055)):
        c.part(box(cross[0] - dx, cross[1] - dy, cross[0] + dx, cross[1] + dy, 0.008), "dark", "flat")
    tints = s.pick("buttons", (((220, 70, 70), (80, 150, 230), (90, 190, 110), (240, 200, 70)),
        ((60, 60, 64),) * 4, ((236, 236, 236),) * 4))
    for k, tint in enumerate(tints):
        c.part(ellipse(0.5 + w * 0.62 + 0.05 * math.cos(k * math.pi / 2),
            cy - high * 0.2 + 0.05 * math.sin(k * math.pi / 2), 0.021, 0.021), tint, "ball")
    for side in (-1, 1):
        c.part(ellipse(0.5 + side * 0.06, cy - high * 0.2, 0.015, 0.01), "dark", "none")
    c.mark(0.5, cy - high * 0.58, 0.06)
