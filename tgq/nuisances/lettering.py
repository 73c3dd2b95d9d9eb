"""Words on a picture: a name in large letters, and what a shop prints over its pictures."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from PIL import Image, ImageDraw, ImageFont

from tgq.nuisances.item import Item

RGB = tuple[int, int, int]

NAME_CHARACTERS = 40  # of a name that is written large; more would have to be written small
SMALLEST = 6  # pixels of a letter
INKS: tuple[RGB, ...] = ((206, 32, 41), (236, 121, 28), (250, 208, 44), (28, 135, 84), (24, 84, 168), (120, 44, 140), (18, 18, 20), (250, 250, 248))
OFFERS = (
    "MEGA SALE", "FREE SHIPPING", "NEW ARRIVAL", "BUY 2 PAY 1", "LIMITED STOCK", "BEST PRICE", "TODAY ONLY", "MEMBERS SAVE MORE", "SHOP NOW",
    "CLEARANCE", "EXTRA DISCOUNT", "FAST DELIVERY",
)  # fmt: skip


def typographic(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """One of the others' names in large letters; None without a picture, or where no other name can be written."""
    own = writable(item.title)
    names = [name for other in others if (name := writable(other.title)) and name != own]
    return _named(r, item, r.choice(names)) if names else None


def typographic_own(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """The item's own name in large letters; None without a picture or a name that can be written."""
    name = writable(item.title)
    return _named(r, item, name) if name else None


def banner(r: random.Random, item: Item, others: Sequence[Item]) -> Item | None:
    """A strip with an offer along one side or through the middle, often with a round sticker; None without a picture."""
    if item.image is None:
        return None
    image = item.image.copy()
    width, height = image.size
    tall = max(1, round(height * r.uniform(0.14, 0.24)))
    top = r.choice((0, height - tall, height - tall, round(height * r.uniform(0.3, 0.6))))
    plate(image, r.choice(OFFERS), (0, top, width, top + tall), r.choice(INKS))
    if r.random() < 0.6:
        _sticker(image, r)
    return replace(item, image=image)


def writable(title: str) -> str:
    """What Pillow's typeface, which has the Latin letters without accents, can write of a name; empty where that is no name.

    At most NAME_CHARACTERS, whole words as far as there are any.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = " ".join(plain.split())
    if sum(c.isalpha() for c in words) < 3:
        return ""
    return words if len(words) <= NAME_CHARACTERS else words[: NAME_CHARACTERS + 1].rpartition(" ")[0] or words[:NAME_CHARACTERS]


def font(px: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface: the same on every machine."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size=px))  # another type only where Pillow lacks FreeType


def contrast(colour: RGB) -> RGB:
    """Near-white on a dark colour, near-black on a light one."""
    return (245, 245, 242) if luminance(colour) < 0.55 else (34, 34, 38)


def luminance(colour: RGB) -> float:
    """Brightness in [0, 1] (Rec. 601 weights)."""
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def _named(r: random.Random, item: Item, name: str) -> Item | None:
    if item.image is None:
        return None
    image = item.image.copy()
    width, height = image.size
    tall = max(1, round(height * r.uniform(0.3, 0.45)))
    top = r.choice((0, (height - tall) // 2, height - tall))
    plate(image, name, (0, top, width, top + tall), r.choice(INKS))
    return replace(item, image=image)


def plate(image: Image.Image, text: str, box: tuple[int, int, int, int], colour: RGB) -> None:
    """Text on a coloured plate, as large as the plate allows."""
    left, top, right, bottom = box
    draw = ImageDraw.Draw(image)
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    lines, px = _fitted(text, 0.94 * (right - left), 0.86 * (bottom - top))
    middle = ((left + right) / 2, (top + bottom) / 2)
    draw.multiline_text(middle, "\n".join(lines), font=font(px), fill=contrast(colour), anchor="mm", align="center", spacing=px // 8)


def _sticker(image: Image.Image, r: random.Random) -> None:
    width, height = image.size
    radius = min(width, height) * r.uniform(0.12, 0.18)
    x, y = r.choice((radius, width - radius)), r.choice((radius, height - radius))
    colour, text = r.choice(INKS), f"-{r.randrange(10, 80, 5)}%"
    draw = ImageDraw.Draw(image)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    draw.text((x, y), text, font=font(max(SMALLEST, round(0.75 * radius))), fill=contrast(colour), anchor="mm")


def _fitted(text: str, width: float, height: float) -> tuple[list[str], int]:
    """The text in lines, and the largest letters (pixels) with which they fit; the smallest where none do."""
    px = max(SMALLEST, round(0.8 * height))
    while True:
        lines, face = _lines(text, px, width), font(px)
        if px == SMALLEST or (1.2 * px * len(lines) <= height and max(map(face.getlength, lines)) <= width):
            return lines, px
        px = max(SMALLEST, round(0.85 * px))


def _lines(text: str, px: int, width: float) -> list[str]:
    face, lines = font(px), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and face.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
