"""Surfaces: colours, patterns, material textures and the light on a form, as small Pillow images."""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from tgq.demo.drawing.draws import Shape
from tgq.nuisances.lettering import RGB

COLOURS: dict[str, RGB] = {
    "black": (38, 38, 42), "white": (240, 240, 236), "grey": (142, 146, 152), "silver": (196, 200, 206), "red": (200, 38, 44),
    "burgundy": (112, 26, 46), "orange": (236, 122, 34), "mustard": (214, 164, 40), "yellow": (246, 210, 60), "lime": (160, 204, 58),
    "green": (44, 142, 76), "olive": (110, 114, 58), "mint": (158, 216, 190), "teal": (22, 128, 134), "turquoise": (54, 188, 196),
    "sky blue": (128, 190, 232), "blue": (38, 92, 190), "navy": (30, 44, 92), "purple": (112, 62, 154), "lilac": (190, 164, 216),
    "pink": (240, 156, 184), "magenta": (206, 44, 120), "beige": (218, 196, 164), "brown": (122, 80, 50),
}  # fmt: skip
PATTERNS = ("solid", "striped", "dotted", "checked", "chevron", "floral", "triangles", "colour block")
LIGHTS = ("flat", "round", "tube", "ball", "cloth", "hollow", "none")
GLOSSY = frozenset({"metal", "steel", "ceramic", "porcelain", "plastic", "glass", "patent leather", "lacquer"})
TEXTURES = {  # material -> the tile that is multiplied onto it
    **dict.fromkeys(("cotton", "rubber", "paper", "nylon", "polyester"), "fine"),
    **dict.fromkeys(("linen", "canvas", "rattan"), "weave"),
    **dict.fromkeys(("wool", "knit"), "knit"),
    **dict.fromkeys(("fleece", "velvet", "suede", "felt"), "soft"),
    **dict.fromkeys(("leather", "terracotta"), "grain"),
    **dict.fromkeys(("wood", "oak", "walnut", "bamboo"), "wood"),
    **dict.fromkeys(("steel", "metal"), "brushed"),
    "denim": "twill",
    "plush": "fur",
}


def shade(colour: RGB, by: float) -> RGB:
    """Lighter (by > 0) or darker (by < 0), from -1 (black) to 1 (white)."""
    goal = 255 if by > 0 else 0
    return tuple(round(v + (goal - v) * abs(by)) for v in colour)  # type: ignore[return-value]  # of fixed length


