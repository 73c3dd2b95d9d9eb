"""A product that pictures are composed of: its metadata, and its picture cut out and stored small."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from tgq.images.decode import ImageLimits, decode_image
from tgq.nuisances import Item
from tgq.nuisances.cutout import Cutout, cut_out

QUALITY = 95  # of the stored picture; variants are compressed again, and more
DECODED = 128  # cut-outs that a process keeps decoded, about 0.2 MB each at 224 pixels


@dataclass(frozen=True)
class Product:
    """An item of the source catalog.

    Attributes:
        group_id: the item's id where it has no group.
        picture: JPEG of the product without the plain background around it.
        mask: PNG of the same size, 255 on the product; None: the background is not plain, so the whole picture is shown.
    """

    item_id: str
    group_id: str
    picture: bytes
    mask: bytes | None = None
    title: str = ""
    brand: str = ""
    category: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    variant_id: str | None = None

    @property
    def cutout(self) -> Cutout:
        """The decoded picture."""
        return _decoded(self.picture, self.mask)

    @property
    def told(self) -> Item:
        """The metadata alone."""
        return Item(self.item_id, None, self.title, self.brand, self.category, self.attributes)

    def is_another(self, other: Product) -> bool:
        """Whether the two can be told apart: another item, of another group, under another title."""
        same_title = bool(self.title) and self.title.casefold() == other.title.casefold()
        return self.item_id != other.item_id and self.group_id != other.group_id and not same_title


def cut(data: bytes, limits: ImageLimits, side: int) -> tuple[bytes, bytes | None]:
    """(picture, mask) as `Product` stores them, for variants of `side` pixels: the product's longer side is at most that.

    Raises:
        ImageError: the picture cannot be decoded within the limits.
    """
    image = decode_image(data, limits, target=2 * side)  # a product that fills half of its picture still has `side` pixels
    if max(image.size) > 2 * side:
        image = Cutout(image, None).fitted(2 * side, 2 * side).image
    return stored(cut_out(image, trimmed=True), side)


def stored(cutout: Cutout, side: int) -> tuple[bytes, bytes | None]:
    """A cut-out as (JPEG, PNG of its mask), its longer side at most `side` pixels."""
    if max(cutout.image.size) > side:
        cutout = cutout.fitted(side, side)
    picture, mask = io.BytesIO(), io.BytesIO()
    cutout.image.save(picture, "JPEG", quality=QUALITY, subsampling=0)
    if cutout.mask is None:
        return picture.getvalue(), None
    cutout.mask.save(mask, "PNG")
    return picture.getvalue(), mask.getvalue()


@functools.lru_cache(maxsize=DECODED)
def _decoded(picture: bytes, mask: bytes | None) -> Cutout:
    image = Image.open(io.BytesIO(picture), formats=["JPEG"]).convert("RGB")
    return Cutout(image, None if mask is None else Image.open(io.BytesIO(mask), formats=["PNG"]).convert("L"))
