"""Precision and recall of near-duplicate pictures, by the distance of their perceptual hashes, on drawn pictures and copies of them.

    python benchmarks/quality/duplicates.py [--items 1000] [--size 320] [--choose-seed 1] [--report-seed 2] [--catalog FOLDER] [--out FILE]

Each picture gets a copy of each kind: encoded again, resized, cropped by 5 %, with a banner. Recall is the share of copies whose hash is within the
distance of the original's, and whose colour differs by at most `--colour` levels. Precision is the share of true pairs among all pairs that are near, in the
pool of all originals and all copies: a pair is true if both are of one original. Other pictures of the same product (another colour, view or background)
count as false, and their share is told too. `linked` is the precision after clustering, where pictures are paired that a chain of near pairs connects.

Chosen is, on one seed's products, the largest even distance without a false pair, and all is reported on another seed's products. The same is told without
the comparison of colours. `--catalog` names folders of real catalogs: how many pairs of different pictures are near there, without colour and with it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tgq.demo.catalog import draw_catalog
from tgq.images.decode import decode_image
from tgq.images.phash import PLAIN, fingerprint
from tgq.nuisances.draws import seeded
from tgq.nuisances.item import Item
from tgq.nuisances.lettering import banner

DISTANCES = range(17)
TARGET = 320  # side of the default encoder's input, to which JPEGs are decoded


def saved(image: Image.Image, quality: int = 90, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return buffer.getvalue()


def encoded(image: Image.Image, r: random.Random) -> bytes:
    return saved(image, r.randint(50, 90), r.choice(("JPEG", "WEBP")))


def resized(image: Image.Image, r: random.Random) -> bytes:
    share = r.uniform(0.3, 0.9)
    return saved(image.resize((round(image.width * share), round(image.height * share)), Image.Resampling.LANCZOS))


def cropped(image: Image.Image, r: random.Random) -> bytes:
    """5 % of width and of height are cut off, from either side."""
    left, top = (round(side * 0.05 * r.random()) for side in image.size)
    return saved(image.crop((left, top, left + round(image.width * 0.95), top + round(image.height * 0.95))))


def bannered(image: Image.Image, r: random.Random) -> bytes:
    shown = banner(r, Item("", image), ())
    assert shown is not None and shown.image is not None  # the item has a picture
    return saved(shown.image)


COPIES: dict[str, Callable[[Image.Image, random.Random], bytes]] = {
    "encoded again": encoded, "resized": resized, "cropped by 5 %": cropped, "bannered": bannered,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--size", type=int, default=320, help="side of the drawn pictures")
    parser.add_argument("--choose-seed", type=int, default=1)
    parser.add_argument("--report-seed", type=int, default=2)
    parser.add_argument("--colour", type=int, default=8, help="largest difference of colours")
    parser.add_argument("--catalog", type=Path, nargs="*", default=[], help="folders with catalog.parquet, whose column image names files")
    parser.add_argument("--most", type=int, default=1500, help="pictures of a catalog, drawn at random")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "quality" / "duplicates.json")
    args = parser.parse_args()
    choosing, reported = (hashed(args.items, args.size, seed) for seed in (args.choose_seed, args.report_seed))
    chosen = table(*choosing, args.colour)
    best = max(row["distance"] for row in chosen if row["distance"] % 2 == 0 and row["precision"] == 1)
    rows, hash_alone = table(*reported, args.colour), table(*reported, 255)
    print(f"{args.items} products' pictures of {args.size} px, chosen on seed {args.choose_seed}: distance {best}; reported on seed {args.report_seed}")
    for title, each in ((f"colours differ by at most {args.colour}", rows), ("hash alone", hash_alone)):
        names = ["distance", *COPIES, "precision", "of the same product", "linked", "largest cluster"]
        print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
        for row in each:
            print(f"| {' | '.join(f'{row[name]:.3f}' if isinstance(row[name], float) else str(row[name]) for name in names)} |")
    real = {folder.name: near_in(folder, args.most, args.colour) for folder in args.catalog}
    print(json.dumps(real, indent=1))
    options = {key: value for key, value in vars(args).items() if key not in ("out", "catalog")}
    result = {"options": options, "chosen": best, "choosing": chosen, "reported": rows, "hash alone": hash_alone, "catalogs": real}
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def near_in(folder: Path, most: int, colour: int) -> dict[str, object]:
    """Pairs of different pictures of a catalog that are near, by distance: `hash alone`, and `with colour`."""
    paths = sorted({path for path in pq.read_table(folder / "catalog.parquet")["image"].to_pylist() if path})
    chosen = random.Random(0).sample(paths, min(most, len(paths)))
    found = {hash(data): fingerprint(decode_image(data, target=TARGET)) for path in chosen for data in [(folder / path).read_bytes()]}
    codes = np.array(list(found.values()), np.int64)
    apart, differ = differences(codes)
    above = np.triu(np.ones_like(apart, bool), 1)
    even = [most for most in DISTANCES if most % 2 == 0]
    limits = {"hash alone": 255, "with colour": colour}
    counts = {name: {most: int((above & (apart <= most) & (differ <= limit)).sum()) for most in even} for name, limit in limits.items()}
    return {"pictures": len(codes), **counts}


def differences(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bits and levels of colour in which all differ from all, [n, n], of hashes and colours int64 [n, 2]. A plain picture is like no other."""
    hashes, colours = np.ascontiguousarray(codes[:, 0]).view(np.uint64), codes[:, 1]
    apart = np.concatenate([np.bitwise_count(hashes[i : i + 256, None] ^ hashes[None]) for i in range(0, len(codes), 256)])
    plain = codes[:, 0] == PLAIN
    apart[plain] = apart[:, plain] = 64
    differ = np.zeros(apart.shape, np.uint8)
    for shift in (16, 8, 0):
        level = (colours >> shift & 255).astype(np.int16)
        np.maximum(differ, np.abs(level[:, None] - level[None]).astype(np.uint8), out=differ)
    return apart, differ


