"""Small files that claim or hold huge pictures, in every format that Pillow opens, and packed feeds: refused before the memory is taken."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tgq.images.avif import stream_sizes
from tgq.images.decode import FORMATS, ImageError, ImageLimits, decode_image, verify_header, verify_image

SMALL = Image.new("RGB", (16, 16), "teal")
LIMIT = 2**28  # bytes that a bomb may take; what it claims is at least four times as much


def encoded(image: Image.Image, name: str, **more) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **more)
    return sink.getvalue()


def refusal(data: bytes) -> str:
    found = set()
    for use in (decode_image, verify_image):
        with pytest.raises(ImageError) as caught:
            use(data)
        assert caught.value.detail and caught.value.detail.isprintable()
        found.add(caught.value.reason)
    assert len(found) == 1
    return found.pop()


def patched(data: bytes, at: int, packed: bytes) -> bytes:
    return data[:at] + packed + data[at + len(packed) :]


def png(width: int, height: int, *chunks: tuple[bytes, bytes], idat: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", idat or zlib.compress((b"\0" * 49) * 16)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in parts)


def jpeg(width: int, height: int, **more) -> bytes:
    data = encoded(SMALL, "JPEG", **more)
    return patched(data, data.index(b"\xff\xc2" if more else b"\xff\xc0") + 5, struct.pack(">HH", height, width))


def gif(width: int, height: int, frame: tuple[int, int] | None = None) -> bytes:
    data = patched(encoded(SMALL.convert("P"), "GIF"), 6, struct.pack("<HH", width, height))
    return patched(data, data.index(b"\x2c", 13) + 5, struct.pack("<HH", *frame)) if frame else data


def webp(width: int, height: int) -> bytes:
    return patched(encoded(SMALL, "WEBP", lossless=True), 21, struct.pack("<I", (width - 1) | (height - 1) << 14))


def webp_canvas(width: int, height: int) -> bytes:
    chunk = encoded(SMALL, "WEBP", lossless=True)[12:]
    body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little") + chunk
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(width: int, height: int, big: bool = False) -> bytes:
    """A header with a width and a height, in the classic or the 64-bit form."""
    packed = zlib.compress(bytes(2**20))
    tags = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (273, 8), (277, 1), (278, height), (279, len(packed))]
    form, head, entry, end = ("<Q", b"II\x2b\0\x08\0\0\0" + struct.pack("<Q", 16 + len(packed)), "<HHQQ", "<Q") if big else (
        "<H", b"II*\0" + struct.pack("<I", 8 + len(packed)), "<HHII", "<I")  # fmt: skip
    rows = b"".join(struct.pack(entry, tag, 4, 1, value) for tag, value in tags)
    return head + packed + struct.pack(form, len(tags)) + rows + struct.pack(end, 0)


def avif(width: int, height: int) -> bytes:
    """An AVIF of 16 x 16 pixels whose container claims a size."""
    data = encoded(SMALL, "AVIF")
    return patched(data, data.index(b"ispe") + 8, struct.pack(">II", width, height))


def avif_stream(side: int) -> bytes:
    """An AVIF whose container claims 16 x 16 pixels, while its AV1 stream has a square of `side`."""
    data = encoded(Image.new("L", (side, side)), "AVIF", quality=1, speed=10, subsampling="4:0:0")
    return patched(data, data.index(b"ispe") + 8, struct.pack(">II", 16, 16))


def many_scans() -> bytes:
    data = encoded(SMALL, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + data[scan:-2] * 2_000 + b"\xff\xd9"


BOMBS = {
    "jpeg": lambda: jpeg(60_000, 60_000), "jpeg-progressive": lambda: jpeg(60_000, 60_000, progressive=True), "jpeg-scans": many_scans,
    "png": lambda: png(60_000, 60_000), "png-wide": lambda: png(2**31 - 1, 1), "png-tall": lambda: png(1, 2**31 - 1),
    "png-text": lambda: png(16, 16, (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26), 9))),
    "png-international-text": lambda: png(16, 16, (b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(2**26), 9))),
    "png-profile": lambda: png(16, 16, (b"iCCP", b"k\0\0" + zlib.compress(bytes(2**26), 9))),
    "png-many-texts": lambda: png(16, 16, *[(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**20), 9))] * 40),
    "webp": lambda: webp(16_000, 16_000), "webp-canvas": lambda: webp_canvas(2**14 - 1, 2**14 - 1),
    "gif": lambda: gif(60_000, 60_000), "gif-frame": lambda: gif(1, 1, (60_000, 60_000)),
    "bmp": lambda: patched(encoded(SMALL, "BMP"), 18, struct.pack("<ii", 60_000, 60_000)),
    "bmp-upside-down": lambda: patched(encoded(SMALL, "BMP"), 18, struct.pack("<ii", 60_000, -60_000)),
    "tiff": lambda: tiff(60_000, 60_000), "tiff-64-bit": lambda: tiff(60_000, 60_000, big=True),
    "avif-stream": lambda: avif_stream(8_200),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_a_small_file_with_a_huge_picture(make):
    data = make()
    assert len(data) < 2**20 and refusal(data) == "decompression_bomb"
    with pytest.raises(ImageError, match="decompression_bomb"):
        verify_header(data)


def test_the_avif_container_is_not_believed():
    """What is refused above is the stream's size; the container claims 16 x 16, and a size that it makes up alone is no picture."""
    assert stream_sizes(avif_stream(300)) == [(300, 300)] and decode_image(avif_stream(300)).size == (16, 16)
    assert refusal(avif(30_000, 30_000)) == "unreadable"


