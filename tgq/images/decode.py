"""Image decoding: bytes to an RGB image, or to an error with a named reason.

A catalog's images are untrusted input. Every kind of image that shops really upload is decoded (animated, CMYK, 16-bit, palette,
transparent, rotated). An image that would exhaust memory or time is refused on the basis of its header, before any pixel is
allocated.
"""

from __future__ import annotations

import io
import re
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError, features

from tgq.images.avif import stream_sizes
from tgq.messages import presentable

# Raster formats only. EPS, PDF, WMF and similar formats start interpreters, so they are never opened.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF") + (("AVIF",) if features.check("avif") else ())

# A normal progressive JPEG has about ten scans. Each scan costs a pass over the whole image, so a small file with thousands of
# empty scans would keep a core busy for hours.
MAX_JPEG_SCANS = 500

# Colour profiles and texts of a PNG, decompressed and together. Pillow's own limit of 1 MiB for each refuses good images of print
# shops. `_check_png_text` counts them before Pillow decompresses any, so a small file cannot unpack gigabytes chunk by chunk.
MAX_PNG_TEXT = 32 * 2**20
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MAX_PNG_TEXT

# A process decodes images above this size one at a time, because sixteen threads with a gigabyte each would exceed the worker's
# memory.
LARGE_PIXELS = 16_000_000
_large_image_lock = threading.Lock()

_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 274  # EXIF tag


LONGEST_DETAIL = 1000  # characters: an address comes from the catalog and may be of any length


class ImageError(Exception):
    """An image that cannot be used.

    Attributes:
        reason: one of 'unreadable', 'too_large', 'decompression_bomb', 'truncated', 'not_an_image',
            'unsupported_scheme', 'path_outside_catalog', 'host_not_allowed', 'not_found', 'timeout'.
        detail: one line that tells the catalog's maintainer what was found.
    """

    def __init__(self, reason: str, detail: str):
        self.reason, self.detail = reason, presentable(detail if len(detail) <= LONGEST_DETAIL else f"{detail[:LONGEST_DETAIL]}... (cut)")
        super().__init__(f"{reason}: {self.detail}")

    def __reduce__(self):  # the default would unpickle from the joined message, which fails on the way from a worker
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: `max_bytes` of the file, `max_pixels` (width x height) of the image.

    A `max_pixels` above Pillow's own limit (`PIL.Image.MAX_IMAGE_PIXELS` x 2, 179 megapixels) has no effect.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 64_000_000


def decode_image(data: bytes, limits: ImageLimits = ImageLimits(), target: int | None = None) -> Image.Image:
    """Decode the first frame of `data` to an upright RGB image, with transparent parts on white. Thread-safe.

    Args:
        target: with it, a JPEG is scaled down by 2, 4 or 8 during decoding as long as both sides stay at least `target` pixels.
            This is several times faster than a full decode. An image smaller than `target` keeps its size.

    Raises:
        ImageError: for any problem with `data`; no other error is raised.
    """
    image, _ = _load(data, limits, target)
    try:
        transpose = _TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
        with _lock_for(image):
            rgb = _to_rgb(image)
            return rgb.transpose(transpose) if transpose is not None else rgb
    except Exception as error:
        raise _as_image_error(error, data) from None


def verify_image(data: bytes, limits: ImageLimits = ImageLimits()) -> tuple[int, int, str]:
    """Check at the lowest cost that `data` decodes: a JPEG is decoded at one eighth of its size.

    Returns:
        (width, height, format): the sides as displayed, after EXIF rotation, and Pillow's format name, e.g. 'JPEG'.

    Raises:
        ImageError: in the same cases as `decode_image`.
    """
    image, (width, height) = _load(data, limits, target=1)
    try:
        if image.mode not in _PLAIN_MODES:
            _to_rgb(image.crop((0, 0, 1, 1)))  # refuses a mode that cannot be converted to RGB
        # Pillow rotates a TIFF while it loads it, and reports its size after the rotation.
        if image.format != "TIFF" and _orientation(image) >= 5:
            width, height = height, width
    except Exception as error:
        raise _as_image_error(error, data) from None
    return width, height, str(image.format)


def verify_header(data: bytes, limits: ImageLimits = ImageLimits()) -> None:
    """Check the header only. This is cheaper than `verify_image`, but does not detect a truncated image.

    Raises:
        ImageError: the format is unknown, or there are too many bytes, pixels or scans.
    """
    _load(data, limits, target=None, pixels=False)


