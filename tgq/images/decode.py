"""Bytes to an RGB picture, or to a named reason why not.

A catalog's pictures come from strangers. Everything that shops really upload is handled (animated, CMYK,
16-bit, palette, transparent, rotated); everything that would harm the night is refused from the header,
before a pixel is allocated.
"""

from __future__ import annotations

import io
import threading
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageFile, features

# Raster formats only: EPS, PDF, WMF and their kind start interpreters, and are never tried.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") + (("AVIF",) if features.check("avif") else ())

# A real progressive JPEG has about ten scans. Each one costs a pass over the whole picture, so thousands of
# empty ones in a small file keep a core busy for hours.
MAX_JPEG_SCANS = 500

# Pictures above this size are decoded one at a time in a process: sixteen threads with a gigabyte each would
# kill the worker.
LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 274  # EXIF tag


class ImageError(Exception):
    """A picture that cannot be used.

    Attributes:
        reason: one of 'unreadable', 'too_large', 'decompression_bomb', 'truncated', 'not_an_image',
            'unsupported_scheme', 'path_outside_catalog', 'host_not_allowed', 'not_found', 'timeout'.
        detail: one line for the person who looks after the catalog.
    """

    def __init__(self, reason: str, detail: str):
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")

    def __reduce__(
        self,
    ):  # the default would rebuild from the joined message, and fail on its way from a worker
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may weigh: `max_bytes` as stored, `max_pixels` (width x height) when decoded.

    Pillow's own ceiling (`PIL.Image.MAX_IMAGE_PIXELS` x 2, 179 megapixels) holds above `max_pixels`.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 64_000_000


def decode_image(data: bytes, limits: ImageLimits = ImageLimits(), target: int | None = None) -> Image.Image:
    """Decode the first frame of `data` to an upright RGB picture, transparent parts on white. Thread-safe.

    With `target`, a JPEG is scaled down by 2, 4 or 8 inside its DCT as far as both sides stay >= `target`
    pixels, which is several times faster than decoding it whole; a picture already smaller than `target`
    keeps its size.

    Raises:
        ImageError: whatever is wrong with `data`, never anything else.
    """
    image, _ = _load(data, limits, target)
    try:
        upright = _TURN.get(_orientation(image))
        with _turn_of(image):
            rgb = _to_rgb(image)
            return rgb.transpose(upright) if upright is not None else rgb
    except Exception as error:
        raise _named(error, data) from None


def verify_image(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int, str]:
    """Check that `data` decodes, at the lowest cost: a JPEG at one eighth of its size.

    Returns (width, height, format): the sides as displayed, after EXIF rotation, and Pillow's name, e.g. 'JPEG'.

    Raises:
        ImageError: exactly where `decode_image` would.
    """
    image, (width, height) = _load(data, limits, target=1)
    try:
        if image.mode not in _PLAIN_MODES:
            _to_rgb(image.crop((0, 0, 1, 1)))  # a mode without a way to RGB is refused here too
        # Pillow turns TIFFs by itself while loading them; their size in the header is already the turned one.
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
    except Exception as error:
        raise _named(error, data) from None
    return width, height, str(image.format)


def verify_header(data: bytes, limits: ImageLimits = ImageLimits()) -> None:
    """Check what the header says and no pixel: cheaper still, and a picture that ends early passes.

    Raises:
        ImageError: unknown format, too many bytes, pixels or scans.
    """
    _load(data, limits, target=None, pixels=False)


def _load(
    data: bytes, limits: ImageLimits, target: int | None, pixels: bool = True
) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """The picture in its own mode, loaded if `pixels`, and the size in its header."""
    if not data:
        raise ImageError("not_an_image", "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data):,} bytes, above the limit of {limits.max_bytes:,}")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        size = image.size
        _check_header(image, data, limits)
        if target is not None:
            image.draft(None, (target, target))  # only JPEG listens
        if pixels:
            with _turn_of(image):
                image.load()
        return image, size
    except Exception as error:  # Pillow's readers raise some fifteen classes on hostile bytes
        raise _named(error, data) from None


def _check_header(image: ImageFile.ImageFile, data: bytes, limits: ImageLimits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError("unreadable", f"a picture of {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageError(
            "decompression_bomb",
            f"{width} x {height} pixels, above the limit of {limits.max_pixels:,} pixels",
        )
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise ImageError("decompression_bomb", f"{scans:,} JPEG scans, above the limit of {MAX_JPEG_SCANS}")


def _turn_of(image: Image.Image):
    return _one_large_picture if image.width * image.height > LARGE_PIXELS else nullcontext()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF says nothing about the pixels
        return 1


_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB picture, detached from the file."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _deep_to_8_bit(image)
    if image.mode == "CMYK":
        return _cmyk_to_rgb(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", rgba.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB")


def _deep_to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey on its full range; 32-bit and float, which have no agreed white, from lowest to highest.

    `Image.convert` would clip at 255 and leave a white page.
    """
    values = np.asarray(image, dtype=np.float32)
    if image.mode.startswith("I;16"):
        low, high = 0.0, 65535.0
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            values = np.where(values == transparent, np.float32(high), values)
    else:
        values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """Through the picture's own ICC profile where it is usable, as browsers do; else by Pillow's formula.

    The inversion that Adobe writes into CMYK JPEGs is undone by Pillow's reader.
    """
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if rgb is not None:
                return rgb
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile is no reason to lose the picture
    return image.convert("RGB")


def _named(error: Exception, data: bytes) -> ImageError:
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("decompression_bomb", str(error))
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode it")
    name = _format_by_magic(data)
    if name is None:
        return ImageError("not_an_image", f"starts with {data[:12]!r}; known formats: {', '.join(FORMATS)}")
    if name not in FORMATS:
        return ImageError("not_an_image", f"{name} is not read; known formats: {', '.join(FORMATS)}")
    if _ends_early(name, data) or "truncated" in str(error).lower():
        return ImageError("truncated", f"{name} ends early, after {len(data):,} bytes")
    return ImageError("unreadable", f"{name}: {' '.join(str(error).split()) or type(error).__name__}"[:300])


_MAGIC = (
    (b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"), (b"%PDF", "PDF"), (b"%!PS", "EPS"), (b"8BPS", "PSD"), (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "HTML"), (b"<html", "HTML"),
)  # fmt: skip


def _format_by_magic(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIF"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def _ends_early(name: str, data: bytes) -> bool:
    """Whether a file that failed to decode lacks the end its format prescribes."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-1024:]
    if name == "PNG":
        return b"IEND" not in data[-1024:]
    if name == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if name == "AVIF":  # a chain of boxes, each with its length in front
        at = 0
        while 0 <= at < len(data) and (length := int.from_bytes(data[at : at + 4], "big")) >= 8:
            at += length
        return at > len(data) or b"mdat" not in data
    return False
