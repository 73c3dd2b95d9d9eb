"""Backgrounds: what stands or hangs behind a product."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from tgq.demo.drawing.outline import curve
from tgq.demo.drawing.surface import RGB, shade, texture


def background(r: random.Random, size: int) -> tuple[Image.Image, str]:
    """A size x size picture without a product, and the name of its kind."""
    kind = r.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
    return KINDS[kind][1](r, size), kind


def _colour(r: random.Random, low: int, high: int, spread: int = 40) -> RGB:
    base = r.randint(low, high)
    return tuple(min(255, max(0, base + r.randint(-spread, spread))) for _ in range(3))  # type: ignore[return-value]  # of fixed length


def _none(r: random.Random, size: int) -> Image.Image:
    return Image.new("RGB", (size, size), r.choice(((255, 255, 255), (255, 255, 255), (246, 246, 246), (238, 240, 242))))


def _blend(kind: str, size: int, a: RGB, b: RGB) -> Image.Image:
    ramp = Image.linear_gradient("L") if kind != "radial" else Image.radial_gradient("L")
    if kind == "across":
        ramp = ramp.transpose(Image.Transpose.ROTATE_90)
    return ImageOps.colorize(ramp.resize((size, size), Image.Resampling.BILINEAR), a, b)


def _gradient(r: random.Random, size: int) -> Image.Image:
    a, b = _colour(r, 90, 230, 60), _colour(r, 120, 240, 60)
    return _blend(r.choice(("down", "across", "radial")), size, a, b)


def _studio(r: random.Random, size: int) -> Image.Image:
    """A wall above a floor, or a paper sweep."""
    wall, floor = _colour(r, 170, 240, 18), _colour(r, 120, 215, 22)
    image = _blend("down", size, shade(wall, 0.2), shade(wall, -0.12))
    y = round(size * r.uniform(0.6, 0.82))
    ground = _blend("down", size, shade(floor, -0.1), shade(floor, 0.15)).resize((size, size - y))
    image.paste(ground, (0, y))
    if r.random() < 0.5:
        ImageDraw.Draw(image).rectangle((0, y - size // 40, size, y), fill=shade(wall, 0.55))
        return image
    return image.filter(ImageFilter.BoxBlur(size // 24))


def _wood(r: random.Random, size: int) -> Image.Image:
    tone = r.choice(((196, 154, 108), (150, 106, 70), (112, 78, 54), (214, 190, 156), (170, 160, 150)))
    grain = texture("wood", 256).getchannel(0)
    image = Image.new("RGB", (size, size))
    n = r.randint(3, 7)
    for k in range(n):
        y0, y1 = round(size * k / n), round(size * (k + 1) / n)
        at = r.randrange(0, 160)
        plank = grain.crop((at, 0, at + 96, 256)).transpose(Image.Transpose.ROTATE_90).resize((size, y1 - y0))
        colour = shade(tone, r.uniform(-0.14, 0.1))
        image.paste(ImageOps.colorize(plank, shade(colour, -0.75), shade(colour, 0.05)), (0, y0))
        ImageDraw.Draw(image).line((0, y0, size, y0), fill=shade(tone, -0.5), width=max(1, size // 150))
    return image if r.random() < 0.6 else image.transpose(Image.Transpose.ROTATE_90)


def _tiles(r: random.Random, size: int) -> Image.Image:
    tone = _colour(r, 150, 235, 25)
    image = Image.new("RGB", (size, size), tone)
    d = ImageDraw.Draw(image)
    w, h = size * r.uniform(0.09, 0.24), size * r.uniform(0.09, 0.2)
    joint = shade(tone, r.choice((-0.3, 0.5)))
    for j in range(int(size / h) + 1):
        shift = w / 2 if j % 2 else 0
        for i in range(-1, int(size / w) + 1):
            x, y = i * w + shift, j * h
            d.rectangle((x, y, x + w, y + h), fill=shade(tone, r.uniform(-0.08, 0.08)), outline=joint, width=max(1, size // 110))
    return image


def _clutter(r: random.Random, size: int) -> Image.Image:
    """Shelves with boxes, jars and books, more or less in focus."""
    wall = _colour(r, 110, 210, 20)
    image = _blend("down", size, wall, shade(wall, -0.2))
    d = ImageDraw.Draw(image)
    rows = r.randint(2, 4)
    for k in range(rows):
        floor = size * (k + 1) / rows - size * 0.02
        x = -size * r.random() * 0.1
        while x < size:
            w, h = size * r.uniform(0.05, 0.17), size * r.uniform(0.3, 0.9) / rows
            colour = _colour(r, 60, 210, 60)
            kind = r.random()
            if kind < 0.55:
                d.rectangle((x, floor - h, x + w, floor), fill=colour, outline=shade(colour, -0.3))
                d.rectangle((x + w * 0.15, floor - h * 0.7, x + w * 0.85, floor - h * 0.45), fill=shade(colour, 0.5))
            elif kind < 0.8:
                d.rounded_rectangle((x, floor - h * 0.8, x + w, floor), w * 0.3, fill=colour)
                d.rectangle((x + w * 0.3, floor - h, x + w * 0.7, floor - h * 0.75), fill=shade(colour, -0.4))
            else:
                d.ellipse((x, floor - w, x + w, floor), fill=colour)
            x += w + size * r.uniform(0, 0.05)
        d.rectangle((0, floor, size, floor + size * 0.025), fill=shade(wall, -0.45))
    blur = r.choice((0, 0.006, 0.014, 0.022))
    return image.filter(ImageFilter.BoxBlur(size * blur)) if blur else image


def _outdoor(r: random.Random, size: int) -> Image.Image:
    """Sky, hills and grass."""
    image = _blend("down", size, (112, 170, 226), (226, 236, 240))
    d = ImageDraw.Draw(image)
    for k in range(r.randint(1, 3)):
        y = size * (0.5 + 0.08 * k)
        ridge = [(size * t / 5, y + size * r.uniform(-0.09, 0.05)) for t in range(-1, 8)]
        d.polygon([*curve(ridge, closed=False), (size * 1.5, size), (-size * 0.5, size)], fill=shade((96, 138, 92), 0.35 - 0.17 * k))
    y = round(size * r.uniform(0.64, 0.78))
    image.paste(_blend("down", size, (116, 160, 76), (74, 116, 48)).resize((size, size - y)), (0, y))
    for _ in range(r.randint(0, 3)):
        x, h = size * r.random(), size * r.uniform(0.15, 0.35)
        d.rectangle((x - size * 0.012, y - h * 0.4, x + size * 0.012, y + size * 0.02), fill=(96, 70, 48))
        d.ellipse((x - h * 0.4, y - h, x + h * 0.4, y - h * 0.25), fill=shade((62, 112, 58), r.uniform(-0.1, 0.25)))
    return image.filter(ImageFilter.BoxBlur(size * r.uniform(0.002, 0.012)))


KINDS = {  # with their shares of all pictures
    "none": (0.42, _none), "gradient": (0.15, _gradient), "studio": (0.13, _studio), "clutter": (0.12, _clutter), "wood": (0.07, _wood),
    "tiles": (0.06, _tiles), "outdoor": (0.05, _outdoor),
}  # fmt: skip