INSIDE = {
    "png-pixels": lambda: png(16, 16, idat=zlib.compress(bytes(2**26), 9)),  # behind the pixels of 16 x 16
    "tiff-strip": lambda: tiff(16, 16),
}


@pytest.mark.parametrize("make", INSIDE.values(), ids=INSIDE)
def test_packed_pixels_beyond_the_picture_are_not_unpacked(make):
    assert decode_image(make()).size == (16, 16)


Image.init()
OTHERS = sorted(set(Image.OPEN) - set(FORMATS))  # formats that Pillow would open if it were asked to
HEADS = {
    "BLP": b"BLP2", "BUFR": b"BUFR", "CUR": b"\0\0\2\0\1\0", "DCX": b"\xb1\x68\xde\x3a", "DDS": b"DDS ", "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "FITS": b"SIMPLE  =", "FLI": b"\0\0\0\0\x11\xaf", "FTEX": b"FTEX", "GBR": b"\0\0\0\x14\0\0\0\1", "GRIB": b"GRIB\0\0\0\1", "HDF5": b"\x89HDF\r\n\x1a\n",
    "ICNS": b"icns", "ICO": b"\0\0\1\0\1\0", "IM": b"Image type: RGB\r\n", "IMT": b"\n\x0c", "IPTC": b"\x1c\1", "JPEG2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "MCIDAS": b"\0\0\0\0\0\0\0\4", "MPEG": b"\0\0\1\xb3", "MSP": b"DanM", "PCD": b"PCD_", "PCX": b"\n\5\1\x08", "PIXAR": b"\x80\xe8\0\0",
    "PPM": b"P6 60000 60000 255 ", "PSD": b"8BPS\0\1", "QOI": b"qoif", "SGI": b"\1\xda\1\1", "SPIDER": b"\0\0\x80\x3f", "SUN": b"\x59\xa6\x6a\x95",
    "TGA": b"\0\0\2\0\0\0\0\0\0\0\0\0\x60\xea\x60\xea\x18\0", "WMF": b"\xd7\xcd\xc6\x9a\0\0", "XBM": b"#define x_width 60000\n", "XPM": b"/* XPM */",
    "XVTHUMB": b"P7 332", "DIB": struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_format_that_shops_do_not_upload_is_never_opened(name):
    """Some start interpreters (EPS, WMF), others have readers that nobody maintains: their bytes reach no reader at all."""
    assert name in HEADS, "a new format of Pillow: give its first bytes"
    assert refusal(HEADS[name] + bytes(4096)) == "not_an_image"
    if name in Image.SAVE and name not in ("BUFR", "GRIB", "HDF5", "WMF", "BLP"):
        mode = {"MSP": "1", "XBM": "1", "BLP": "P", "SPIDER": "F"}.get(name, "RGB")
        assert refusal(encoded(SMALL.convert(mode), name)) == "not_an_image"


def test_all_bombs_together_take_no_memory():
    """In a process of its own, because a process tells only the most memory that it ever had."""
    script = (
        "import resource, sys, warnings; warnings.simplefilter('ignore')\n"
        "from tests.security.test_bombs import BOMBS, ImageError, decode_image\n"
        "made = [make() for make in BOMBS.values()]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for data in made:\n"
        "    try: decode_image(data)\n"
        "    except ImageError as error: assert error.reason == 'decompression_bomb', error\n"
        "print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(run.stdout) < LIMIT


def test_a_picture_within_the_limits_is_none():
    limits = ImageLimits(max_pixels=16 * 16)
    for name in FORMATS:
        assert decode_image(encoded(SMALL, name), limits).size == (16, 16)
        with pytest.raises(ImageError, match="decompression_bomb"):
            decode_image(encoded(SMALL, name), ImageLimits(max_pixels=16 * 16 - 1))
