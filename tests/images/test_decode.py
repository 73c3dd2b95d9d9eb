"""Pictures of every kind that shops upload, made here with Pillow, and the ways they arrive broken."""

import io
import pickle
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tgq.images.decode import FORMATS, ImageError, ImageLimits, decode_image, verify_image


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(width=480, height=640) -> Image.Image:
    """Smooth colours with four different corners, so that turning and clipping show."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return Image.fromarray((np.stack([x, y, 1 - x * y], axis=-1) * 255).astype(np.uint8))


DEFAULT = ImageLimits()
PHOTO = photo()
STORED = {name: encoded(PHOTO, name) for name in FORMATS}
# Small ones for the fuzzer, in the containers whose readers have the most to parse.
SMALL = [encoded(photo(24, 16), name) for name in FORMATS] + [
    encoded(photo(24, 16), "JPEG", progressive=True),
    encoded(photo(24, 16).quantize(8), "GIF", save_all=True, append_images=[photo(24, 16).quantize(8)]),
    encoded(photo(24, 16), "TIFF", compression="tiff_lzw"),
    encoded(photo(24, 16).convert("CMYK"), "JPEG"),
]


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other.convert("RGB"), dtype=float)).mean())


def reason(data: bytes, limits: ImageLimits = DEFAULT) -> str:
    with pytest.raises(ImageError) as decoding:
        decode_image(data, limits)
    with pytest.raises(ImageError) as verifying:
        verify_image(data, limits)
    assert decoding.value.reason == verifying.value.reason
    assert decoding.value.detail and "\n" not in decoding.value.detail
    return decoding.value.reason


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_comes_out_rgb_and_whole(name):
    image = decode_image(STORED[name])
    assert image.mode == "RGB"
    assert difference(image, PHOTO) < 6
    assert verify_image(STORED[name]) == (480, 640, name)


def test_progressive_jpeg():
    assert difference(decode_image(encoded(PHOTO, "JPEG", progressive=True)), PHOTO) < 6


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(name):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert difference(decode_image(data), frames[0]) < 1


def test_cmyk_jpeg_keeps_its_colours():
    """Pillow writes CMYK as Adobe does, inverted and marked; read as it stands, the picture is a negative."""
    data = encoded(PHOTO.convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:200]
    assert difference(decode_image(data), PHOTO) < 3
    unmarked = data.replace(b"\xff\xee\x00\x0eAdobe", b"\xff\xe0\x00\x0eother", 1)
    assert (
        unmarked != data and difference(decode_image(unmarked), PHOTO) < 3
    )  # browsers take it as inverted, too


def test_cmyk_with_a_broken_profile_is_still_a_picture():
    data = encoded(PHOTO.convert("CMYK"), "JPEG", icc_profile=b"not a profile" * 20)
    assert difference(decode_image(data), PHOTO) < 6
    rgb_profile = ImageCms.ImageCmsProfile(
        ImageCms.createProfile("sRGB")
    ).tobytes()  # of the wrong colour space
    assert (
        difference(decode_image(encoded(PHOTO.convert("CMYK"), "JPEG", icc_profile=rgb_profile)), PHOTO) < 6
    )


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_and_not_clipped(name):
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    grey = np.asarray(decode_image(encoded(Image.fromarray(ramp), name)))[..., 0]
    assert np.abs(grey - ramp / 257.0).max() <= 0.5


def test_16_bit_colour_png_is_scaled():
    width, height = 5, 3
    row = b"\0" + struct.pack(">HHH", 65535, 32768, 0) * width

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    assert decode_image(data).getpixel((2, 1)) == (255, 128, 0)


def test_float_tiff_is_stretched_and_survives_nan():
    values = np.linspace(-1, 3, 100, dtype=np.float32).reshape(10, 10)
    values[5, 5] = np.nan
    grey = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert grey[0, 0] == 0 and grey[-1, -1] == 255


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "palette+alpha", "L+transparent", "I;16+transparent"])
def test_transparent_parts_lie_on_white(mode):
    """Left half transparent over black, right half opaque and dark."""
    rgba = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    rgba.paste((60, 60, 60, 255), (10, 0, 20, 10))
    if mode in ("LA", "RGBA"):
        data = encoded(rgba.convert(mode), "PNG")
    elif mode == "L+transparent":
        data = encoded(rgba.convert("L"), "PNG", transparency=0)
    elif mode == "I;16+transparent":
        deep = Image.fromarray(np.asarray(rgba.convert("L")).astype(np.uint16) * 257)
        data = encoded(deep, "PNG", transparency=0)
    elif mode == "P":
        palette = rgba.convert("L").convert("P")
        data = encoded(palette, "PNG", transparency=0)
    else:
        data = encoded(rgba.quantize(8, method=Image.Quantize.FASTOCTREE), "PNG")
    image = decode_image(data)
    assert image.getpixel((2, 5)) == (255, 255, 255)
    assert image.getpixel((15, 5)) == pytest.approx((60, 60, 60), abs=2)


def test_1_bit():
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], dtype=np.uint8), (8, 4))).convert("1")
    assert sorted(c for _, c in decode_image(encoded(stripes, "PNG")).getcolors()) == [
        (0, 0, 0),
        (255, 255, 255),
    ]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(name, orientation):
    turns = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180,
             Image.Transpose.FLIP_TOP_BOTTOM,
             Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE,
             Image.Transpose.ROTATE_270]  # fmt: skip
    undo = turns[orientation - 1]  # what the camera did to the upright picture
    stored = PHOTO.transpose(undo) if undo is not None else PHOTO
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(stored, name, exif=exif)
    assert difference(decode_image(data), PHOTO) < 6
    assert verify_image(data) == (480, 640, name)
    assert min(decode_image(data, target=100).size) >= 100


def test_a_target_scales_jpegs_and_never_goes_under_it():
    for width, height, target in [
        (1600, 1200, 224),
        (449, 447, 224),
        (448, 4000, 224),
        (300, 100, 224),
        (225, 226, 28),
    ]:
        data = encoded(photo(width, height), "JPEG")
        got = decode_image(data, target=target).size
        assert min(got) >= min(target, width, height)
        assert got[0] / got[1] == pytest.approx(width / height, rel=0.05)
    assert decode_image(encoded(photo(1600, 1200), "JPEG"), target=224).size == (400, 300)
    assert decode_image(encoded(photo(1600, 1200), "PNG"), target=224).size == (1600, 1200)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 900), st.integers(8, 900), st.integers(1, 400))
def test_target_property(width, height, target):
    size = decode_image(encoded(Image.new("RGB", (width, height)), "JPEG"), target=target).size
    assert min(size) >= min(target, width, height)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 500, b"hello", b"<html><body>404</body></html>", b"%PDF-1.7 ...",
     b"%!PS-Adobe-3.0 EPSF-3.0\n",
     b"<svg/>",
     b"P6 2 2 255 " + b"\0" * 12, b"\0\0\0\x18ftypheic" + b"\0" * 100],
)  # fmt: skip
def test_what_is_not_an_image(data):
    assert reason(data) == "not_an_image"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_truncated(name, share):
    data = STORED[name]
    assert reason(data[: int(len(data) * share)]) == "truncated"


def test_truncated_progressive_jpeg():
    data = encoded(PHOTO, "JPEG", progressive=True)
    assert reason(data[: len(data) // 2]) == "truncated"


def test_a_damaged_file_with_its_end_in_place_is_unreadable():
    data = bytearray(STORED["PNG"])
    data[len(data) // 2] ^= 0xFF
    assert reason(bytes(data)) == "unreadable"


def test_too_many_bytes():
    assert reason(STORED["PNG"], ImageLimits(max_bytes=1000)) == "too_large"


def huge(width: int, height: int, name: str) -> bytes:
    """A few bytes that claim to be a huge picture."""
    data = bytearray(
        encoded(Image.new("RGB", (16, 16)), name, **({"lossless": True} if name == "WEBP" else {}))
    )
    if name == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif name == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif name == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif name == "WEBP":  # lossless: 14 bits each, minus one
        data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    elif name == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("name", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
@pytest.mark.parametrize("side", [10_000, 16_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_seen_in_the_header(name, side):
    began = time.perf_counter()
    assert reason(huge(side, side, name)) == "decompression_bomb"
    assert time.perf_counter() - began < 0.5


def test_pixel_limit_is_the_callers():
    assert reason(STORED["JPEG"], ImageLimits(max_pixels=480 * 640 - 1)) == "decompression_bomb"
    decode_image(STORED["JPEG"], ImageLimits(max_pixels=480 * 640))


def test_a_gif_frame_larger_than_its_canvas_counts():
    data = bytearray(encoded(Image.new("L", (16, 16)), "GIF"))
    data[6:10] = struct.pack("<HH", 1, 1)
    at = data.index(b"\x2c", 13)
    data[at + 5 : at + 9] = struct.pack("<HH", 9_000, 9_000)
    assert reason(bytes(data)) == "decompression_bomb"


def test_a_jpeg_of_endless_scans_is_refused():
    """Each of the scans would cost a pass over the whole picture."""
    data = encoded(PHOTO, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    bomb = data[:scan] + data[scan:-2] * 2_000 + b"\xff\xd9"
    assert reason(bomb, ImageLimits(max_bytes=1 << 30)) == "decompression_bomb"


def test_no_extension_is_ever_asked_for():
    assert verify_image(STORED["WEBP"])[2] == "WEBP"  # there is no name to ask


def test_many_threads_agree_with_one():
    pictures = list(STORED.values()) * 8
    alone = [decode_image(data, target=64).tobytes() for data in pictures]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda data: decode_image(data, target=64).tobytes(), pictures)) == alone


def test_large_pictures_take_turns_and_do_not_lock_each_other_out():
    data = encoded(Image.new("L", (4100, 4000), 7), "PNG")
    with ThreadPoolExecutor(3) as pool:
        sizes = list(pool.map(lambda _: decode_image(data).size, range(3)))
    assert sizes == [(4100, 4000)] * 3


def test_the_error_survives_its_way_from_a_worker():
    error = pickle.loads(pickle.dumps(ImageError("truncated", "JPEG ends early")))
    assert (error.reason, error.detail) == ("truncated", "JPEG ends early")


def only_image_errors(data: bytes) -> None:
    limits = ImageLimits(max_pixels=1_000_000)
    for use in (lambda: decode_image(data, limits, target=8), lambda: verify_image(data, limits)):
        began = time.perf_counter()
        try:
            use()
        except ImageError:
            pass
        assert time.perf_counter() - began < 5


@pytest.mark.filterwarnings("ignore")  # Pillow's TIFF reader warns about the nonsense that it meets
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    st.floats(0.05, 1),
)
def test_any_damage_gives_a_picture_or_an_image_error(data, flips, keep):
    damaged = bytearray(data)
    for place, mask in flips:
        damaged[int(place * len(damaged))] ^= mask
    only_image_errors(bytes(damaged[: int(len(damaged) * keep)]))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
                        b"RIFF\xff\0\0\0WEBPVP8X", b"\0\0\0\x1cftypavif"]),
       st.binary(max_size=300))  # fmt: skip
def test_garbage_gives_an_image_error(magic, garbage):
    only_image_errors(magic + garbage)
