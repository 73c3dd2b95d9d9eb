"""Multiplies a catalog as Spark jobs: pictures are cut out once an item, then variants are drawn beside those of other products.

    cut      source rows -> staged products, or the reason why a row is left out; one fetch and decode per picture
    draw     each chunk of a category comes to one task: its cast first, then its items, whose variants are written as they are made

An item needs the pictures of other products. It gets them from two bounded samples: the cast, at most 64 items of its own category,
which travels with each chunk of some hundred variants, and the pool, at most 512 items of all categories, which every worker has.
So cost grows linearly with the items (one fetch, one stored picture of about 15 kB, one or two shuffles of it) and with the rows
(about 10 ms and 7 kB each at 224 pixels), and not with items x items. A worker holds a cast and a pool, about 10 MB. The driver gets
the pool and at most 4096 counts. The rows depend on the catalog, the options and the seed, not on the number of tasks.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from tgq.catalog.identity import partitions, with_id_reasons
from tgq.catalog.reading.location import Location, fetch_options, locate
from tgq.catalog.reading.read_errors import first_line, reader_error
from tgq.catalog.reading.source import Source, open_source
from tgq.errors import SourceError, WarehouseError
from tgq.images.decode import ImageError, ImageLimits
from tgq.images.fetch import Fetcher
from tgq.messages import presentable
from tgq.multiply.folder import LEFT_OUT, TABLE, OutFolder, profile
from tgq.multiply.options import Options
from tgq.multiply.picture import PLAIN
from tgq.multiply.plan import partners_of, plan_of
from tgq.multiply.product import Product, cut
from tgq.multiply.row import ROW, row_of
from tgq.multiply.sampling import CAST_ROW, Sampling
from tgq.run.job_progress import counted, job_progress
from tgq.run.progress import Progress
from tgq.settings.sections import Settings
from tgq.storage.artifacts import remove_folder

FETCH_THREADS, AHEAD = 16, 32  # per task: reading waits for disks and servers; so many pictures are read before they are cut
FILE_ROWS, LEAST_ROWS = 4096, 32  # rows of a task, and so of a part file
BATCH_ROWS = 64
NAMED = 12  # left-out rows that the report names; LEFT_OUT has all
SCENES, ALIKE = "scenes", "of these with the item's category"
_TEXT = pa.string()
PRODUCT = pa.schema([
    ("item_id", _TEXT), ("group_id", _TEXT), ("variant_id", _TEXT), ("title", _TEXT), ("brand", _TEXT), ("category", _TEXT),
    ("attributes", pa.map_(_TEXT, _TEXT)), ("picture", pa.binary()), ("mask", pa.binary()),
])  # fmt: skip
STAGED = pa.schema([*PRODUCT, ("reason", _TEXT), ("detail", _TEXT)])


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        traits: number of rows by what is true of them.
        used: items that are shown; `usable` ones could be.
        left_out: source rows by the reason why they could not be used; `named` are the first of them as (item_id, reason, detail).
    """

    rows: int
    traits: dict[str, int]
    used: int
    usable: int
    left_out: dict[str, int]
    named: tuple[tuple[str, str, str], ...]

    def lines(self, out: str) -> Iterator[str]:
        """The report in lines for people."""
        whole = {ALIKE: self.traits[SCENES]}  # what a share is of; else of all rows
        told = ", ".join(f"{name} {count} ({count / max(whole.get(name, self.rows), 1):.0%})" for name, count in self.traits.items())
        yield f"{self.rows} rows of {self.used} items in {out}: {told}"
        lost = sum(self.left_out.values())
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.left_out.items())
        spare = f" ({self.usable - self.used} more could be)" if self.usable > self.used else ""
        yield f"items used: {self.used}{spare}; left out: {lost}{f' ({reasons}), all in {out}/{LEFT_OUT}' if lost else ''}"
        for item_id, reason, detail in self.named:
            yield f"  {item_id}: {reason} ({detail})"
        if lost > len(self.named):
            yield f"  and {lost - len(self.named)} more"


@dataclass(frozen=True)
class _Work:
    """What the jobs need."""

    spark: SparkSession
    settings: Settings
    options: Options
    out: OutFolder
    progress: Progress


