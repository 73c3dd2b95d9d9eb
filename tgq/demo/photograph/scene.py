"""Photography: puts a product into a picture, with the nuisances of a real shop, and says what it did."""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from tgq.demo.drawing.canvas import Canvas
from tgq.demo.photograph.backgrounds import background
from tgq.demo.photograph.overlays import overlay
from tgq.demo.photograph.props import hand, person, still_life
from tgq.demo.styles import Style, Variant

Box = tuple[float, float, float, float]
VIEWS = ("front", "front", "front", "mirrored", "tilted", "close-up")


@dataclass(frozen=True)
class Cut:
    """A product cut out: its picture, and where the drawing's unit square lies around it."""

    colour: Image.Image  # RGB, cropped to the product
    mask: Image.Image  # L, 255 where the product is
    unit: float  # pixels of the drawing's unit
    corner: tuple[float, float]  # the drawing's origin, in pixels from the picture's upper left corner


@dataclass(frozen=True)
class Photo:
    """A picture and the truth about it."""

    image: Image.Image
    box: Box
    view: str
    background: str
    overlay: str
    prop: str
    distractors: int


def cut_out(style: Style, variant: Variant, side: int, turn: float = 0.0, mirrored: bool = False) -> tuple[Cut, dict[str, str]]:
    """Draws a variant, its longer side `side` pixels; returns it with the traits that the drawing showed."""
    px = _sheet(2 * side)
    shape = style.shape()
    canvas = Canvas(px, style.look(variant), shape)
    style.product.draw(canvas, shape)
    layers = [canvas.colour, canvas.alpha]
    if turn:
        layers = [layer.rotate(turn, Image.Resampling.BILINEAR) for layer in layers]
    if mirrored:
        layers = [layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for layer in layers]
    x0, y0, x1, y1 = layers[1].getbbox() or (0, 0, px, px)
    scale = side / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    colour, mask = (layer.resize(size, Image.Resampling.BOX, (x0, y0, x1, y1)) for layer in layers)
    return Cut(colour, mask, px * scale, (-x0 * scale, -y0 * scale)), shape.traits


def _sheet(px: int) -> int:
    """The next of few canvas sizes (six to an octave), so that every texture is made once."""
    return round(2 ** (math.ceil(6 * math.log2(px)) / 6))


def photograph(r: random.Random, style: Style, variant: Variant, others: list[tuple[Style, Variant]], size: int) -> tuple[Photo, dict[str, str]]:
    """A size x size picture of a variant, with `others` beside it; returns it with the traits of the style.

    With others in the frame all are alike in size, place and order: only the metadata singles out the item.
    """
    canvas, kind = background(r, size)
    view = "front" if others else r.choice(VIEWS)
    worn = style.product.stance == "worn" and view in ("front", "mirrored") and not others
    prop = "person" if worn and r.random() < 0.35 else r.choice(("hand", "still life")) if r.random() < 0.16 else "none"
    if others:
        box, traits = _group(r, canvas, style, variant, others)
    else:
        share = r.uniform(1.0, 1.35) if view == "close-up" else r.uniform(0.45, 0.62) if prop == "person" else r.uniform(0.6, 0.9)
        turn = r.uniform(8, 28) * r.choice((-1, 1)) if view == "tilted" else 0.0
        cut, traits = cut_out(style, variant, round(size * share), turn, view == "mirrored")
        x, y = _place(r, size, cut.mask.size, view == "close-up")
        if prop == "still life":
            still_life(r, canvas)
        if prop == "person":
            person(r, canvas, style.product.path, (x + cut.corner[0], y + cut.corner[1]), cut.unit)
        _put(canvas, cut, x, y, style.product.stance)
        box = _clip(x, y, cut.mask.size, size)
    if prop == "hand":
        hand(r, canvas, box)
    canvas = _expose(r, canvas)
    marks = overlay(r, canvas)
    return Photo(canvas, box, view, kind, marks, prop, len(others)), traits


def _place(r: random.Random, size: int, item: tuple[int, int], close: bool) -> tuple[int, int]:
    """Where an item's upper left corner lies; close up, its middle stays in the middle third."""
    x, y = (round(size * r.uniform(0.4, 0.6) - side / 2) if close else round((size - side) * (0.5 + 0.9 * (r.random() - 0.5))) for side in item)
    return x, y


