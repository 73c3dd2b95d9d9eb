"""The report's examples with their thumbnails: queries with their neighbours, and quarantined inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from tgq.catalog.reading.location import Location, fetch_options, locate
from tgq.errors import SourceError
from tgq.grounding.box import Box, cropped
from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.images.fetch import Fetcher
from tgq.report.data import Card, Mark, Quarantined, Strip, StripGroup
from tgq.report.page import picture_uri
from tgq.run.night import Night
from tgq.storage import artifacts
from tgq.storage.warehouse import sql_string

SAMPLE = 4000  # queries from which the best, worst and random ones are chosen
FETCH_THREADS, FETCH_TIMEOUT_S = 8, 5.0
CROP_SCALE = 4  # a picture is decoded at so many times a thumbnail's side, so that small crops of it are still sharp
QUARANTINED, PER_REASON = 12, 2  # examples of quarantined inputs


class Pictures:
    """Thumbnails of items. Pictures are fetched as in the embed step, but with a short timeout and no retries."""

    def __init__(self, night: Night):
        settings = night.settings
        self.location: Location | None = None
        try:
            self.location = locate(night.spark, settings.catalog)
            options = fetch_options(self.location.folder, settings.images)
        except SourceError:  # the catalog has moved since the run
            options = fetch_options(None, settings.images)
        self.fetcher = Fetcher(replace(options, timeout_s=min(FETCH_TIMEOUT_S, options.timeout_s), retries=0))
        self.limits = ImageLimits(settings.images.max_bytes, settings.images.max_pixels)
        self.size = settings.report.thumbnail_px

    def one(self, uri: str | None, data: bytes | None = None) -> str | None:
        """A thumbnail as a data URI; None if there is no picture or it cannot be read."""
        try:
            if not data and uri:
                data = self.fetcher.read(self.location.resolve(uri) if self.location else uri)
            return picture_uri(decode_image(bytes(data), self.limits, self.size), self.size) if data else None
        except ImageError:
            return None

    def pair(self, uri: str | None, data: bytes | None, crop: Box) -> tuple[str | None, str | None]:
        """Thumbnails of a picture and of a part of it, as `one`."""
        try:
            if not data and uri:
                data = self.fetcher.read(self.location.resolve(uri) if self.location else uri)
            if not data:
                return None, None
            picture = decode_image(bytes(data), self.limits, CROP_SCALE * self.size)
            return picture_uri(picture, self.size), picture_uri(cropped(picture, crop), self.size)
        except ImageError:
            return None, None

    def many(self, wanted: Iterable[tuple[str | None, bytes | None]]) -> list[str | None]:
        with ThreadPoolExecutor(FETCH_THREADS, "thumbnails") as pool:
            return list(pool.map(lambda pair: self.one(*pair), wanted))

    def pairs(self, wanted: Iterable[tuple[str | None, bytes | None, Box]]) -> list[tuple[str | None, str | None]]:
        with ThreadPoolExecutor(FETCH_THREADS, "thumbnails") as pool:
            return list(pool.map(lambda part: self.pair(*part), wanted))


def neighbors_of(night: Night) -> DataFrame:
    """The run's neighbours: the staged ones, or the published ones after publication."""
    note = night.staging("neighbors.json")
    if artifacts.exists(note) and not artifacts.read_json(note)["carried"]:
        return night.spark.read.parquet(night.staging("neighbors"))
    return night.warehouse.read("item_neighbors")


def example_strips(night: Night, pictures: Pictures) -> list[StripGroup]:
    """Best, worst and random queries with their nearest neighbours."""
    shown = night.settings.report
    if not shown.strips:
        return []
    rows = _chosen(night, shown.strips, shown.strip_neighbors)
    ids = {i for row in rows for i in (row["item_id"], *(n["neighbor_id"] for n in row["nearest"]))}
    cards = cards_of(night, ids, pictures)

    def strip(row: Row) -> Strip:
        marks: dict[bool, Mark] = {True: "hit", False: "miss"} if row["relevant"] else {}
        nearest = [marked(cards, n["neighbor_id"], n["score"], marks.get(n["hit"], "")) for n in row["nearest"]]
        return Strip(cards.get(row["item_id"], Card(row["item_id"])), nearest, row["found"], row["relevant"])

    groups = (
        ("best", "Best queries", "Queries whose relevant items are ranked first. The query is on the left; relevant items have a green frame."),
        ("worst", "Worst queries", "Queries that find few or no relevant items, those with the highest similarity first."),
        ("random", "Random queries", "A random sample of the other queries."),
    )  # fmt: skip
    return [StripGroup(title, note, [strip(row) for row in rows if row["choice"] == choice]) for choice, title, note in groups]


