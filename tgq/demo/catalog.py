"""Writes the drawn demo catalog: composes products, pictures, metadata and queries."""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tgq.demo.defects import broken_rows
from tgq.demo.metadata import describe, truth
from tgq.demo.photograph.scene import photograph
from tgq.demo.queries import POOL, Facts, write_queries
from tgq.demo.styles import Style, Variant, style
from tgq.errors import UsageError
from tgq.nuisances.draws import seeded

VERSION = 1  # increased with every change of the pictures or texts
DISTRACTED = 0.35  # share of pictures that show other products as well
DISTRACTOR_POOL = 400  # distractors are taken from the first styles, so that they do not depend on `items`
CHUNK = 50  # items per task
ROW_GROUP = 5000  # rows per Parquet row group
TABLES = ("catalog.parquet", "queries.parquet", "judgments.parquet")

_TEXT, _FLAG, _REAL = pa.string(), pa.bool_(), pa.float64()
SCHEMA = pa.schema(
    dict.fromkeys(("item_id", "title", "brand", "category", "attributes", "description"), _TEXT)
    | {"price": _REAL, "image": _TEXT, "group_id": _TEXT, "variant_id": _TEXT}
    | {"view": _TEXT, "is_primary": _FLAG, "fine_class": _TEXT}
    # ground truth, which an encoder must not read
    | {"overlay": _TEXT, "background": _TEXT, "prop": _TEXT}
    | {"distractors": pa.int32(), "box": pa.list_(pa.float32())}
    | {"title_noise": _TEXT, "missing_brand": _FLAG, "missing_attributes": pa.int32()}
    | {f"true_{name}": _TEXT for name in ("brand", "color", "material", "pattern", "attributes")}
    | {"defect": _TEXT}
)


@dataclass(frozen=True)
class CatalogSummary:
    """Counts of a drawn catalog: valid items, their styles and product types, broken rows, and queries."""

    out: Path
    items: int
    styles: int
    types: int
    bad_rows: int
    queries: int


def draw_catalog(
    out: Path | str, items: int = 2000, seed: int = 0, size: int = 224, workers: int | None = None,
    progress: Callable[[int, int], None] | None = None, bad_rows: int = 0,
) -> CatalogSummary:  # fmt: skip
    """Draw a catalog into the folder `out`: `catalog.parquet` (SCHEMA, one row per item), `images/` and `SOURCE.md`,
    `queries.parquet` and `judgments.parquet` (see `tgq.demo.queries`).

    The content depends on items, seed, size and bad_rows, not on workers. Item i is the same for every `items` > i.
    The last style may be incomplete, so its group can have a single item. Cost: linear in items and quadratic in
    size, about 8 ms per item and core at 224 px. With several workers the calling program must be importable,
    because the workers are spawned.

    Args:
        out: folder, created if absent. A catalog that was drawn earlier is replaced.
        items: number of valid items.
        seed: other seeds give other products.
        size: side of the square pictures in pixels, at least 64.
        workers: number of processes; by default one per core.
        progress: called with (items drawn, items) after every task.
        bad_rows: number of broken rows to append. Each has one defect, for which ingest must refuse it.

    Raises:
        UsageError: `out` holds a catalog that was not drawn by this function, or a number is out of range.
    """
    out = Path(out)
    workers = workers if workers is not None else os.cpu_count() or 1
    for name, value, least in (("items", items, 1), ("size", size, 64), ("workers", workers, 1), ("bad_rows", bad_rows, 0)):
        if value < least:
            raise UsageError(f"{name} is {value}", f"give {least} or more")
    _clear(out)
    plan = list(plan_of(items, seed))
    chunks = [plan[i : i + CHUNK] for i in range(0, items, CHUNK)]
    draw = functools.partial(_draw_chunk, out, seed, size)
    written = out / "catalog.parquet.partial"
    with pq.ParquetWriter(written, SCHEMA) as writer:
        rows: list[dict] = []
        facts: list[Facts] = []
        done = 0
        for part in _mapped(draw, chunks, min(workers, len(chunks))):
            rows += part
            facts += map(Facts.of, part[: POOL - len(facts)])
            done += len(part)
            if progress:
                progress(done, items)
            if len(rows) >= ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows[:ROW_GROUP], SCHEMA))
                rows = rows[ROW_GROUP:]
        rows += broken_rows(out, bad_rows, seed)
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    queries = write_queries(out, facts, seed)
    styles = {k for _, k, _ in plan}
    (out / "SOURCE.md").write_text(_source(items, seed, size, bad_rows))
    os.replace(written, out / "catalog.parquet")
    return CatalogSummary(out, items, len(styles), len({style(seed, k).product for k in styles}), bad_rows, queries)


