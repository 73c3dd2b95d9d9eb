"""The report step: what the page shows, read from tables and this run's staging in a handful of bounded queries.

Nothing that grows with the catalog reaches the driver: every query aggregates or has a limit. At most
3 * strips * (1 + strip_neighbors) pictures are fetched and shrunk, on threads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timezone
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from tgq.catalog.source import Location, fetch_options, locate
from tgq.errors import SourceError
from tgq.images.decode import ImageError, ImageLimits, decode_image
from tgq.images.fetch import Fetcher, FetchOptions
from tgq.report.data import ENCODER, Card, Figure, Histogram, Refused, Report, SliceRow, Step, Strip, StripGroup
from tgq.report.data import Night as TrendNight
from tgq.report.page import picture_uri, render
from tgq.run.night import RUN_STEP, Night, git_commit
from tgq.settings.load import redacted
from tgq.settings.sections import Settings
from tgq.storage import artifacts as files
from tgq.storage.files import Files
from tgq.storage.warehouse import sql_string

SAMPLE = 4000  # queries among which best, worst and random ones are sought
TREND_NIGHTS, SLICE_VALUES, SHARDS, REFUSED, REFUSED_PER_REASON = 30, 25, 40, 12, 2
BINS = 40
FETCH_THREADS, FETCH_TIMEOUT_S = 8, 5.0


def write_report(night: Night, summary: Mapping[str, Any]) -> str:
    """Write `reports/<run_id>/report.html`, and the same page as `reports/latest.html`. Returns the first one's path.

    summary: the run's figures, as `tgq nightly --summary` writes them. All else comes from the tables, so the report of an
        earlier run can be made again; its neighbours are then those that are published now.
    """
    page = render(collect(night, summary)).encode()
    folder = Files(night.warehouse.path("reports"))
    folder.write(f"{night.run_id}/report.html", page)
    folder.write("latest.html", page)
    return night.warehouse.path("reports", night.run_id, "report.html")


def collect(night: Night, summary: Mapping[str, Any]) -> Report:
    """Everything the page shows."""
    steps = {name: dict(step) for name, step in summary["steps"].items()}
    gate = summary.get("gate") or {}
    systems = _systems(summary.get("metrics") or {})
    headline = _headline(night.settings)
    embedded = steps.get("embed", {}).get("figures") or {}
    pictures = Pictures(night)
    shards = _shards(night, steps)
    counts, refused = _quarantine(night, pictures)
    slices = _slices(night, headline)
    return Report(
        run_id=night.run_id,
        started=night.started_at,
        status=_status(summary, gate, steps),
        reasons=[*gate.get("reasons", ()), *_errors(steps)],
        notes=_notes(steps),
        rows=summary.get("rows"),
        steps=[_step(name, step) for name, step in steps.items()],
        items_per_s=embedded.get("items_per_s"),
        wait_share=embedded.get("decode_wait_share"),
        coverage=systems[ENCODER]["coverage"].value if "coverage" in systems.get(ENCODER, {}) else None,
        headline=headline,
        level=night.settings.evaluate.level,
        systems=systems,
        differences=_differences(steps, headline),
        trend=_trend(night, headline, bool(summary.get("published"))),
        slices=slices,
        histograms=_histograms(night, summary.get("model_version")),
        shards=shards[:SHARDS],
        shards_left_out=len(shards[SHARDS:]),
        strips=_strips(night, pictures),
        refused_counts=counts,
        refused=refused,
        versions=_versions(steps),
        facts=_facts(night, summary),
        settings=_changed(night.settings),
    )


# -- figures


def _status(summary: Mapping[str, Any], gate: Mapping[str, Any], steps: Mapping[str, Any]) -> str:
    if summary.get("published"):
        return "published"
    if gate and not gate.get("passed", True):
        return "refused"
    return "failed" if any(s["status"] == "failed" for s in steps.values()) else "not published"


def _errors(steps: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {step['figures']['error']}" for name, step in steps.items()
            if step["status"] == "failed" and (step.get("figures") or {}).get("error")]  # fmt: skip


def _notes(steps: Mapping[str, Any]) -> list[str]:
    warnings = [w for name in ("validate_catalog", "validate_embeddings") for w in (steps.get(name, {}).get("figures") or {}).get("warnings", ())]
    return [f"Validation: {w}" for w in warnings]


def _step(name: str, step: Mapping[str, Any]) -> Step:
    counts = {c: step.get(c) for c in ("rows_in", "embedded", "unchanged", "quarantined", "inactive")}
    return Step(name, step["status"], float(step.get("seconds") or 0.0), **counts)


def _figure(row: Mapping[str, Any]) -> Figure:
    return Figure(row["value"], row["ci_low"], row["ci_high"], row["n_queries"] if "n_queries" in row else None)


def _systems(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Figure]]:
    order = (ENCODER, "frozen_concat", "frozen_image", "frozen_text")
    found = sorted(metrics, key=lambda s: order.index(s) if s in order else len(order))
    return {system: {name: _figure(figure) for name, figure in metrics[system].items()} for system in found}


def _headline(settings: Settings) -> str:
    ks = settings.evaluate.ks
    return f"hit_rate@{10 if 10 in ks else sorted(ks)[len(ks) // 2]}"


def _differences(steps: Mapping[str, Any], headline: str) -> dict[str, Figure]:
    """Encoder minus baseline on the same queries, as the evaluate step measured it."""
    metric, _, k = headline.partition("@")
    rows = (steps.get("evaluate", {}).get("figures") or {}).get("differences") or ()
    return {row["baseline"]: _figure(row) for row in rows if row["metric"] == metric and row["k"] == int(k)}


def _system(model_version: str) -> str:
    return model_version if model_version.startswith("frozen_") else ENCODER


def _slices(night: Night, headline: str) -> dict[str, list[SliceRow]]:
    """The headline metric by slice column: those values with most queries, for every system."""
    metric, _, k = headline.partition("@")
    rows = night.spark.sql(f"""
        WITH found AS (
          SELECT substring_index(slice, '=', 1) AS column, substring(slice, instr(slice, '=') + 1) AS entry, *
          FROM {night.warehouse.qualified("retrieval_metrics")}
          WHERE run_id = {sql_string(night.run_id)} AND metric = {sql_string(metric)} AND k = {int(k)} AND slice <> 'all'
        ), ranked AS (
          SELECT *, dense_rank() OVER (PARTITION BY column ORDER BY n_queries DESC, entry) AS place FROM found
        )
        SELECT column, entry, model_version, value, ci_low, ci_high, n_queries FROM ranked WHERE place <= {SLICE_VALUES}""").collect()
    columns: dict[str, dict[str, dict[str, Figure]]] = {}
    for row in rows:
        columns.setdefault(row["column"], {}).setdefault(row["entry"], {})[_system(row["model_version"])] = _figure(row.asDict())
    out = {}
    for column in sorted(columns, key=lambda c: (c != "category", c)):
        made = [SliceRow(value, max(f.n or 0 for f in figures.values()), figures) for value, figures in columns[column].items()]
        by_size = column == "category" or not all(_is_number(r.value) for r in made)
        out[column] = sorted(made, key=(lambda r: (-r.n, r.value)) if by_size else (lambda r: float(r.value)))
    return out


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _trend(night: Night, headline: str, published: bool) -> list[TrendNight]:
    """The headline, MRR and NDCG@10 of the last nights, oldest first, up to this one."""
    metric, _, k = headline.partition("@")
    table = night.warehouse.qualified
    rows = night.spark.sql(f"""
        WITH nights AS (
          SELECT r.run_id, r.started_at, r.status, coalesce(p.status, '') AS publish
          FROM {table("pipeline_runs")} r LEFT JOIN {table("pipeline_runs")} p ON p.run_id = r.run_id AND p.step = 'publish'
          WHERE r.step = '{RUN_STEP}' AND r.started_at <= timestamp_micros({int(night.started_at.timestamp() * 1e6)}) + INTERVAL 1 SECOND
            AND r.run_id IN (SELECT run_id FROM {table("retrieval_metrics")})
          ORDER BY r.started_at DESC LIMIT {TREND_NIGHTS}
        )
        SELECT n.*, m.metric, m.k, m.value, m.ci_low, m.ci_high FROM nights n JOIN {table("retrieval_metrics")} m USING (run_id)
        WHERE m.slice = 'all' AND NOT startswith(m.model_version, 'frozen_')
          AND ((m.metric = {sql_string(metric)} AND m.k = {int(k)}) OR m.metric = 'mrr' OR (m.metric = 'ndcg' AND m.k = 10))
        ORDER BY n.started_at""").collect()
    nights: dict[str, dict[str, Any]] = {}
    for row in rows:
        one = nights.setdefault(row["run_id"], {"when": row["started_at"], "published": row["publish"] == "done", "figures": {}})
        one["figures"][f"{row['metric']}@{row['k']}" if row["k"] else row["metric"]] = _figure(row.asDict())
    if night.run_id in nights:
        nights[night.run_id]["published"] = published
    order = [headline, "mrr", "ndcg@10"]
    return [TrendNight(run_id, n["when"].astimezone(timezone.utc), n["published"], {m: n["figures"][m] for m in order if m in n["figures"]})
            for run_id, n in nights.items()]  # fmt: skip


def _histograms(night: Night, model_version: str | None) -> list[Histogram]:
    """Agreement and gates of the active items, and how near each item's nearest neighbour is: two aggregations."""
    parts = [
        ("agreement", "Image–title agreement", "cosine of picture and title", -1.0, 1.0),
        ("gate_metadata", "Metadata gate", "mean factor; 1 is neutral", 0.0, 2.0),
        ("gate_exploratory", "Exploratory gate", "mean factor; 1 is neutral", 0.0, 2.0),
        ("score", "Nearest neighbour", "cosine of each item’s first neighbour", -1.0, 1.0),
    ]  # fmt: skip
    if model_version is None:
        model_version = ""
    items = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    embeddings = night.warehouse.read("item_embeddings").where(F.col("model_version") == model_version).join(items, "item_id", "left_semi")
    nearest = neighbors_of(night).where("rank = 1").select(F.lit("score").alias("name"), F.col("score").alias("value"))
    values = embeddings.selectExpr("stack(3, 'agreement', agreement, 'gate_metadata', gate_metadata, 'gate_exploratory', gate_exploratory) AS (name, value)")
    low = F.when(F.col("name").startswith("gate"), 0.0).otherwise(-1.0)
    fine = 5 * BINS  # finer than shown: the empty ends are cut off below
    binned = values.union(nearest).where("value IS NOT NULL AND NOT isnan(value)").groupBy(
        "name", F.least(F.greatest(F.floor((F.col("value") - low) / 2.0 * fine), F.lit(0)), F.lit(fine - 1)).alias("bin")
    ).count().collect()  # fmt: skip
    out = []
    for name, title, note, start, end in parts:
        counts = {row["bin"]: row["count"] for row in binned if row["name"] == name}
        if counts:
            first, last = min(counts), max(counts) + 1
            wide = max(1, -(-(last - first) // BINS))  # fine bins per bar
            bars = -(-(last - first) // wide)
            width = (end - start) / fine
            shown = [sum(counts.get(first + b * wide + i, 0) for i in range(wide)) for b in range(bars)]
            out.append(Histogram(title, note, start + first * width, start + (first + bars * wide) * width, shown))
    return out


def _shards(night: Night, steps: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tonight's shards, largest first: the staged ones, or those of the generation that this run published."""
    staged = night.staging("index", "manifest.json")
    if files.exists(staged):
        rows = [{**s, "recall": s["recall_at_k"]} for s in files.read_json(staged)["shards"]]
    else:
        generation = (steps.get("publish", {}).get("figures") or {}).get("generation") or ""
        found = night.warehouse.read("index_shards").where(F.col("generation") == generation).orderBy(F.desc("n_items")).limit(10_000)
        rows = [{**row.asDict(), "recall": row["recall_at_k"]} for row in found.collect()]
    return sorted(rows, key=lambda s: (-s["n_items"], s["category"], s["shard"]))


def _versions(steps: Mapping[str, Any]) -> list[tuple[str, int | None, int | None]]:
    """By table: the version that the first step read, the one that the last step wrote."""
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    for step in steps.values():
        read = dict(step.get("versions_read") or {}) | read
        written |= step.get("versions_written") or {}
    return [(name, read.get(name), written.get(name)) for name in sorted(read.keys() | written.keys())]


def _facts(night: Night, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    figures = [f for system in (summary.get("metrics") or {}).values() for f in system.values()]
    pool = max((f.get("pool_size") or 0 for f in figures), default=0)
    queries = max((f.get("n_queries") or 0 for f in figures), default=0)
    facts = [
        ("catalog", night.settings.catalog.path), ("warehouse", night.warehouse.root), ("model version", summary.get("model_version")),
        ("encoder", night.settings.encoder.path), ("pool", f"{pool:,} items" if pool else None), ("queries", f"{queries:,}" if queries else None),
        ("MLflow run", summary.get("mlflow_run")), ("manifest", summary.get("manifest")), ("git commit", git_commit()),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in facts if value]


def _changed(settings: Settings) -> list[tuple[str, str, str]]:
    """Settings that are not what tgq would have chosen by itself. The encoder, which a run keeps as it found it, is among the facts."""
    default, chosen = redacted(Settings()), redacted(settings)
    keys = sorted(k for k in chosen if k != "encoder.path" and chosen[k] != default.get(k) and not (isinstance(chosen[k], dict) and not chosen[k]))
    return [(k, json.dumps(chosen[k], ensure_ascii=False), json.dumps(default.get(k), ensure_ascii=False)) for k in keys]


# -- pictures


class Pictures:
    """Small pictures of items, fetched as the night fetched them but with little patience."""

    def __init__(self, night: Night):
        settings = night.settings
        self.location: Location | None = None
        try:
            self.location = locate(night.spark, settings.catalog)
            options = fetch_options(self.location.folder, settings.images)
        except SourceError:  # a report made again after the catalog moved
            options = FetchOptions(settings.images.allowed_hosts, settings.images.allowed_roots, max_bytes=settings.images.max_bytes)
        self.fetcher = Fetcher(FetchOptions(
            options.allowed_hosts, options.allowed_roots, min(FETCH_TIMEOUT_S, options.timeout_s), 0, options.max_bytes
        ))  # fmt: skip
        self.limits = ImageLimits(settings.images.max_bytes, settings.images.max_pixels)
        self.size = settings.report.thumbnail_px

    def one(self, uri: str | None, data: bytes | None = None) -> str | None:
        """A data URI; None where there is no picture or it cannot be shown."""
        try:
            if not data and uri:
                data = self.fetcher.read(self.location.resolve(uri) if self.location else uri)
            return picture_uri(decode_image(bytes(data), self.limits, self.size), self.size) if data else None
        except ImageError:
            return None

    def many(self, wanted: Iterable[tuple[str | None, bytes | None]]) -> list[str | None]:
        with ThreadPoolExecutor(FETCH_THREADS, "thumbnails") as pool:
            return list(pool.map(lambda pair: self.one(*pair), wanted))


def neighbors_of(night: Night) -> DataFrame:
    """Tonight's neighbours: staged until they are published."""
    note = night.staging("neighbors.json")
    if files.exists(note) and not files.read_json(note)["carried"]:
        return night.spark.read.parquet(night.staging("neighbors"))
    return night.warehouse.read("item_neighbors")


def _strips(night: Night, pictures: Pictures) -> list[StripGroup]:
    """Best, worst and random queries with their nearest neighbours."""
    shown = night.settings.report
    if not shown.strips:
        return []
    rows = _chosen(night, shown.strips, shown.strip_neighbors)
    ids = {i for row in rows for i in (row["item_id"], *(n["neighbor_id"] for n in row["nearest"]))}
    cards = _cards(night, ids, pictures)

    def strip(row: Row) -> Strip:
        marks = {True: "hit", False: "miss"} if row["relevant"] else {}
        nearest = [_marked(cards, n["neighbor_id"], n["score"], marks.get(n["hit"], "")) for n in row["nearest"]]
        return Strip(cards.get(row["item_id"], Card(row["item_id"])), nearest, row["found"], row["relevant"])

    groups = (
        ("best", "What works best", "Test queries whose relevant items stand first. The query is on the left; green frames are relevant items."),
        ("worst", "What goes wrong", "Test queries that find none or little of what is relevant, the most confident of them first."),
        ("random", "Drawn at random", "Other queries, drawn by a hash of their id. Look here for what the night is really like."),
    )  # fmt: skip
    return [StripGroup(title, note, [strip(row) for row in rows if row["choice"] == choice]) for choice, title, note in groups]


def _chosen(night: Night, strips: int, width: int) -> list[Row]:
    """Rows (choice, item_id, nearest, found, relevant), no query twice.

    A query's mark is sum(1 / rank of its hits) over the best possible sum: 1 where all hits stand first, 0 where none was found.
    Without pairs every query is drawn at random and nothing is judged.
    """
    evaluate, run = night.settings.evaluate, night.run_id
    pairs = night.warehouse.read("relevance_pairs").where("query_item_id <> positive_item_id")
    if evaluate.split != "all":
        pairs = pairs.where(F.col("split") == evaluate.split)
    pairs = pairs.groupBy("query_item_id", "positive_item_id").agg(F.max("weight").alias("weight"))
    active = night.warehouse.read("catalog_items").where("is_active").select("item_id")
    draw = F.xxhash64("item_id", F.lit(run))
    relevant = pairs.where("weight > 0").groupBy(F.col("query_item_id").alias("item_id")).agg(F.count("*").alias("relevant"))
    asked = relevant.join(active, "item_id", "left_semi").orderBy(draw).limit(SAMPLE).localCheckpoint()
    if asked.isEmpty():
        asked = active.orderBy(draw).limit(strips).withColumn("relevant", F.lit(0)).localCheckpoint()
    near = neighbors_of(night).join(F.broadcast(asked), "item_id")
    judged = near.join(pairs.withColumnsRenamed({"query_item_id": "item_id", "positive_item_id": "neighbor_id"}), ["item_id", "neighbor_id"], "left")
    judged = judged.where("weight IS NULL OR weight > 0")  # the same thing in another view is neither hit nor miss
    listed = judged.groupBy("item_id", "relevant").agg(
        F.sort_array(F.collect_list(F.struct("rank", "neighbor_id", "score", F.col("weight").isNotNull().alias("hit")))).alias("all")
    )  # fmt: skip
    listed.createOrReplaceTempView("tgq_report_queries")
    rows = night.spark.sql(f"""
        WITH marked AS (
          SELECT item_id, relevant, slice(all, 1, {int(width)}) AS nearest, aggregate(all, 0, (n, x) -> n + int(x.hit)) AS found,
            aggregate(sequence(1, size(all)), 0D, (s, i) -> s + if(all[i - 1].hit, 1D / i, 0D))
              / aggregate(sequence(1, greatest(1, least(relevant, size(all)))), 0D, (s, i) -> s + 1D / i) AS mark,
            all[0].score AS first, xxhash64(item_id, {sql_string(run)}) AS draw
          FROM tgq_report_queries
        ), placed AS (
          SELECT *,
            row_number() OVER (ORDER BY mark DESC, least(relevant, 4) DESC, draw) AS best,
            row_number() OVER (ORDER BY mark, first DESC, draw) AS worst
          FROM marked
        ), taken AS (
          SELECT *, CASE WHEN relevant > 0 AND mark > 0 AND best <= {int(strips)} THEN 'best'
                         WHEN relevant > 0 AND mark < 1 AND worst <= {int(strips)} THEN 'worst' ELSE 'random' END AS choice
          FROM placed
        )
        SELECT * FROM (
          SELECT *, row_number() OVER (PARTITION BY choice ORDER BY if(choice = 'random', draw, if(choice = 'best', best, worst))) AS place
          FROM taken
        )
        WHERE place <= {int(strips)} ORDER BY place""").collect()
    night.spark.catalog.dropTempView("tgq_report_queries")
    return rows


def _cards(night: Night, ids: Iterable[str], pictures: Pictures) -> dict[str, Card]:
    columns = ("item_id", "title", "brand", "category", "image_uri", "image_bytes")
    rows = night.warehouse.read("catalog_items").where(F.col("item_id").isin(sorted(ids))).select(*columns).collect() if ids else []
    shown = pictures.many((row["image_uri"], row["image_bytes"]) for row in rows)
    return {row["item_id"]: Card(row["item_id"], row["title"] or "", _caption(row), picture) for row, picture in zip(rows, shown, strict=True)}


def _caption(row: Mapping[str, Any] | Row) -> str:
    leaf = (row["category"] or "").rpartition(">")[2].strip()
    return " · ".join(part for part in (row["brand"], leaf) if part)


def _marked(cards: Mapping[str, Card], item_id: str, score: float, mark: str) -> Card:
    card = cards.get(item_id, Card(item_id))
    return Card(item_id, card.title, card.caption, card.picture, score, mark)


def _quarantine(night: Night, pictures: Pictures) -> tuple[list[tuple[str, str, int]], list[Refused]]:
    """Rows by stage and reason, and a few examples of each reason."""
    rows = night.spark.sql(f"""
        SELECT * FROM (
          SELECT stage, item_id, reason, detail, fields, count(*) OVER (PARTITION BY stage, reason) AS times,
            row_number() OVER (PARTITION BY stage, reason ORDER BY item_id, occurrence) AS place
          FROM {night.warehouse.qualified("quarantine")} WHERE run_id = {sql_string(night.run_id)}
        ) WHERE place <= {REFUSED_PER_REASON}""").collect()
    counts = sorted({(row["stage"], row["reason"], row["times"]) for row in rows}, key=lambda c: (-c[2], c))
    taken = sorted(rows, key=lambda row: (row["place"], -row["times"], row["reason"]))[:REFUSED]
    fields = [_fields(row["fields"]) for row in taken]
    shown = pictures.many((f.get("image_uri"), None) for f in fields)
    refused = [
        Refused(Card(row["item_id"], str(f.get("title") or ""), "", picture), row["stage"], row["reason"], row["detail"] or "")
        for row, f, picture in zip(taken, fields, shown, strict=True)
    ]
    return counts, refused


def _fields(text: str | None) -> dict[str, Any]:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}
