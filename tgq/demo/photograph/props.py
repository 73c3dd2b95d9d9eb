"""Props: a person who wears the product, a hand that holds it, things that lie around it."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from tgq.demo.drawing.outline import Outline, curve, ellipse, limb
from tgq.demo.drawing.surface import COLOURS, RGB, shade

SKINS = (
    (244, 208, 184),
    (222, 176, 146),
    (188, 138, 104),
    (134, 92, 66),
    (92, 62, 46),
    (214, 214, 212),
    (60, 60, 64),
)  # the last two: mannequins
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

    def at(points: Outline) -> Outline:
        return [(corner[0] + x * unit, corner[1] + y * unit) for x, y in points]

    parts: list[tuple[Outline, RGB]] = []
    up = -0.34 if "Bottoms" in path else 0.0
    for side in (-1, 1):
        hip, foot = (0.5 + side * 0.085, 0.6 + up), (0.5 + side * r.uniform(0.09, 0.13), 1.36 + up)
        parts.append((at(limb(hip, foot, 0.15, 0.075)), cloth if up == 0 and r.random() < 0.7 else skin))
        parts.append((at(ellipse(foot[0] + side * 0.03, foot[1] + 0.01, 0.075, 0.032)), shoes))
        shoulder, elbow = (0.5 + side * 0.185, 0.165 + up), (0.5 + side * 0.31, 0.39 + up)
        wrist = (0.5 + side * r.uniform(0.34, 0.4), 0.57 + up)
        arm = cloth if up else skin
        parts += [
            (at(limb(shoulder, elbow, 0.09, 0.07)), arm),
            (at(limb(elbow, wrist, 0.07, 0.05)), skin),
            (at(ellipse(wrist[0], wrist[1] + 0.025, 0.032, 0.045)), skin),
        ]
    parts.append(
        (
            at(
                curve(
                    [
                        (0.33, 0.14 + up),
                        (0.67, 0.14 + up),
                        (0.64, 0.4 + up),
                        (0.66, 0.64 + up),
                        (0.34, 0.64 + up),
                        (0.36, 0.4 + up),
                    ]
                )
            ),
            cloth if up else skin,
        )
    )
    parts.append((at(limb((0.5, -0.02 + up), (0.5, 0.15 + up), 0.085, 0.11)), shade(skin, -0.08)))
    long_hair = r.random() < 0.5
    if long_hair:
        parts.append((at(ellipse(0.5, -0.06 + up, 0.13, 0.17)), hair))
    parts.append((at(ellipse(0.5, -0.09 + up, 0.09, 0.12)), skin))
    parts.append((at(ellipse(0.5, -0.13 + up, 0.1, 0.095, 180, 360)), hair))
    _paint(image, parts)


def hand(r: random.Random, image: Image.Image, box: tuple[float, float, float, float]) -> None:
    """A hand that reaches in from a side and covers a corner of the product."""
    size = image.width
    skin, sleeve = r.choice(SKINS[:5]), r.choice(list(COLOURS.values()))
    left = r.random() < 0.5
    sign = 1 if left else -1
    x = size * (box[0] + 0.09 * (box[2] - box[0]) if left else box[2] - 0.09 * (box[2] - box[0]))
    y = size * (box[1] + (box[3] - box[1]) * r.uniform(0.55, 0.85))
    u = size * r.uniform(0.16, 0.22)
    wrist = (x - sign * u * 0.9, y + u * 0.55)
    elbow = (wrist[0] - sign * u * 3, wrist[1] + u * 1.6)
    parts = [
        (limb(wrist, elbow, u * 0.42, u * 0.6), skin),
        (limb((wrist[0] - sign * u * 0.5, wrist[1] + u * 0.27), elbow, u * 0.62, u * 0.75), sleeve),
    ]
    parts.append(
        (
            curve(
                [
                    (wrist[0], wrist[1] - u * 0.25),
                    (x - sign * u * 0.1, y - u * 0.3),
                    (x, y + u * 0.35),
                    (wrist[0], wrist[1] + u * 0.22),
                ]
            ),
            skin,
        )
    )
    for k in range(4):
        fy = y - u * 0.26 + k * u * 0.19
        parts.append(
            (
                curve(
                    [
                        (x - sign * u * 0.25, fy - u * 0.08),
                        (x + sign * u * (0.3 - 0.05 * k), fy - u * 0.06),
                        (x + sign * u * (0.34 - 0.05 * k), fy + u * 0.07),
                        (x - sign * u * 0.25, fy + u * 0.1),
                    ]
                ),
                shade(skin, 0.06 - 0.03 * k),
            )
        )
    _paint(image, parts)


def still_life(r: random.Random, image: Image.Image) -> None:
    """Small things at the edges: a plant, a stack of books, a gift box, a coffee to go."""
    size = image.width
    for _ in range(r.choice((1, 1, 2))):
        x, y, u = size * r.choice((0.12, 0.86)), size * r.uniform(0.82, 0.98), size * r.uniform(0.1, 0.16)
        colour = r.choice(list(COLOURS.values()))
        parts: list[tuple[Outline, RGB]] = []
        kind = r.choice(("plant", "books", "gift", "cup"))
        if kind == "plant":
            for k in range(7):
                tip = (x + u * (k - 3) * 0.36, y - u * (2.4 - abs(k - 3) * 0.3))
                parts.append(
                    (
                        curve(
                            [
                                (x, y - u * 0.7),
                                ((x + tip[0]) / 2 - u * 0.16, (y + tip[1]) / 2),
                                tip,
                                ((x + tip[0]) / 2 + u * 0.16, (y + tip[1]) / 2),
                            ]
                        ),
                        shade((58, 128, 66), (k % 3 - 1) * 0.15),
                    )
                )
            parts.append(
                (
                    [
                        (x - u * 0.55, y - u * 0.8),
                        (x + u * 0.55, y - u * 0.8),
                        (x + u * 0.4, y),
                        (x - u * 0.4, y),
                    ],
                    colour,
                )
            )
        elif kind == "books":
            for k in range(3):
                w = u * r.uniform(0.8, 1.1)
                parts.append(
                    (
                        [
                            (x - w, y - u * 0.3 * (k + 1)),
                            (x + w, y - u * 0.3 * (k + 1)),
                            (x + w, y - u * 0.3 * k),
                            (x - w, y - u * 0.3 * k),
                        ],
                        r.choice(list(COLOURS.values())),
                    )
                )
        elif kind == "gift":
            parts += [
                ([(x - u, y - u * 1.4), (x + u, y - u * 1.4), (x + u, y), (x - u, y)], colour),
                (
                    [
                        (x - u * 0.15, y - u * 1.4),
                        (x + u * 0.15, y - u * 1.4),
                        (x + u * 0.15, y),
                        (x - u * 0.15, y),
                    ],
                    shade(colour, 0.6),
                ),
            ]
        else:
            parts += [
                (
                    [
                        (x - u * 0.5, y - u * 1.3),
                        (x + u * 0.5, y - u * 1.3),
                        (x + u * 0.35, y),
                        (x - u * 0.35, y),
                    ],
                    (236, 230, 218),
                ),
                (
                    [
                        (x - u * 0.46, y - u * 0.9),
                        (x + u * 0.46, y - u * 0.9),
                        (x + u * 0.4, y - u * 0.4),
                        (x - u * 0.4, y - u * 0.4),
                    ],
                    (150, 104, 66),
                ),
                (
                    [
                        (x - u * 0.55, y - u * 1.45),
                        (x + u * 0.55, y - u * 1.45),
                        (x + u * 0.55, y - u * 1.28),
                        (x - u * 0.55, y - u * 1.28),
                    ],
                    (60, 60, 62),
                ),
            ]
        _paint(image, parts)