def _load(
    data: bytes, limits: ImageLimits, target: int | None, pixels: bool = True
) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """The image in its own mode, with its pixels loaded if `pixels`, and the size in its header."""
    if not data:
        raise ImageError("not_an_image", "the file is empty")
    if len(data) > limits.max_bytes:
        raise ImageError("too_large", f"{len(data):,} bytes, above the limit of {limits.max_bytes:,}")
    try:
        if data.startswith(_PNG):
            _check_png_text(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        size = image.size
        _check_header(image, data, limits)
        if target is not None:
            image.draft(None, (target, target))  # has an effect on JPEG only
        if pixels:
            with _lock_for(image):
                image.load()
        return image, size
    except Exception as error:  # on malformed bytes Pillow raises about fifteen error classes
        raise _as_image_error(error, data) from None


def _check_header(image: ImageFile.ImageFile, data: bytes, limits: ImageLimits) -> None:
    """Raise ImageError if the header exceeds a limit."""
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError("unreadable", f"the header declares {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageError(
            "decompression_bomb",
            f"{width} x {height} pixels, above the limit of {limits.max_pixels:,} pixels",
        )
    if image.format in ("JPEG", "MPO") and (scans := data.count(b"\xff\xda")) > MAX_JPEG_SCANS:
        raise ImageError("decompression_bomb", f"{scans:,} JPEG scans, above the limit of {MAX_JPEG_SCANS}")
    if image.format == "AVIF":
        _check_avif(stream_sizes(data), limits)


def _check_avif(sizes: list[tuple[int, int]], limits: ImageLimits) -> None:
    """Raise ImageError if an AV1 stream of an AVIF has more pixels than the limit, or all together (transparency, tiles) have four times as many."""
    if not sizes:
        raise ValueError("no AV1 picture is where the file says that it is")
    pixels = [width * height for width, height in sizes]
    if max(pixels) > limits.max_pixels or sum(pixels) > 4 * limits.max_pixels:
        width, height = sizes[pixels.index(max(pixels))]
        found = f"{width} x {height} pixels in the AV1 stream, {sum(pixels):,} in all streams"
        raise ImageError("decompression_bomb", f"{found}, above the limit of {limits.max_pixels:,} pixels")


_PNG = b"\x89PNG\r\n\x1a\n"


def _check_png_text(data: bytes) -> None:
    """Raise ImageError if the texts and colour profiles of a PNG take more than MAX_PNG_TEXT bytes. At most so much is decompressed.

    Chunks that are damaged in themselves are left to Pillow.
    """
    at, left = len(_PNG), MAX_PNG_TEXT
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind in (b"iCCP", b"zTXt", b"iTXt"):
            left -= _text_length(kind, data[at + 8 : at + 8 + length], left)
        elif kind == b"tEXt":
            left -= length
        if left < 0:
            raise ImageError("decompression_bomb", f"texts and colour profile of more than {MAX_PNG_TEXT:,} bytes")
        at += 12 + length


def _text_length(kind: bytes, body: bytes, most: int) -> int:
    """Bytes of a text or profile chunk after decompression, at most `most` + 1."""
    keyword, _, rest = body.partition(b"\0")
    packed, rest = True, rest[1:]  # after the compression method, or the flag of an iTXt
    if kind == b"iTXt":
        packed, rest = body[len(keyword) + 1 : len(keyword) + 2] != b"\0", rest[1:].partition(b"\0")[2].partition(b"\0")[2]
    if not packed:
        return len(rest)
    try:
        return len(zlib.decompressobj().decompress(rest, most + 1))
    except zlib.error:
        return 0


def _lock_for(image: Image.Image):
    """The lock to hold while the image is decoded or converted; no lock for a small image."""
    return _large_image_lock if image.width * image.height > LARGE_PIXELS else nullcontext()


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the pixels can be fine although EXIF is broken
        return 1


_PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def _to_rgb(image: Image.Image) -> Image.Image:
    """A new RGB image that no longer needs the file."""
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
    """Scale an image with deep channels to 8 bit: 16-bit grey from its full range, 32-bit and float from minimum to maximum.

    The latter have no agreed white level. `Image.convert` would clip all values at 255, which gives a white image.
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
    """Convert with the image's own ICC profile if it is usable, as browsers do, else with Pillow's formula.

    Pillow's reader already undoes the inversion that Adobe uses in CMYK JPEGs.
    """
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if rgb is not None:
                return rgb
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # with a broken profile the image is still usable
    return image.convert("RGB")


def _as_image_error(error: Exception, data: bytes) -> ImageError:
    """An ImageError whose reason fits an error of Pillow and the bytes that caused it."""
    if isinstance(error, ImageError):
        return error
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError("decompression_bomb", str(error))
    if isinstance(error, MemoryError):
        return ImageError("too_large", "not enough memory to decode the image")
    name = _format_by_magic(data)
    if name is None:
        return ImageError("not_an_image", f"starts with {data[:12]!r}; known formats: {', '.join(FORMATS)}")
    if name not in FORMATS:
        return ImageError("not_an_image", f"{name} is not supported; known formats: {', '.join(FORMATS)}")
    if _ends_early(name, data) or "truncated" in str(error).lower():
        return ImageError("truncated", f"the {name} file ends early, after {len(data):,} bytes")
    if isinstance(error, UnidentifiedImageError):  # Pillow names the stream that it read from, and no cause
        return ImageError("unreadable", f"{name}: the header, or a part before the pixels, is damaged")
    return ImageError("unreadable", f"{name}: {one_line(error) or type(error).__name__}")


_ADDRESS = re.compile(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>")


def one_line(error: BaseException) -> str:
    """An error's message in one line of at most 300 characters, without the addresses of Python objects: they differ in every run."""
    return " ".join(_ADDRESS.sub("", getattr(error, "strerror", None) or str(error)).split()).strip(" :")[:300]


_MAGIC = (
    (b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP"), (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"), (b"%PDF", "PDF"), (b"%!PS", "EPS"), (b"8BPS", "PSD"), (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "HTML"), (b"<html", "HTML"),
)  # fmt: skip


def _format_by_magic(data: bytes) -> str | None:
    """The format that the first bytes indicate, None if they fit no known format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIF"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def _ends_early(name: str, data: bytes) -> bool:
    """Whether a file that failed to decode lacks the end marker or the length that its format prescribes."""
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
    if name == "AVIF":  # a sequence of boxes, each of which begins with its length
        at = 0
        while 0 <= at < len(data) and (length := int.from_bytes(data[at : at + 4], "big")) >= 8:
            at += length
        return at > len(data) or b"mdat" not in data
    return False