def _chosen(night: Night, strips: int, width: int) -> list[Row]:
    """Rows (choice, item_id, nearest, found, relevant) of different queries.

    A query's quality is sum(1 / rank of its hits) over the best possible sum: 1 if all hits are ranked first, 0 if there is none.
    Without relevance pairs all queries are random and their neighbours are not judged.
    """
    evaluate, run = night.settings.evaluate, night.run_id
    pairs = night.warehouse.read("relevance_pairs").where("query_item_id <> positive_item_id")
    if evaluate.split != "all":
        pairs = pairs.where(F.col("split") == evaluate.split)
    pairs = pairs.groupBy("query_item_id", "positive_item_id").agg(F.max("weight").alias("weight"))
    active = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    draw = F.xxhash64("item_id", F.lit(run))
    relevant = pairs.where("weight > 0").groupBy(F.col("query_item_id").alias("item_id")).agg(F.count("*").alias("relevant"))
    queries = relevant.join(active, "item_id", "left_semi").orderBy(draw).limit(SAMPLE).localCheckpoint()
    if queries.isEmpty():
        queries = active.orderBy(draw).limit(strips).withColumn("relevant", F.lit(0)).localCheckpoint()
    near = neighbors_of(night).join(F.broadcast(queries), "item_id")
    judged = near.join(pairs.withColumnsRenamed({"query_item_id": "item_id", "positive_item_id": "neighbor_id"}), ["item_id", "neighbor_id"], "left")
    judged = judged.where("weight IS NULL OR weight > 0")  # weight 0 is neither hit nor miss
    listed = judged.groupBy("item_id", "relevant").agg(
        F.sort_array(F.collect_list(F.struct("rank", "neighbor_id", "score", F.col("weight").isNotNull().alias("hit")))).alias("all")
    )  # fmt: skip
    listed.createOrReplaceTempView("tgq_report_queries")
    rows = night.spark.sql(f"""
        WITH rated AS (
          SELECT item_id, relevant, slice(all, 1, {int(width)}) AS nearest, aggregate(all, 0, (n, x) -> n + int(x.hit)) AS found,
            aggregate(sequence(1, size(all)), 0D, (s, i) -> s + if(all[i - 1].hit, 1D / i, 0D))
              / aggregate(sequence(1, greatest(1, least(relevant, size(all)))), 0D, (s, i) -> s + 1D / i) AS quality,
            all[0].score AS first, xxhash64(item_id, {sql_string(run)}) AS draw
          FROM tgq_report_queries
        ), ordered AS (
          SELECT *,
            row_number() OVER (ORDER BY quality DESC, least(relevant, 4) DESC, draw) AS best,
            row_number() OVER (ORDER BY quality, first DESC, draw) AS worst
          FROM rated
        ), chosen AS (
          SELECT *, CASE WHEN relevant > 0 AND quality > 0 AND best <= {int(strips)} THEN 'best'
                         WHEN relevant > 0 AND quality < 1 AND worst <= {int(strips)} THEN 'worst' ELSE 'random' END AS choice
          FROM ordered
        )
        SELECT * FROM (
          SELECT *, row_number() OVER (PARTITION BY choice ORDER BY if(choice = 'random', draw, if(choice = 'best', best, worst))) AS place
          FROM chosen
        )
        WHERE place <= {int(strips)} ORDER BY place""").collect()
    night.spark.catalog.dropTempView("tgq_report_queries")
    return rows


def cards_of(night: Night, ids: Iterable[str], pictures: Pictures) -> dict[str, Card]:
    """Items by id, with their pictures; those that the catalog does not have are left out."""
    columns = ("item_id", "title", "brand", "category", "image_uri", "image_bytes")
    rows = night.warehouse.read("catalog_items").where(F.col("item_id").isin(sorted(ids))).select(*columns).collect() if ids else []
    shown = pictures.many((row["image_uri"], row["image_bytes"]) for row in rows)
    return {row["item_id"]: Card(row["item_id"], row["title"] or "", caption(row), picture) for row, picture in zip(rows, shown, strict=True)}


def caption(row: Mapping[str, Any] | Row) -> str:
    """Brand and last level of the category."""
    leaf = (row["category"] or "").rpartition(">")[2].strip()
    return " · ".join(part for part in (row["brand"], leaf) if part)


def marked(cards: Mapping[str, Card], item_id: str, score: float, mark: Mark) -> Card:
    """The card of an item that was found."""
    card = cards.get(item_id, Card(item_id))
    return Card(item_id, card.title, card.caption, card.picture, score, mark)


def quarantined_inputs(night: Night, pictures: Pictures) -> tuple[list[tuple[str, str, int]], list[Quarantined]]:
    """The number of rows by stage and reason, and a few examples per reason."""
    rows = night.spark.sql(f"""
        SELECT * FROM (
          SELECT stage, item_id, reason, detail, fields, count(*) OVER (PARTITION BY stage, reason) AS times,
            row_number() OVER (PARTITION BY stage, reason ORDER BY item_id, occurrence) AS place
          FROM {night.warehouse.qualified("quarantine")} WHERE run_id = {sql_string(night.run_id)}
        ) WHERE place <= {PER_REASON}""").collect()
    counts = sorted({(row["stage"], row["reason"], row["times"]) for row in rows}, key=lambda c: (-c[2], c))
    examples = sorted(rows, key=lambda row: (row["place"], -row["times"], row["reason"]))[:QUARANTINED]
    fields = [_fields(row["fields"]) for row in examples]
    shown = pictures.many((f.get("image_uri"), None) for f in fields)
    quarantined = [
        Quarantined(Card(row["item_id"], str(f.get("title") or ""), "", picture), row["stage"], row["reason"], row["detail"] or "")
        for row, f, picture in zip(examples, fields, shown, strict=True)
    ]
    return counts, quarantined


def _fields(text: str | None) -> dict[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
