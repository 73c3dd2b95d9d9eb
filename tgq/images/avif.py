"""The sizes of the pictures inside of an AVIF, read before any is decoded.

The container tells a size of its own, to which a decoder scales what the AV1 stream gives. A file of two kilobytes may therefore claim 16 x 16
pixels and make the decoder allocate those of 16,384 x 16,384. What is allocated stands in the stream's sequence headers (AV1 specification 5.5,
https://aomediacodec.github.io/av1-spec).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GROUPS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}  # boxes of boxes
SEQUENCE_HEADER = 1  # type of an OBU, the unit of an AV1 stream
DEEPEST = 8


def stream_sizes(data: bytes) -> list[tuple[int, int]]:
    """(width, height) of every sequence header in the pictures of an AVIF: colours, transparency, the tiles of a grid, a first frame.

    Empty if there is none, or if the file is too damaged to tell. A frame header may override the size, which no encoder of pictures does and
    which is not looked for. Cost: one pass over the pictures' bytes.
    """
    try:
        file = _File.read(data)
        return [size for stream in file.streams(data) for size in _sizes_in(stream)]
    except (IndexError, ValueError):
        return []


@dataclass
class _File:
    """Where a file says that its pictures are: extents of items by id, ids of AV1 items, and (offset, size) of first frames."""

    extents: dict[int, list[tuple[bool, int, int]]]  # id -> (whether in `idat`, offset, length; 0: to the end)
    pictures: set[int]
    frames: list[tuple[int, int]]
    idat: bytes = b""

    @classmethod
    def read(cls, data: bytes) -> _File:
        file = cls({}, set(), [])
        file._boxes(data, 0, len(data), 0)
        return file

    def streams(self, data: bytes) -> Iterator[bytes]:
        """The AV1 stream of each picture."""
        for item in self.pictures:
            sources = ((self.idat if inside else data, at, length) for inside, at, length in self.extents.get(item, ()))
            yield b"".join(source[at : at + length if length else None] for source, at, length in sources)
        for at, size in self.frames:
            yield data[at : at + size]

    def _boxes(self, data: bytes, at: int, end: int, depth: int) -> None:
        offset = size = 0  # of the first frame of a track
        while at + 8 <= end and depth < DEEPEST:
            length, kind, inner = _number(data, at, 4), data[at + 4 : at + 8], at + 8
            if length == 1:
                length, inner = _number(data, at + 8, 8), at + 16
            stop = min(end, at + length) if length else end
            if stop < inner:
                return
            if kind in GROUPS:
                self._boxes(data, inner, stop, depth + 1)
            elif kind == b"meta":
                self._boxes(data, inner + 4, stop, depth + 1)
            elif kind == b"iinf":
                self._boxes(data, inner + (6 if data[inner] == 0 else 8), stop, depth + 1)
            elif kind == b"infe" and data[inner] >= 2:
                wide = 4 if data[inner] >= 3 else 2
                if data[inner + 4 + wide + 2 : inner + 4 + wide + 6] == b"av01":
                    self.pictures.add(_number(data, inner + 4, wide))
            elif kind == b"iloc":
                self._locations(data, inner)
            elif kind == b"idat":
                self.idat = data[inner:stop]
            elif kind in (b"stco", b"co64") and _number(data, inner + 4, 4):
                offset = _number(data, inner + 8, 4 if kind == b"stco" else 8)
            elif kind == b"stsz":
                size = _number(data, inner + 4, 4) or _number(data, inner + 12, 4)
            at = stop
        if offset and size:
            self.frames.append((offset, size))

    def _locations(self, data: bytes, at: int) -> None:
        version, sizes = data[at], _number(data, at + 4, 2)
        offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 4 if version == 2 else 2
        count, at = _number(data, at + 6, wide), at + 6 + wide
        for _ in range(count):
            item, at = _number(data, at, wide), at + wide
            inside = False
            if version:
                inside, at = _number(data, at, 2) & 15 == 1, at + 2
            base, at = _number(data, at + 2, base_size), at + 2 + base_size
            extents, at = _number(data, at, 2), at + 2
            for _ in range(extents):
                at += index_size if version else 0
                start, length = base + _number(data, at, offset_size), _number(data, at + offset_size, length_size)
                at += offset_size + length_size
                self.extents.setdefault(item, []).append((inside, start, length))


def _sizes_in(stream: bytes) -> Iterator[tuple[int, int]]:
    """The sizes in the sequence headers among a stream's OBUs."""
    at = 0
    while at < len(stream):
        header, at = stream[at], at + 1 + (stream[at] >> 2 & 1)
        size = len(stream) - at
        if header & 2:
            size = 0
            for n in range(8):
                size |= (stream[at] & 127) << 7 * n
                at += 1
                if not stream[at - 1] & 128:
                    break
        if header >> 3 & 15 == SEQUENCE_HEADER:
            yield _sequence_size(_Bits(stream[at : at + size]))
        at += size


class _Bits:
    """Bits of a header, the highest first."""

    def __init__(self, data: bytes):
        self._value, self._left = int.from_bytes(data[:256], "big"), 8 * len(data[:256])

    def take(self, n: int) -> int:
        self._left -= n
        if self._left < 0:
            raise ValueError("the header ends early")
        return self._value >> self._left & (1 << n) - 1


def _sequence_size(bits: _Bits) -> tuple[int, int]:
    bits.take(4)  # profile, still_picture
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        delay = _timing(bits)
        displayed = bits.take(1)
        for _ in range(bits.take(5) + 1):  # operating points
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay and bits.take(1):
                bits.take(2 * delay + 1)
            if displayed and bits.take(1):
                bits.take(4)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


def _timing(bits: _Bits) -> int:
    """Skip the timing information; the number of bits of a buffer's delay, 0 without a decoder model."""
    if not bits.take(1):
        return 0
    bits.take(64)
    if bits.take(1):  # equal_picture_interval, then a number in uvlc
        zeros = 0
        while not bits.take(1):
            zeros += 1
        bits.take(zeros if zeros < 32 else 0)
    if not bits.take(1):
        return 0
    delay = bits.take(5) + 1
    bits.take(42)
    return delay


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + size], "big")