@functools.lru_cache(maxsize=64)
def light(kind: str, glossy: bool) -> Image.Image:
    """The light on a form, 64 x 64, 128 neutral; stretched over a part and applied as hard light. `none` is no light at all."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    if kind == "round":  # an upright cylinder, lit from the left
        value = 128 + 30 * np.exp(-(((x + 0.35) / 0.35) ** 2)) - 62 * np.clip(np.abs(x) - 0.25, 0, 1) ** 1.5 - 14 * (x > 0) * x
        spot = np.exp(-(((x + 0.42) / 0.11) ** 2)) * (np.abs(y) < 0.9)
    elif kind == "tube":  # a lying cylinder, lit from above
        value = 128 + 30 * np.exp(-(((y + 0.4) / 0.35) ** 2)) - 66 * np.clip(y, 0, 1) ** 1.5
        spot = np.exp(-(((y + 0.5) / 0.12) ** 2)) * (np.abs(x) < 0.93)
    elif kind == "ball":
        value = 162 - 56 * np.hypot(x + 0.35, y + 0.4) ** 1.3
        spot = np.exp(-(((x + 0.42) / 0.17) ** 2) - ((y + 0.48) / 0.15) ** 2)
    elif kind == "cloth":  # soft folds that run downwards
        value = 130 - 10 * y - 12 * x + 9 * np.sin(7 * x + 2.5 * y) * (0.4 + 0.6 * (y + 1) / 2) - 16 * np.abs(x) ** 3
    elif kind == "hollow":  # the inside of something
        value = 104 - 26 * y + 18 * x
    else:  # flat: a plate, a little brighter to the upper left
        value = 130 - 9 * y - 9 * x
    if glossy:
        value = value + (72 * spot - 10 if kind in ("round", "ball", "tube") else 26 * (np.abs(x + 0.6 * y + 0.35) < 0.14))
    return Image.fromarray(np.clip(value, 0, 255).astype(np.uint8))


@functools.lru_cache(maxsize=256)
def texture(kind: str, px: int) -> Image.Image:
    """A px x px tile of greys near white, to be multiplied onto a surface drawn at twice its final size."""
    noise = np.random.Generator(np.random.PCG64(len(kind) * 7919 + ord(kind[0])))
    y, x = np.mgrid[0:px, 0:px] / max(px, 1)
    grain, turn = noise.random((px, px)), 2 * math.pi

    def blotches(cells: int) -> np.ndarray:
        small = Image.fromarray((noise.random((cells, cells)) * 255).astype(np.uint8))
        return np.asarray(small.resize((px, px), Image.Resampling.BICUBIC)) / 255

    if kind == "weave":
        value = 236 + 10 * np.sin(turn * 60 * x) + 9 * np.sin(turn * 60 * y) - 12 * grain
    elif kind == "twill":
        value = 232 + 16 * np.sin(turn * 55 * (x + y)) - 26 * grain
    elif kind == "knit":
        value = 228 + 22 * np.sin(turn * (34 * y + 0.6 * np.abs(np.sin(turn * 17 * x)) * 2))
    elif kind == "wood":
        wave = x * 9 + 0.55 * np.sin(turn * (y * 0.9 + 0.3)) + 0.2 * np.sin(turn * y * 3)
        value = 238 + 15 * np.sin(turn * wave) - 14 * blotches(40) - 8 * grain
    elif kind == "brushed":
        value = 246 - 16 * noise.random((px, 1)) - 6 * grain
    elif kind == "fine":
        value = 252 - 16 * grain
    else:
        base, depth, cells, rough = {"soft": (246, 14, 24, 10), "grain": (248, 26, 60, 8), "fur": (250, 34, 80, 22)}[kind]
        value = base - depth * blotches(cells) - rough * grain
    return Image.fromarray(np.clip(value, 0, 255).astype(np.uint8)).convert("RGB")


def patterned(px: int, main: RGB, second: RGB, pattern: str, shape: Shape) -> Image.Image:
    """A px x px surface with the pattern; its scale, angle and proportions are the style's."""
    image = Image.new("RGB", (px, px), main)
    if pattern == "solid":
        return image
    d = ImageDraw.Draw(image)
    step, share = px * shape.num("pattern scale", 0.055, 0.14), shape.num("pattern share", 0.25, 0.6)
    n = int(px / step) + 2
    cells = [(i, j) for i in range(n) for j in range(n)]
    offset = [((j + 0.5 * (i % 2)) * step, i * step) for i, j in cells]
    if pattern == "striped":
        upright, third = shape.chance("stripes upright", 0.4), shape.chance("third colour", 0.3)
        for i in range(n):
            a, b = i * step, i * step + step * share
            d.rectangle((a, 0, b, px) if upright else (0, a, px, b), fill=shade(second, 0.35) if third and i % 2 else second)
    elif pattern == "dotted":
        for x, y in offset:
            _disc(d, x, y, step * share * 0.6, second)
    elif pattern == "checked":
        veil = Image.new("L", (px, px), 0)
        for i in range(n):
            ImageDraw.Draw(veil).rectangle((i * step, 0, i * step + step * share, px), fill=110)
        image.paste(second, (0, 0, px, px), ImageChops.add(veil, veil.transpose(Image.Transpose.TRANSPOSE)))
    elif pattern == "chevron":
        for i in range(-2, n + 2):
            line = [(j * step, i * step + (step * 0.7 if j % 2 else 0)) for j in range(n + 1)]
            d.line(line, fill=second, width=max(1, int(step * share * 0.8)))
    elif pattern == "floral":
        r = step * (0.14 + 0.12 * share)
        for x, y in offset:
            for a in (k * 2 * math.pi / 5 for k in range(5)):
                _disc(d, x + 1.3 * r * math.cos(a), y + 1.3 * r * math.sin(a), r, second)
            _disc(d, x, y, r * 0.7, shade(second, 0.5))
    elif pattern == "triangles":
        for x, y in ((j * step, i * step) for i, j in cells if (i + j) % 2 == 0):
            d.polygon([(x, y + step), (x + step / 2, y), (x + step, y + step)], fill=second)
    elif pattern == "colour block":
        cut = shape.num("block at", 0.35, 0.65) * px
        d.polygon([(0, cut), (px, cut - px * shape.num("block slope", -0.2, 0.2)), (px, px), (0, px)], fill=second)
    return image


def _disc(d: ImageDraw.ImageDraw, x: float, y: float, r: float, colour: RGB) -> None:
    d.ellipse((x - r, y - r, x + r, y + r), fill=colour)