def _mapped(draw: Callable[[list], list[dict]], chunks: list, workers: int) -> Iterator[list[dict]]:
    if workers == 1:
        yield from map(draw, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(draw, chunks)


def plan_of(items: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """(number of the item, of its style, of its variant), in the catalog's order."""
    steps = ((k, v) for k in itertools.count() for v in range(len(style(seed, k).variants)))
    return ((item, *step) for item, step in zip(range(items), steps, strict=False))


def _draw_chunk(out: Path, seed: int, size: int, plan: list[tuple[int, int, int]]) -> list[dict]:
    return [draw_item(out, seed, size, *step) for step in plan]


def draw_item(out: Path, seed: int, size: int, item: int, index: int, v: int) -> dict:
    """Draw an item and write its picture. Returns its row."""
    image, quality, row = item_of(seed, size, item, index, v)
    path = out / row["image"]
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "JPEG", quality=quality)
    return row


def item_of(seed: int, size: int, item: int, index: int, v: int) -> tuple[Image.Image, int, dict]:
    """An item's picture, its JPEG quality, and its row. `item` is its number, v the variant of the style `index`."""
    r = seeded(seed, "item", item)
    theirs = style(seed, index)
    variant = theirs.variants[v]
    photo, traits = photograph(r, theirs, variant, _others(r, theirs), size)
    text = describe(r, theirs, variant, traits)
    name = f"images/{item // 1000:04d}/{item:07d}.jpg"
    product, group = theirs.product, theirs.group_id
    told = {key: value for key, value in vars(photo).items() if key != "image"}
    row = {"item_id": f"{seed}-{item:07d}", **text, **told, "image": name, "is_primary": True, "defect": "", "price": theirs.price}
    row |= {"category": product.path, "fine_class": product.name, "group_id": group, "variant_id": f"{group}-{variant.name}"}
    row |= {"true_brand": theirs.brand.name, "true_color": variant.colour, "true_material": theirs.material, "true_pattern": theirs.pattern}
    return photo.image, r.randint(62, 92), {**row, "true_attributes": json.dumps(truth(theirs, variant, traits))}


def _others(r, own: Style) -> list[tuple[Style, Variant]]:
    """The other products in the picture: none, or one to three of other product types."""
    if r.random() >= DISTRACTED:
        return []
    n, chosen = r.choice((1, 1, 2, 3)), [own]
    while len(chosen) <= n:
        other = style(own.seed, r.randrange(DISTRACTOR_POOL))
        if other.product not in [s.product for s in chosen]:
            chosen.append(other)
    return [(s, r.choice(s.variants)) for s in chosen[1:]]


def _clear(out: Path) -> None:
    """Remove a catalog that was drawn earlier.

    Raises:
        UsageError: the folder holds another catalog or images.
    """
    source = out / "SOURCE.md"
    drawn = source.is_file() and source.read_text(errors="replace").startswith(_TITLE)
    if not drawn and any((out / name).exists() for name in (*TABLES, "images")):
        raise UsageError(f"{out} holds a catalog, queries or images that were not drawn by this command", "name another folder, or remove them")
    shutil.rmtree(out / "images", ignore_errors=True)
    for table in TABLES:
        (out / table).unlink(missing_ok=True)
    (out / "images").mkdir(parents=True, exist_ok=True)
    source.write_text(_TITLE)  # a draw that is cut short can be started again


_TITLE = "# A drawn catalog\n"


def _source(items: int, seed: int, size: int, bad_rows: int) -> str:
    return f"""{_TITLE}
Every product, brand and picture here is invented and drawn by `tgq demo-catalog`.

- items: {items}
- seed: {seed}
- picture size: {size} px
- rows broken on purpose: {bad_rows} (column `defect`)
- drawing version: {VERSION}

`group_id` is the style, `variant_id` the style in one colour or size. The columns from `overlay`
on are the truth about picture and text; an encoder must not see them.

`queries.parquet` holds queries made by rule from true attributes of the items, `judgments.parquet` how well the items of the
asked type answer them: 3 all that is asked, 2 nearly, 1 the type alone. Pairs without a row are not judged.
"""
