"""Spark's `xxhash64` of texts, without Spark, so that a query has the same bootstrap weights and the same place in a draw on either way."""

from __future__ import annotations

import struct

_P1, _P2, _P3, _P4, _P5 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_MASK = 2**64 - 1
SEED = 42  # that Spark begins with


def xxhash64(text: str, number: int | None = None) -> int:
    """Spark's `xxhash64(text)` or `xxhash64(text, number)`, a signed 64-bit number: XXH64 (Collet 2012) of the text's UTF-8.

    number: of 32 bits, or of 64 bits if it is larger, as Spark types a literal. Cost: about 5 microseconds for a query.
    """
    found = _xxh64(text.encode(), SEED)
    if number is not None:
        found = _xxh64(struct.pack("<i" if -(2**31) <= number < 2**31 else "<q", number), found)
    return found - 2**64 if found >= 2**63 else found


def _xxh64(data: bytes, seed: int) -> int:
    at, size = 0, len(data)
    if size >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at + 32 <= size:
            lanes = [_round(lane, word) for lane, word in zip(lanes, struct.unpack_from("<4Q", data, at), strict=True)]
            at += 32
        found = sum(_left(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for lane in lanes:
            found = ((found ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        found = (seed + _P5) & _MASK
    found = (found + size) & _MASK
    while at + 8 <= size:
        found = (_left(found ^ _round(0, struct.unpack_from("<Q", data, at)[0]), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= size:
        found = (_left(found ^ (struct.unpack_from("<I", data, at)[0] * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        found = _left(found ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    for shift, factor in ((33, _P2), (29, _P3), (32, 1)):
        found = (found ^ (found >> shift)) * factor & _MASK
    return found


def _round(lane: int, word: int) -> int:
    return _left((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def _left(value: int, by: int) -> int:
    return (value << by | value >> (64 - by)) & _MASK