def multiply(spark: SparkSession, settings: Settings, options: Options, out: OutFolder, progress: Progress) -> Report:
    """Write `options.rows` variants (ROW) of the items of `settings.catalog` to a folder that was checked, with a profile for nights.

    Raises:
        SourceError: there is no readable catalog, or no row of it has a usable picture.
        WarehouseError: the folder cannot be written.
    """
    work = _Work(spark, settings, options, out, progress)
    location = locate(spark, settings.catalog)
    source = open_source(spark, settings.catalog, location)
    for note in source.notes:
        progress.say(note)
    out.begin()
    try:
        staged = _cut(work, source, location)
        sampling = Sampling.of(staged.where("reason IS NULL"), options.rows, options.seed, _chunk_rows(work))
        lost = _left_out(staged)
        if not sampling.items:
            reasons = ", ".join(f"{reason} {n}" for reason, n in lost.items())
            found = f"none of the {sum(lost.values())} rows of {settings.catalog.path} has a picture that can be used" if lost else "the catalog is empty"
            raise SourceError(f"{found}{f' ({reasons})' if lost else ''}", "check the pictures' place, images.allowed_roots and images.allowed_hosts")
        out.clear()
        _draw(work, staged.where("reason IS NULL"), sampling)
        named = _keep_left_out(work, staged) if lost else ()
        report = _report(work, sampling, lost, named)
        out.finish(profile(settings.metadata), "\n".join((*_made_of(settings, options), *report.lines(out.root))) + "\n")
        return report
    except (PySparkException, Py4JError) as e:
        if ours := reader_error(e):
            raise ours from e
        if "Traceback (most recent call last)" in str(e):  # of a task, so neither the catalog nor the folder is at fault
            raise
        if "FAILED_READ_FILE" in str(e):
            raise SourceError(f"{settings.catalog.path} is damaged: {first_line(e)}", "write it again") from e
        raise WarehouseError(f"{out.root} cannot be written: {first_line(e)}", "check its permissions and the free space") from e
    finally:
        remove_folder(out.staging(""))


def _cut(work: _Work, source: Source, location: Location) -> DataFrame:
    """Stage a row of STAGED for every source row, and return them."""
    images = work.settings.images
    limits = ImageLimits(max_bytes=images.max_bytes, max_pixels=images.max_pixels)
    task = _CutTask(location, Fetcher(fetch_options(location.folder, images)), limits, work.options.size)
    tasks, folder = partitions(work.spark, source), work.out.staging("products")
    rows = with_id_reasons(source.frame, tasks).select(*_CutTask.COLUMNS)
    with job_progress(work, "cut out", source.rows) as done:
        rows.mapInArrow(counted(task.run, done), from_arrow_schema(STAGED)).write.mode("overwrite").parquet(folder)
    return work.spark.read.schema(from_arrow_schema(STAGED)).parquet(folder)


@dataclass(frozen=True)
class _CutTask:
    """Reads and cuts out the pictures of source rows. All fields can be sent to the executors."""

    COLUMNS = ("item_id", "group_id", "variant_id", "title", "brand", "category", "attributes", "image_uri", "image_bytes", "reason", "detail")

    location: Location
    fetcher: Fetcher
    limits: ImageLimits
    side: int

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """A row of STAGED for each source row, in their order."""
        with ThreadPoolExecutor(FETCH_THREADS, "fetch") as threads:
            for batch in batches:
                rows = iter(batch.to_pylist())
                while some := list(islice(rows, AHEAD)):
                    made = [self._staged(row, data) for row, data in zip(some, threads.map(self._data, some), strict=True)]
                    yield pa.RecordBatch.from_pylist(made, STAGED)

    def _data(self, row: dict[str, Any]) -> bytes | ImageError:
        if row["reason"]:
            return b""
        if row["image_bytes"]:
            return bytes(row["image_bytes"])
        if not row["image_uri"]:
            return ImageError("no_image", "the row has no picture")
        try:
            return self.fetcher.read(self.location.resolve(row["image_uri"]))
        except ImageError as error:
            return error

    def _staged(self, row: dict[str, Any], data: bytes | ImageError) -> dict[str, Any]:
        out = {name: row.get(name) for name in STAGED.names} | {"group_id": row["group_id"] or row["item_id"]}
        if row["reason"]:
            return out
        try:
            if isinstance(data, ImageError):
                raise data
            picture, mask = cut(data, self.limits, self.side)
        except ImageError as error:
            return out | {"reason": error.reason, "detail": error.detail}
        return out | {"picture": picture, "mask": mask}


