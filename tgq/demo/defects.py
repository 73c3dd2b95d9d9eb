"""Rows that are broken on purpose, to show and test what happens to bad input."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

DEFECTS = (
    "missing id",
    "duplicate id",
    "truncated image",
    "not an image",
    "path outside",
    "no image and no text",
    "decompression bomb",
    "missing file",
    "unsupported scheme",
)


def broken_rows(out: Path, count: int, seed: int) -> list[dict]:
    """`count` rows, one of DEFECTS each in turn, with their files, beside the sound pictures."""
    good = "images/0000/0000000.jpg"
    folder = out / "images" / "broken"
    rows = []
    for k in range(count):
        defect = DEFECTS[k % len(DEFECTS)]
        row: dict = {
            "item_id": f"{seed}-bad{k:05d}",
            "title": f"Broken item {k}",
            "category": "Broken > Broken > Broken",
            "attributes": "{}",
            "image": good,
            "is_primary": True,
            "defect": defect,
        }
        if count:
            folder.mkdir(parents=True, exist_ok=True)
        if defect == "missing id":
            row["item_id"] = None
        elif defect == "duplicate id":
            row["item_id"] = f"{seed}-{0:07d}"
        elif defect == "truncated image":
            data = (out / good).read_bytes()
            row["image"] = _write(out, f"{k:05d}.jpg", data[: len(data) * 3 // 4])
        elif defect == "not an image":
            row["image"] = _write(out, f"{k:05d}.jpg", b"<html><body>404 Not Found</body></html>\n")
        elif defect == "path outside":
            row["image"] = "../outside.jpg"
        elif defect == "no image and no text":
            row.update(title=None, category=None, attributes=None, image=None)
        elif defect == "decompression bomb":
            row["image"] = _write(out, f"{k:05d}.png", bomb_png(20000))
        elif defect == "missing file":
            row["image"] = f"images/broken/{k:05d}-absent.jpg"
        else:
            row["image"] = f"gopher://shop.invalid/{k:05d}.jpg"
        rows.append(row)
    return rows


def _write(out: Path, name: str, data: bytes) -> str:
    path = out / "images" / "broken" / name
    path.write_bytes(data)
    return f"images/broken/{name}"


def bomb_png(side: int) -> bytes:
    """A white PNG of side x side pixels in some side**2 / 8000 bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (-(-side // 8))
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