def _group(r: random.Random, canvas: Image.Image, style: Style, variant: Variant, others: list[tuple[Style, Variant]]) -> tuple[Box, dict[str, str]]:
    size, cast = canvas.width, [(style, variant), *others]
    order = list(range(len(cast)))
    r.shuffle(order)
    if len(cast) == 2 and r.random() < 0.5:
        spots = [(0.28, 0.5), (0.72, 0.5)]
    elif len(cast) == 3 and r.random() < 0.4:
        spots = [(0.2, 0.55), (0.5, 0.5), (0.8, 0.55)]
    else:
        spots = r.sample([(0.28, 0.29), (0.72, 0.29), (0.28, 0.71), (0.72, 0.71)], len(cast))
    side = r.uniform(0.4, 0.54) if len(cast) < 4 else r.uniform(0.36, 0.46)
    box: Box = (0, 0, 1, 1)
    traits: dict[str, str] = {}
    for spot, who in zip(spots, order, strict=False):
        theirs, dressed = cast[who]
        cut, told = cut_out(theirs, dressed, round(size * side * r.uniform(0.9, 1.1)), 0.0, r.random() < 0.3)
        w, h = cut.mask.size
        x, y = (round(min(max(size * (c + r.uniform(-0.04, 0.04)) - n / 2, 0), size - n)) for c, n in zip(spot, (w, h), strict=True))
        _put(canvas, cut, x, y, theirs.product.stance)
        if who == 0:
            box, traits = _clip(x, y, (w, h), size), told
    return box, traits


def _put(canvas: Image.Image, item: Cut, x: int, y: int, stance: str) -> None:
    """Pastes an item with its shadow: a dark patch under what stands, else a soft copy behind it."""
    w, h = item.mask.size
    if stance == "stands":
        dark = _patch().resize((round(w * 1.15) + 4, round(w * 0.15) + 4), Image.Resampling.BILINEAR)
        at = (x + w // 2 - dark.width // 2, y + h - dark.height // 2 - 1)
    else:
        pad = 8
        dark = Image.new("L", (w // 4 + pad // 2, h // 4 + pad // 2), 0)
        dark.paste(90, (pad // 4, pad // 4), item.mask.resize((max(1, w // 4), max(1, h // 4)), Image.Resampling.BOX))
        dark = dark.filter(ImageFilter.BoxBlur(1)).resize((w + 2 * pad, h + 2 * pad), Image.Resampling.BILINEAR)
        at = (x - pad + max(2, w // 40), y - pad + max(2, w // 30))
    canvas.paste((24, 22, 26), (*at, at[0] + dark.width, at[1] + dark.height), dark)
    canvas.paste(item.colour, (x, y), item.mask)


@functools.lru_cache(maxsize=1)
def _patch() -> Image.Image:
    """A soft dark spot, 64 x 64, nothing at its rim."""
    return Image.radial_gradient("L").resize((64, 64)).point([max(0, 150 - round(v * 1.2)) for v in range(256)])


def _clip(x: int, y: int, item: tuple[int, int], size: int) -> Box:
    edges = (x, y, x + item[0], y + item[1])
    return tuple(min(max(e / size, 0.0), 1.0) for e in edges)  # type: ignore[return-value]  # of fixed length


def _expose(r: random.Random, image: Image.Image) -> Image.Image:
    """Brightness, contrast, colour cast, and now and then a picture slightly out of focus."""
    bright, contrast = r.uniform(0.82, 1.14), r.uniform(0.85, 1.12)
    cast = (1 + r.gauss(0, 0.02), 1.0, 1 + r.gauss(0, 0.025))
    grey = ((np.arange(256) - 128) * contrast + 128) * bright
    image = image.point(np.clip(np.rint(np.outer(cast, grey)), 0, 255).astype(int).ravel().tolist())
    if r.random() < 0.08:
        image = image.filter(ImageFilter.GaussianBlur(image.width * r.uniform(0.002, 0.006)))
    return image
