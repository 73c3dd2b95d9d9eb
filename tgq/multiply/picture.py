"""The picture of a planned variant, and where the item is in it."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageEnhance

from tgq.multiply.options import Options
from tgq.multiply.plan import Plan, draws
from tgq.nuisances import Item
from tgq.nuisances.lettering import banner
from tgq.nuisances.scenery import surface

PLAIN = "plain"  # name of a near-white background
CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """A drawn variant.

    Attributes:
        image: RGB, square.
        box: x0, y0, x1, y1 of the item as shares of the picture; of a product cut out of its background it is the product's own.
        background: PLAIN, gradient, stripes or clouds.
        quality: of its JPEG encoding.
    """

    image: Image.Image
    box: Box
    background: str
    quality: int

    def jpeg(self) -> bytes:
        """The picture as JPEG."""
        data = io.BytesIO()
        self.image.save(data, "JPEG", quality=self.quality)
        return data.getvalue()


def picture_of(options: Options, plan: Plan) -> Picture:
    """Draw a planned variant: the item alone anywhere, or it and the others each in a corner.

    All products of a scene are alike in size, place and order of pasting, so only the metadata says which one is meant. They may
    overlap where they are larger than half of the side. Cost: about 10 ms at 224 pixels.
    """
    side, product, number = options.size, plan.product, plan.number
    r = draws(options, product, number, "surface")
    page = r.randint(226, 255)
    sheet, background = surface(r, side, side) if plan.surface else (Image.new("RGB", (side, side), (page,) * 3), PLAIN)
    box = _compose(draws(options, product, number, "layout"), options, plan, sheet)
    r = draws(options, product, number, "light")
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast):
        sheet = enhance(sheet).enhance(r.uniform(0.9, 1.1))
    quality = r.randint(60, 92)
    if plan.banner and (printed := banner(draws(options, product, number, "offer"), Item(product.item_id, sheet), ())):
        sheet = printed.image or sheet
    return Picture(sheet, box, background, quality)


def _compose(r: random.Random, options: Options, plan: Plan, sheet: Image.Image) -> Box:
    """Paste the products in a drawn order. Returns the item's box."""
    side, cast = options.size, (plan.product, *plan.others)
    corners = r.sample(CORNERS, len(cast)) if plan.others else [None]
    low, high = options.scene_size if plan.others else options.item_size
    placed = []
    for product, corner in zip(cast, corners, strict=True):
        largest = r.uniform(low, high) * side
        cutout = product.cutout.fitted(largest, largest)
        width, height = cutout.image.size
        placed.append((cutout, _start(r, corner and corner[0], width, side), _start(r, corner and corner[1], height, side)))
    for n in r.sample(range(len(placed)), len(placed)):
        cutout, left, top = placed[n]
        cutout.paste(sheet, left, top)
    cutout, left, top = placed[0]
    return left / side, top / side, (left + cutout.image.width) / side, (top + cutout.image.height) / side


def _start(r: random.Random, end: int | None, length: int, side: int) -> int:
    """Where a product begins along one axis: near its end of it, in its own half if it fits there; anywhere without an end."""
    if end is None:
        return r.randint(0, side - length)
    inward = r.randint(0, max(0, side // 2 - length))
    return side - length - inward if end else inward
