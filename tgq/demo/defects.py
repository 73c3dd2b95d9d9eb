"""Rows that are broken on purpose, to show and test what happens to bad input."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

DEFECTS = ("missing id", "duplicate id", "truncated image", "not an image", "path outside", "no image and no text", "decompression bomb", "missing file",
           "unsupported scheme")  # fmt: skip


def broken_rows(out: Path, count: int, seed: int) -> list[dict]:
    """`count` rows, one of DEFECTS each in turn, with their files, beside the sound pictures."""
    return [_broken(out, seed, k, DEFECTS[k % len(DEFECTS)]) for k in range(count)]


def _broken(out: Path, seed: int, k: int, defect: str) -> dict[str, Any]:
    good = "images/0000/0000000.jpg"
    row = {"item_id": f"{seed}-bad{k:05d}", "title": f"Broken item {k}", "category": "Broken > Broken > Broken", "attributes": "{}", "image": good}
    wrong: dict[str, dict[str, str | None]] = {
        "missing id": {"item_id": None},
        "duplicate id": {"item_id": f"{seed}-{0:07d}"},
        "path outside": {"image": "../outside.jpg"},
        "no image and no text": {"title": None, "category": None, "attributes": None, "image": None},
        "missing file": {"image": f"images/broken/{k:05d}-absent.jpg"},
        "unsupported scheme": {"image": f"gopher://shop.invalid/{k:05d}.jpg"},
    }
    path = out / "images" / "broken" / f"{k:05d}.{'png' if defect == 'decompression bomb' else 'jpg'}"
    path.parent.mkdir(parents=True, exist_ok=True)
    if defect in wrong:
        return {**row, **wrong[defect], "is_primary": True, "defect": defect}
    if defect == "truncated image":
        data = (out / good).read_bytes()
        path.write_bytes(data[: len(data) * 3 // 4])
    else:
        path.write_bytes(bomb_png(20000) if defect == "decompression bomb" else b"<html><body>404 Not Found</body></html>\n")
    return {**row, "image": f"images/broken/{path.name}", "is_primary": True, "defect": defect}


def bomb_png(side: int) -> bytes:
    """A white PNG of side x side pixels in some side**2 / 8000 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (-(-side // 8))
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
