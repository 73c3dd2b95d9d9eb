"""What a shop prints over its pictures: banners, badges, price stickers, ribbons, watermarks."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from tgq.demo.drawing.outline import star
from tgq.demo.drawing.surface import COLOURS
from tgq.nuisances.lettering import RGB, contrast, font

SHARE = 0.3
SLOGANS = ("SALE", "NEW IN", "FREE DELIVERY", "LAST PIECES", "TOP RATED", "2 FOR 1", "WEEKEND DEAL", "ONLY TODAY", "SUMMER SALE", "EXTRA 10% OFF",
           "OFFICIAL SHOP", "BACK IN STOCK", "ORDER NOW", "GIFT IDEA")  # fmt: skip
INKS = ("red", "orange", "yellow", "green", "blue", "navy", "black", "magenta", "purple", "teal", "white")


def overlay(r: random.Random, image: Image.Image) -> str:
    """Prints on some pictures, in place; returns what: one of KINDS, `several`, or `none`."""
    if r.random() >= SHARE:
        return "none"
    kinds = r.sample(tuple(KINDS), r.choice((1, 1, 1, 2, 2, 3)))
    for kind in kinds:
        KINDS[kind](r, image, image.width)
    return kinds[0] if len(kinds) == 1 else "several"


def _print(d: ImageDraw.ImageDraw, x: float, y: float, text: str, px: int, ink: RGB) -> None:
    """Letters px high that are seen on the ink, centred at x, y."""
    d.text((x, y), text, font=font(px), fill=contrast(ink), anchor="mm")


def _banner(r: random.Random, image: Image.Image, size: int) -> None:
    """A strip of text along one side, sometimes across the product."""
    d = ImageDraw.Draw(image, "RGBA")
    h = round(size * r.uniform(0.1, 0.2))
    y = r.choice((0, size - h, size - h, round(size * r.uniform(0.15, 0.7))))
    ink = COLOURS[r.choice(INKS)]
    d.rectangle((0, y, size, y + h), fill=(*ink, r.randint(190, 255)))
    text, px = r.choice(SLOGANS), round(h * 0.62)
    while d.textlength(text, font=font(px)) > size * 0.94:
        px -= 1
    _print(d, size / 2, y + h / 2, text, px, ink)


def _badge(r: random.Random, image: Image.Image, size: int) -> None:
    """A round or star-shaped badge near a corner."""
    d = ImageDraw.Draw(image)
    radius = size * r.uniform(0.1, 0.17)
    x, y = (r.choice((radius * 1.15, size - radius * 1.15)) for _ in "xy")
    ink = COLOURS[r.choice(INKS)]
    if r.random() < 0.5:
        d.polygon(star(x, y, radius * 1.1, r.randint(9, 16), 0.82), fill=ink)
    else:
        d.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink, outline=contrast(ink), width=max(1, size // 100))
    text = r.choice((f"-{r.choice((10, 15, 20, 25, 30, 40, 50, 70))}%", "NEW", "ECO", "TOP", "HOT", "1+1"))
    _print(d, x, y, text, max(6, round(radius * 0.72)), ink)


def _price(r: random.Random, image: Image.Image, size: int) -> None:
    """A slanted price sticker anywhere."""
    w, h = round(size * r.uniform(0.26, 0.38)), round(size * r.uniform(0.11, 0.16))
    ink = COLOURS[r.choice(("yellow", "white", "red", "orange"))]
    sticker = Image.new("RGBA", (w, h), (0, 0, 0, 0))
    d = ImageDraw.Draw(sticker)
    d.rounded_rectangle((0, 0, w - 1, h - 1), h // 5, fill=(*ink, 255), outline=(60, 60, 60, 255))
    _print(d, w / 2, h / 2, f"${r.randint(4, 499)}.{r.choice(('99', '95', '00'))}", round(h * 0.56), ink)
    sticker = sticker.rotate(r.uniform(-18, 18), Image.Resampling.BICUBIC, expand=True)
    image.paste(sticker, (r.randrange(max(1, size - sticker.width)), r.randrange(max(1, size - sticker.height))), sticker)


def _ribbon(r: random.Random, image: Image.Image, size: int) -> None:
    """A ribbon across an upper corner."""
    ink = COLOURS[r.choice(INKS)]
    band = Image.new("RGBA", (round(size * 0.75), round(size * 0.1)), (*ink, 255))
    text = r.choice(("SALE", "NEW", "BEST SELLER", "LIMITED", "-30%", "OUTLET"))
    _print(ImageDraw.Draw(band), band.width / 2, band.height / 2, text, round(band.height * 0.62), ink)
    left, off = r.random() < 0.5, round(size * 0.12)
    band = band.rotate(45 if left else -45, Image.Resampling.BICUBIC, expand=True)
    image.paste(band, (-off, -off) if left else (size - band.width + off, -off), band)


def _watermark(r: random.Random, image: Image.Image, size: int) -> None:
    """The shop's name, faint, across the middle."""
    text = r.choice(("shop-online", "www.store", "PHOTO", "MEGASTORE", "sample"))
    mark = Image.new("L", (size, size), 0)
    ImageDraw.Draw(mark).text((size / 2, size / 2), text, font=font(round(size * r.uniform(0.12, 0.18))), fill=r.randint(70, 130), anchor="mm")
    mark = mark.rotate(r.choice((0, 25, -25)), Image.Resampling.BILINEAR)
    image.paste(r.choice(((255, 255, 255), (60, 60, 60))), (0, 0, size, size), mark)


KINDS = {"banner": _banner, "badge": _badge, "price sticker": _price, "ribbon": _ribbon, "watermark": _watermark}
