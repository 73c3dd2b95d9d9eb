"""Spark's `xxhash64` of texts, without Spark, so that a query has the same bootstrap weights and the same place in a draw on either way."""

from __future__ import annotations

import struct

import xxhash

SEED = 42  # that Spark begins with


def xxhash64(text: str, number: int | None = None) -> int:
    """Spark's `xxhash64(text)` or `xxhash64(text, number)`, a signed 64-bit number: XXH64 of the text's UTF-8.

    number: of 32 bits, or of 64 bits if it is larger, as Spark types a literal.
    """
    found = xxhash.xxh64_intdigest(text.encode(), SEED)
    if number is not None:
        found = xxhash.xxh64_intdigest(struct.pack("<i" if -(2**31) <= number < 2**31 else "<q", number), found)
    return found - 2**64 if found >= 2**63 else found
