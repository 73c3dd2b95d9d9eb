"""The canvas on which a product type draws itself: parts with outline, paint and light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from PIL import Image, ImageChops, ImageDraw

from tgq.demo.drawing import outline as o
from tgq.demo.drawing.draws import Shape
from tgq.demo.drawing.outline import Outline
from tgq.demo.drawing.surface import GLOSSY, RGB, TEXTURES, light, patterned, shade, texture
from tgq.nuisances.lettering import contrast, font, luminance


@dataclass(frozen=True)
class Brand:
    """A maker: its name and the mark that stands on its products."""

    name: str
    mark: str  # one of MARKS
    colour: RGB


PAINTS: dict[str, RGB] = {
    "dark": (44, 44, 48), "metal": (188, 192, 198), "wood": (176, 128, 82), "white": (244, 244, 240), "glass": (196, 218, 226),
    "rubber": (58, 58, 60), "screen": (26, 30, 40), "brass": (210, 174, 88),
}  # fmt: skip
PAINT_NAMES = frozenset({*PAINTS, "main", "plain", "second", "deep", "pale"})
MARKS = ("ring", "star", "triangle", "diamond", "bars", "hexagon", "cross", "moon", "letter", "wave")


@dataclass(frozen=True)
class Look:
    """How one variant of a style is finished: its colours, pattern and material."""

    main: RGB
    second: RGB
    pattern: str
    material: str
    brand: Brand


class Canvas:
    """A px x px transparent sheet; a drawing speaks in shares of its side.

    Paints are names: main (with the style's pattern), plain (the main colour without it), second, deep and
    pale (the main colour darker and lighter), those of PAINTS, or an RGB triple. Parts cover what was drawn
    before. Cost grows with the area of the parts' bounding boxes.
    """

    def __init__(self, px: int, look: Look, shape: Shape):
        self.px, self.look, self.shape = px, look, shape
        self.colour = Image.new("RGB", (px, px), look.main)
        self.alpha = Image.new("L", (px, px), 0)
        self._glossy = look.material in GLOSSY
        self._surfaces: dict[str, Image.Image] = {}
        main = look.main
        self._paints: dict[str, RGB] = {**PAINTS, "main": main, "plain": main, "second": look.second, "deep": shade(main, -0.35), "pale": shade(main, 0.45)}

    def rgb(self, paint: str | RGB) -> RGB:
        """The plain colour of a paint."""
        return self._paints[paint] if isinstance(paint, str) else paint

    def ink(self, paint: str | RGB) -> str:
        """The paint in which a dial's marks are seen on this one."""
        return "dark" if sum(self.rgb(paint)) > 380 else "white"

    def part(self, paint: str | RGB, light: str, outline: Outline, edge: float = 0.35, opacity: float = 1.0) -> None:
        """Fills an outline with paint under one of LIGHTS; `edge` darkens its rim, `opacity` < 1 lets through."""
        px = self.px
        points = [(x * px, y * px) for x, y in outline]
        x0, y0 = (max(0, int(min(p[k] for p in points)) - 2) for k in (0, 1))
        x1, y1 = (min(px, int(max(p[k] for p in points)) + 3) for k in (0, 1))
        if x1 <= x0 or y1 <= y0:
            return
        mask = Image.new("L", (x1 - x0, y1 - y0), 0)
        ImageDraw.Draw(mask).polygon([(x - x0, y - y0) for x, y in points], fill=round(255 * opacity))
        fill = self._lit(paint, light, (x0, y0, x1, y1))
        self.colour.paste(fill, (x0, y0), mask)
        self.alpha.paste(ImageChops.lighter(self.alpha.crop((x0, y0, x1, y1)), mask), (x0, y0))
        if edge:
            rim = shade(self.rgb(paint), -edge if luminance(self.rgb(paint)) > 0.14 else edge * 0.7)
            width = max(1, round(px * 0.006))
            ImageDraw.Draw(self.colour).line([*points, points[0]], fill=rim, width=width)

    def _lit(self, paint: str | RGB, kind: str, area: tuple[int, int, int, int]) -> Image.Image:
        size = (area[2] - area[0], area[3] - area[1])
        glossy = self._glossy if paint in ("main", "plain", "deep", "pale", "second") else paint in ("metal", "glass")
        if paint in ("main", "plain", "wood"):
            base = self._surface(paint).crop(area)
        else:
            base = Image.new("RGB", size, self.rgb(paint))
        if kind == "none":
            return base
        grey = light(kind, glossy).resize(size, Image.Resampling.BILINEAR)
        return ImageChops.hard_light(base, Image.merge("RGB", (grey, grey, grey)))

    def _surface(self, paint: str) -> Image.Image:
        if paint not in self._surfaces:
            pattern = self.look.pattern if paint == "main" else "solid"
            image = patterned(self.px, self.rgb(paint), self.look.second, pattern, self.shape)
            kind = "wood" if paint == "wood" else TEXTURES.get(self.look.material)
            if kind:
                image = ImageChops.multiply(image, texture(kind, self.px))
            self._surfaces[paint] = image
        return self._surfaces[paint]

    def line(self, paint: str | RGB, width: float, points: Outline) -> None:
        """A flat line with round ends: seams, laces, wires."""
        colour, w = self.rgb(paint), max(1, round(width * self.px))
        scaled = [(x * self.px, y * self.px) for x, y in points]
        for image, fill in ((self.colour, colour), (self.alpha, 255)):
            d = ImageDraw.Draw(image)
            d.line(scaled, fill=fill, width=w, joint="curve")
            for x, y in (scaled[0], scaled[-1]):
                d.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=fill)

    def tube(self, paint: str | RGB, width: float, points: Outline) -> None:
        """A round bar along a line: handles, legs, frames; darker at its rim, with a highlight."""
        colour = self.rgb(paint)
        self.line(shade(colour, -0.35), width, points)
        self.line(colour, width * 0.72, points)
        lift = width * 0.16
        self.line(shade(colour, 0.4), width * 0.22, [(x - lift, y - lift) for x, y in points])

    def cut(self, outline: Outline) -> None:
        """Makes a hole."""
        ImageDraw.Draw(self.alpha).polygon([(x * self.px, y * self.px) for x, y in outline], fill=0)

    def mark(self, x: float, y: float, size: float, paint: str | RGB | None = None) -> None:
        """The brand's mark, centred at x, y."""
        at = min(max(int(x * self.px), 0), self.px - 1), min(max(int(y * self.px), 0), self.px - 1)
        under = cast(RGB, self.colour.getpixel(at))
        brand = self.look.brand
        far = sum(abs(a - b) for a, b in zip(under, brand.colour, strict=True)) > 160
        colour = self.rgb(paint) if paint else brand.colour if far else contrast(under)
        draw_mark(ImageDraw.Draw(self.colour), brand, x * self.px, y * self.px, size * self.px, colour)

    def text(self, x: float, y: float, size: float, paint: str | RGB, text: str) -> None:
        """A few letters, centred at x, y."""
        px = max(4, round(size * self.px))
        ImageDraw.Draw(self.colour).text((x * self.px, y * self.px), text, font=font(px), fill=self.rgb(paint), anchor="mm")


