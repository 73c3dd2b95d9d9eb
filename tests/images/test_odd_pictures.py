"""Pictures and their addresses as catalogs really hold them: found or refused, each for its own reason."""

import io
import json
import os
import re
import struct
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, PngImagePlugin

from tgq.catalog.reading.location import Location, fetch_options
from tgq.images.decode import MAX_PNG_TEXT, ImageError, decode_image, verify_image
from tgq.images.fetch import Fetcher
from tgq.images.permitted import is_web_address, one_line, scheme_of
from tgq.settings.sections import ImageSettings

CASES = Path(__file__).parents[3] / "shared" / "cases"
EXPECTED = CASES / "01-expect.json"
ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


def verdict(folder: Path, image: str, **settings) -> tuple[str, str]:
    """('ok', '') or the reason and detail, for an image as a catalog in `folder` names it."""
    location = Location(str(folder / "catalog.parquet"), "parquet", str(folder))
    try:
        data = Fetcher(fetch_options(str(folder), ImageSettings(**settings))).read(location.resolve(image))
        verify_image(data)
        decode_image(data)
    except ImageError as error:
        assert error.detail and "\n" not in error.detail and not ADDRESS.search(error.detail), error.detail
        return error.reason, error.detail
    return "ok", ""


@pytest.mark.skipif(not EXPECTED.is_file(), reason=f"{EXPECTED} is not there")
def test_the_shared_pictures_have_the_fate_that_they_deserve():
    folder = CASES / "01-odd-pictures"
    expected = {name: case["want"] for name, case in json.loads(EXPECTED.read_text()).items()}
    found = {}
    for row in pq.read_table(folder / "catalog.parquet").to_pylist():
        image = row["image"].replace("/tmp/cases", str(CASES))  # absolute paths name the folder that the catalog was written in
        found[row["item_id"]] = verdict(folder, image)[0]
    assert len(found) == 69 and found.keys() == expected.keys()
    assert {name: fate for name, fate in found.items() if expected[name] not in (fate, "either")} == {}


@pytest.fixture
def shop(tmp_path):
    folder = tmp_path / "shop"
    (folder / "img").mkdir(parents=True)
    Image.new("RGB", (30, 20), "teal").save(folder / "img" / "a b.jpg")
    return folder


@pytest.mark.parametrize("blank", [" ", "\t", "\u00a0", "\u3000", "\r\n"])
def test_blanks_around_a_path_or_an_address_go(shop, blank):
    assert verdict(shop, f"{blank}img/a b.jpg{blank}") == ("ok", "")
    assert verdict(shop, f"{blank}{(shop / 'img' / 'a b.jpg').as_uri()}{blank}") == ("ok", "")
    reason, detail = verdict(shop, f"{blank}https://cdn.example.com/1.jpg{blank}", allowed_hosts=("other.example",))
    assert reason == "host_not_allowed" and detail.startswith("cdn.example.com is not one of")


def test_a_linked_image_folder_is_refused_and_the_line_says_what_to_set(shop, tmp_path):
    outside = tmp_path / "elsewhere"
    os.rename(shop / "img", outside)
    (shop / "img").symlink_to("../elsewhere")
    reason, detail = verdict(shop, "img/a b.jpg")
    assert reason == "path_outside_catalog" and "leads through a link to" in detail and str(outside) in detail and "images.allowed_roots" in detail
    assert verdict(shop, "img/a b.jpg", allowed_roots=(str(outside),)) == ("ok", "")
    reason, detail = verdict(shop, "../elsewhere/a b.jpg")
    assert reason == "path_outside_catalog" and "leads through" not in detail and "images.allowed_roots" in detail


@pytest.mark.parametrize(
    ("uri", "web"),
    [("//cdn.example.com/1.jpg", True), ("HTTPS://cdn.example.com", True), ("http://x", True), ("///tmp/1.jpg", False), ("/tmp//x/1.jpg", False),
     ("//", False), ("//\\x", False), ("http", False), ("https:/x", False), ("img//x.jpg", False)],
)  # fmt: skip
def test_an_address_without_a_scheme_is_a_web_address(shop, uri, web):
    assert is_web_address(uri) is web
    if uri.startswith("/"):
        assert scheme_of(uri) == ("https" if web else "file")
        assert verdict(shop, uri)[0] == ("host_not_allowed" if web else "path_outside_catalog")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes, before_pixels: bool = True) -> bytes:
    """A small PNG with more chunks before or after its pixels."""
    sink = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(sink, "PNG")
    data = sink.getvalue()
    at = data.index(b"IDAT" if before_pixels else b"IEND") - 4
    return data[:at] + b"".join(chunks) + data[at:]


def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


TEXTS = {
    "icc": lambda size: chunk(b"iCCP", b"print shop\0\0" + packed(size)),
    "ztxt": lambda size: chunk(b"zTXt", b"Comment\0\0" + packed(size)),
    "ztxt without keyword": lambda size: chunk(b"zTXt", b"\0\0" + packed(size)),
    "itxt packed": lambda size: chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0titre\0" + packed(size)),
    "itxt plain": lambda size: chunk(b"iTXt", b"Comment\0\0\0\0\0" + b"x" * size),
    "text": lambda size: chunk(b"tEXt", b"Comment\0" + b"x" * size),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("before_pixels", [True, False])
def test_a_png_with_long_texts_or_profile_is_a_good_picture(kind, before_pixels):
    for size in (PngImagePlugin.ImageFile.SAFEBLOCK + 1, 5_000_000):
        data = png(TEXTS[kind](size), before_pixels=before_pixels)
        assert verify_image(data) == (8, 8, "PNG") and decode_image(data).getpixel((3, 3)) == (0, 128, 128)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("parts", [1, 40])
def test_texts_and_profile_of_a_png_are_limited_together(kind, parts):
    data = png(*[TEXTS[kind](MAX_PNG_TEXT // parts + 1)] * parts)
    for use in (verify_image, decode_image):
        with pytest.raises(ImageError) as caught:
            use(data, limits=big_enough(data))
        assert caught.value.reason == "decompression_bomb" and "32" in caught.value.detail


def big_enough(data):
    from tgq.images.decode import ImageLimits

    return ImageLimits(max_bytes=len(data))


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt", b"tEXt"])
@pytest.mark.parametrize("body", [b"", b"\0", b"name", b"name\0", b"name\0\0", b"name\0\1", b"name\0\0not zlib", b"name\0\1\0\0\0\0"])
def test_a_damaged_text_is_a_picture_or_an_image_error(kind, body):
    try:
        verify_image(png(chunk(kind, body)))
    except ImageError as error:
        assert not ADDRESS.search(error.detail)


def test_a_png_whose_text_has_a_wrong_checksum_names_no_object_of_python():
    broken = bytearray(png(chunk(b"tEXt", b"Comment\0hello")))
    broken[broken.index(b"hello")] ^= 1
    try:
        verify_image(bytes(broken))
    except ImageError as error:
        assert error.reason == "unreadable" and "damaged" in error.detail and "<" not in error.detail


def test_a_message_loses_addresses_of_objects():
    error = OSError(f"cannot read {io.BytesIO()!r}: no such\n thing {object()!r}")
    assert one_line(error) == "cannot read: no such thing"