def _draw(work: _Work, products: DataFrame, sampling: Sampling) -> None:
    """Write the variants."""
    columns = products.select(*PRODUCT.names)
    # bounded by POOL
    pool = [_product(row) for row in columns.join(sampling.pool(), "item_id", "left_semi").toArrow().to_pylist()]
    task = _DrawTask(work.options, work.spark.sparkContext.broadcast(pool))
    tasks = max(min(2 * work.spark.sparkContext.defaultParallelism, math.ceil(sampling.rows / LEAST_ROWS)), math.ceil(sampling.rows / FILE_ROWS))
    chunks = sampling.work(work.spark).withColumnRenamed("category", "key")
    rows = chunks.join(columns, "item_id").repartition(tasks, "key", "chunk").sortWithinPartitions("key", "chunk", "first", "item_id")
    with job_progress(work, "draw", sampling.rows) as done:
        rows.mapInArrow(counted(task.run, done), from_arrow_schema(ROW)).write.mode("overwrite").parquet(work.out.place(TABLE))


@dataclass(frozen=True)
class _DrawTask:
    """Draws the variants of chunks. `pool` is a broadcast list of products."""

    options: Options
    pool: Any

    def run(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Batches of ROW for rows of products that are sorted by chunk, and within it the cast before the items."""
        made = self._rows(batches)
        while some := list(islice(made, BATCH_ROWS)):
            yield pa.RecordBatch.from_pylist(some, ROW)

    def _rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
        cast: list[Product] = []
        chunk = None
        for row in (row for batch in batches for row in batch.to_pylist()):
            if chunk != (row["key"], row["chunk"]):
                cast, chunk = [], (row["key"], row["chunk"])
            product = _product(row)
            if row["first"] == CAST_ROW:
                cast.append(product)
                continue
            partners = partners_of(product, (*cast, *self.pool.value))
            for number in range(row["first"], row["last"]):
                yield row_of(self.options, plan_of(self.options, product, partners, number))


def _product(row: dict[str, Any]) -> Product:
    texts = {name: row[name] or "" for name in ("title", "brand", "category")}
    attributes = dict(row["attributes"] or ())
    return Product(row["item_id"], row["group_id"], row["picture"], row["mask"], attributes=attributes, variant_id=row["variant_id"], **texts)


def _chunk_rows(work: _Work) -> int:
    """Variants of a chunk: small enough to keep all cores busy, and else so many that casts are a small part of what is shuffled."""
    return max(LEAST_ROWS, min(512, math.ceil(work.options.rows / (8 * work.spark.sparkContext.defaultParallelism))))


def _left_out(staged: DataFrame) -> dict[str, int]:
    found = Counter({row["reason"]: row["count"] for row in staged.where("reason IS NOT NULL").groupBy("reason").count().collect()})
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _keep_left_out(work: _Work, staged: DataFrame) -> tuple[tuple[str, str, str], ...]:
    """Write the rows that could not be used to LEFT_OUT. Returns the first NAMED."""
    lost = staged.where("reason IS NOT NULL").select("item_id", "reason", "detail")
    lost.write.mode("overwrite").json(work.out.place(LEFT_OUT))
    return tuple((row["item_id"], row["reason"], row["detail"] or "") for row in lost.orderBy("item_id").limit(NAMED).collect())


def _report(work: _Work, sampling: Sampling, lost: dict[str, int], named: tuple[tuple[str, str, str], ...]) -> Report:
    """Counts of what lies in the folder, from columns without pictures."""
    traits = {
        SCENES: F.col("distractors") > 0, ALIKE: F.col("same_category"), "banners": F.col("overlay"),
        "other backgrounds": F.col("background") != PLAIN, "wrong titles": ~F.col("title").eqNullSafe(F.col("true_title")),
    }  # fmt: skip
    written = work.spark.read.schema(from_arrow_schema(ROW)).parquet(work.out.place(TABLE))
    counts = written.agg(
        F.count("*").alias("rows"), F.countDistinct("parent_id").alias("used"), *(F.count_if(what).alias(name) for name, what in traits.items())
    ).collect()[0]
    return Report(counts["rows"], {name: counts[name] for name in traits}, counts["used"], sampling.items, lost, named)


def _made_of(settings: Settings, options: Options) -> tuple[str, ...]:
    return f"Seeded variants of the items of {presentable(str(settings.catalog.path))}, written by `tgq multiply`.", "", *options.lines(), ""