def hashed(items: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and colours int64 [n, 1 + copies, 2], the originals first, and the number of each original's product, int64 [n]."""
    rows, groups = [], []
    with tempfile.TemporaryDirectory(prefix="tgq-bench-") as folder:
        draw_catalog(folder, items=items, seed=seed, size=size)
        for item_id, path, group in zip(*(pq.read_table(f"{folder}/catalog.parquet")[c].to_pylist() for c in ("item_id", "image", "group_id")), strict=True):
            data = Path(folder, path).read_bytes()
            image = decode_image(data)
            copies = [copy(image, seeded("copy", name, item_id, seed)) for name, copy in COPIES.items()]
            rows.append([fingerprint(decode_image(each, target=TARGET)) for each in (data, *copies)])
            groups.append(group)
    return np.array(rows, np.int64), np.unique(groups, return_inverse=True)[1]


def table(codes: np.ndarray, product: np.ndarray, colour: int) -> list[dict[str, float | int]]:
    """Recall by kind of copy, precision, and precision after clustering, for every distance."""
    n, kinds, _ = codes.shape
    of = np.repeat(np.arange(n), kinds)
    apart, differ = differences(codes.reshape(-1, 2))
    apart[differ > colour] = 64
    a, b = np.nonzero(np.triu(apart <= max(DISTANCES), 1))
    rows = []
    for most in DISTANCES:
        near = apart[a, b] <= most
        i, j = a[near], b[near]
        true = of[i] == of[j]
        _, cluster = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(len(of),) * 2), directed=False)
        sizes = np.bincount(cluster)
        together = np.bincount(cluster * n + of, minlength=len(sizes) * n)  # of one original in one cluster
        linked, linked_true = (int((c * (c - 1) // 2).sum()) for c in (sizes, together))
        row: dict[str, float | int] = {"distance": most}
        row |= {name: float((apart[np.arange(n) * kinds, np.arange(n) * kinds + k + 1] <= most).mean()) for k, name in enumerate(COPIES)}
        row |= {"precision": float(true.mean()) if len(i) else 1.0, "pairs": len(i)}
        row |= {"of the same product": float((~true & (product[of[i]] == product[of[j]])).mean()) if len(i) else 0.0}
        rows.append(row | {"linked": linked_true / linked if linked else 1.0, "largest cluster": int(sizes.max())})
    return rows


if __name__ == "__main__":
    main()
