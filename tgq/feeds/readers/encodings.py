"""The encoding of a text file: by its byte order mark, by the setting, else strictly UTF-8."""

from __future__ import annotations

import codecs
import re

from tgq.errors import SourceError
from tgq.feeds.files import HEAD_BYTES, FeedFile

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
SETTING = "catalog.csv.encoding"
UNDECODED = re.compile("[\ud800-\udfff]")  # what surrogateescape makes of a byte that is no text, and half a character in JSON


def encoding_of(file: FeedFile, beginning: bytes, setting: str | None, by_row: bool = False) -> str:
    """A Python codec's name.

    Bytes that are not UTF-8 among others that are belong to single bad rows, which are refused one by one. Where no
    character beyond ASCII is UTF-8, the whole file has another encoding; not so with `by_row`, for JSON, which is UTF-8
    by its standard.

    Raises:
        SourceError: the setting is no encoding, or the file is not UTF-8 and nothing tells what it is.
    """
    for mark, name in MARKS:
        if beginning.startswith(mark):
            return name
    if setting:
        try:
            return codecs.lookup(setting).name
        except LookupError:
            raise SourceError(f"{SETTING} is '{setting}', which is no known encoding", "name one such as utf-8, utf-16 or cp1252") from None
    if by_row and not beginning.count(0):
        return "utf-8"
    if beginning.count(0) > len(beginning) // 8:
        raise SourceError(f"{file.uri} holds zero bytes and no byte order mark", f"set {SETTING}, most likely to utf-16-le or utf-16-be")
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(beginning, final=len(beginning) < HEAD_BYTES)  # else the last character may be cut in two
    bad = UNDECODED.search(text)
    if bad and not any(c > "\x7f" and not "\ud800" <= c <= "\udfff" for c in text):
        line = text.count("\n", 0, bad.start()) + 1
        byte = ord(bad[0]) - 0xDC00
        raise SourceError(f"line {line} of {file.uri} is not UTF-8 (byte 0x{byte:02x})", f"set {SETTING}, for example to cp1252 or utf-16")
    return "utf-8"


def shown(text: str) -> str:
    """Text that can be stored: what is no character becomes U+FFFD."""
    return UNDECODED.sub("\ufffd", text)


def is_bad(text: str) -> bool:
    """Whether the text holds bytes that could not be decoded, or half a character."""
    return not text.isascii() and UNDECODED.search(text) is not None
