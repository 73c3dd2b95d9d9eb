"""Props: a person who wears the product, a hand that holds it, things that lie around it."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from tgq.demo.drawing.outline import Outline, Point, curve, ellipse, limb
from tgq.demo.drawing.surface import COLOURS, RGB, shade

SKINS = ((244, 208, 184), (222, 176, 146), (188, 138, 104), (134, 92, 66), (92, 62, 46), (214, 214, 212), (60, 60, 64))  # the last two: mannequins
HAIRS = ((40, 30, 26), (92, 60, 36), (196, 152, 84), (150, 70, 40), (120, 120, 124))


def _paint(image: Image.Image, parts: list[tuple[Outline, RGB]]) -> None:
    """Paints outlines given in pixels, antialiased."""
    size = image.width
    sheet = Image.new("RGB", (2 * size, 2 * size))
    mask = Image.new("L", (2 * size, 2 * size), 0)
    on_sheet, on_mask = ImageDraw.Draw(sheet), ImageDraw.Draw(mask)
    for points, colour in parts:
        doubled = [(2 * x, 2 * y) for x, y in points]
        on_sheet.polygon(doubled, fill=colour)
        on_sheet.line([*doubled, doubled[0]], fill=shade(colour, -0.25), width=2)
        on_mask.polygon(doubled, fill=255)
    image.paste(sheet.reduce(2), (0, 0), mask.reduce(2))


def person(r: random.Random, image: Image.Image, path: str, corner: tuple[float, float], unit: float) -> None:
    """A person behind a garment whose drawing has its origin at `corner` and `unit` pixels per share."""
    skin, hair = r.choice(SKINS), r.choice(HAIRS)
    cloth, shoes = r.choice(list(COLOURS.values())), r.choice(HAIRS)
    bottoms = "Bottoms" in path
    up, upper = (-0.34, cloth) if bottoms else (0.0, skin)
    parts: list[tuple[Outline, RGB]] = []

    def add(outline: Outline, colour: RGB) -> None:
        parts.append(([(corner[0] + x * unit, corner[1] + (y + up) * unit) for x, y in outline], colour))

    for side in (-1, 1):
        foot = 0.5 + side * r.uniform(0.09, 0.13)
        add(limb((0.5 + side * 0.085, 0.6), (foot, 1.36), 0.15, 0.075), cloth if not bottoms and r.random() < 0.7 else skin)
        add(ellipse(foot + side * 0.03, 1.37, 0.075, 0.032), shoes)
        elbow, wrist = (0.5 + side * 0.31, 0.39), (0.5 + side * r.uniform(0.34, 0.4), 0.57)
        add(limb((0.5 + side * 0.185, 0.165), elbow, 0.09, 0.07), upper)
        add(limb(elbow, wrist, 0.07, 0.05), skin)
        add(ellipse(wrist[0], 0.595, 0.032, 0.045), skin)
    add(curve([(0.33, 0.14), (0.67, 0.14), (0.64, 0.4), (0.66, 0.64), (0.34, 0.64), (0.36, 0.4)]), upper)
    add(limb((0.5, -0.02), (0.5, 0.15), 0.085, 0.11), shade(skin, -0.08))
    if r.random() < 0.5:
        add(ellipse(0.5, -0.06, 0.13, 0.17), hair)
    add(ellipse(0.5, -0.09, 0.09, 0.12), skin)
    add(ellipse(0.5, -0.13, 0.1, 0.095, 180, 360), hair)
    _paint(image, parts)


def hand(r: random.Random, image: Image.Image, box: tuple[float, float, float, float]) -> None:
    """A hand that reaches in from a side and covers a corner of the product."""
    size = image.width
    skin, sleeve = r.choice(SKINS[:5]), r.choice(list(COLOURS.values()))
    sign = 1 if r.random() < 0.5 else -1
    x = size * (box[0] + 0.09 * (box[2] - box[0]) if sign == 1 else box[2] - 0.09 * (box[2] - box[0]))
    y = size * (box[1] + (box[3] - box[1]) * r.uniform(0.55, 0.85))
    u = size * r.uniform(0.16, 0.22)

    def at(*points: Point) -> Outline:
        return [(x + sign * u * dx, y + u * dy) for dx, dy in points]

    wrist, cuff, elbow = at((-0.9, 0.55), (-1.4, 0.82), (-3.9, 2.15))
    parts = [(limb(wrist, elbow, u * 0.42, u * 0.6), skin), (limb(cuff, elbow, u * 0.62, u * 0.75), sleeve)]
    parts.append((curve(at((-0.9, 0.3), (-0.1, -0.3), (0, 0.35), (-0.9, 0.77))), skin))
    for k in range(4):
        top, tip = 0.19 * k - 0.34, 0.3 - 0.05 * k
        finger = at((-0.25, top), (tip, top + 0.02), (tip + 0.04, top + 0.15), (-0.25, top + 0.18))
        parts.append((curve(finger), shade(skin, 0.06 - 0.03 * k)))
    _paint(image, parts)


def still_life(r: random.Random, image: Image.Image) -> None:
    """Small things at the edges: a plant, a stack of books, a gift box, a coffee to go."""
    size = image.width
    for _ in range(r.choice((1, 1, 2))):
        x, y, u = size * r.choice((0.12, 0.86)), size * r.uniform(0.82, 0.98), size * r.uniform(0.1, 0.16)
        colour = r.choice(list(COLOURS.values()))
        kind = r.choice(("plant", "books", "gift", "cup"))
        parts: list[tuple[Outline, RGB]] = []

        def add(upper: float, top: float, lower: float, bottom: float, colour: RGB) -> None:
            """Adds a trapezium, half its upper and its lower side wide, from top to bottom above the ground."""
            corners = ((-upper, top), (upper, top), (lower, bottom), (-lower, bottom))
            parts.append(([(x + u * dx, y - u * dy) for dx, dy in corners], colour))  # noqa: B023  (called at once)

        if kind == "plant":
            for k in range(7):
                tip = (x + u * (k - 3) * 0.36, y - u * (2.4 - abs(k - 3) * 0.3))
                mx, my = (x + tip[0]) / 2, (y + tip[1]) / 2
                parts.append((curve([(x, y - u * 0.7), (mx - u * 0.16, my), tip, (mx + u * 0.16, my)]), shade((58, 128, 66), (k % 3 - 1) * 0.15)))
            add(0.55, 0.8, 0.4, 0, colour)
        elif kind == "books":
            for k in range(3):
                w = r.uniform(0.8, 1.1)
                add(w, 0.3 * (k + 1), w, 0.3 * k, r.choice(list(COLOURS.values())))
        elif kind == "gift":
            add(1, 1.4, 1, 0, colour)
            add(0.15, 1.4, 0.15, 0, shade(colour, 0.6))
        else:
            add(0.5, 1.3, 0.35, 0, (236, 230, 218))
            add(0.46, 0.9, 0.4, 0.4, (150, 104, 66))
            add(0.55, 1.45, 0.55, 1.28, (60, 60, 62))
        _paint(image, parts)