def draw_mark(d: ImageDraw.ImageDraw, brand: Brand, x: float, y: float, size: float, colour: RGB) -> None:
    """Draws a brand's mark of the given size in pixels, centred at x, y."""
    r = size / 2
    around = (x - r, y - r, x + r, y + r)
    solid = {"star": o.star(x, y, r * 1.15, 5, 0.42), "triangle": o.polygon(x, y, r * 1.1, 3), "hexagon": o.polygon(x, y, r, 6)}
    solid["diamond"] = [(x, y - r), (x + r * 0.7, y), (x, y + r), (x - r * 0.7, y)]
    if brand.mark in solid:
        d.polygon(solid[brand.mark], fill=colour)
    elif brand.mark == "ring":
        d.ellipse(around, outline=colour, width=max(1, round(r * 0.45)))
    elif brand.mark == "bars":
        for k in (-1, 0, 1):
            left, top = x + k * r * 0.7, y - r + (1 - k) * r * 0.45
            d.polygon([(left - r * 0.4, y + r), (left, top), (left + r * 0.3, top), (left - r * 0.1, y + r)], fill=colour)
    elif brand.mark == "cross":
        d.rectangle((x - r, y - r * 0.32, x + r, y + r * 0.32), fill=colour)
        d.rectangle((x - r * 0.32, y - r, x + r * 0.32, y + r), fill=colour)
    elif brand.mark == "moon":
        d.arc(around, 60, 300, fill=colour, width=max(1, round(r * 0.55)))
    elif brand.mark == "wave":
        wave = [(x - r + 2 * r * k / 4, y + (r * 0.4 if k % 2 else -r * 0.4)) for k in range(5)]
        d.line(o.curve(wave, closed=False), fill=colour, width=max(1, round(r * 0.5)), joint="curve")
    else:
        d.text((x, y), brand.name[0], font=font(max(4, round(size * 1.4))), fill=colour, anchor="mm")
