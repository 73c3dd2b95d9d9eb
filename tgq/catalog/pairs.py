"""Relevance pairs: which items are relevant to a query item, from groups of items, a table of pairs, or a table of links.

All sources give pairs (query_item_id, positive_item_id, source, weight, event_time) of active items. Weight 0 means that a pair
counts neither as a hit nor as a miss; pairs with identical pictures have weight 0. The split is by unit: the query's group, or
the query itself if it has no group. A unit is in one split only, and no item of a test unit occurs in a training pair, neither
as query nor as positive.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from tgq.catalog.enriched import ingested_version
from tgq.catalog.reading.location import Location
from tgq.catalog.reading.source import open_columns
from tgq.errors import SourceError
from tgq.feeds.columns import find
from tgq.run.night import Night
from tgq.settings.sections import CatalogSettings

MAX_GROUP = 2000  # items of a group that are paired; a group's pairs grow with its square
FORMAT = 1  # to be raised when the same items and settings give other pairs
ENDS = {"table": (("query_item_id", "positive_item_id"),), "links": (("query_item_id", "positive_item_id"), ("src", "dst"))}


def load_pairs(night: Night, location: Location) -> dict[str, int]:
    """Replace the contents of `relevance_pairs` in one commit. Pairs of groups are not made again for the same items and settings.

    `auto` is `group`; a catalog without groups has no pairs. Cost: one shuffle of the active items' ids by group, and the
    number of pairs; for the same items a count of the pairs.

    Returns pairs by '<source>.<split>' (weight > 0), 'ignored' (weight 0) and, for tables and links, 'rows' as read
    and those 'incomplete'.

    Raises:
        SourceError: the table of pairs cannot be read or lacks a column.
    """
    pairs = night.settings.pairs
    warehouse = night.warehouse
    items = warehouse.read("catalog_items").where("is_active").select("item_id", "group_id", "variant_id", "image_hash")
    counts: dict[str, int] = {}
    # of pairs of groups alone: a table of pairs may have changed, so its pairs have no key and are always made again
    key = None if pairs.source in ENDS else f"{FORMAT}:{MAX_GROUP}:{pairs.test_share}:{ingested_version(warehouse)}"
    if pairs.source == "none":
        found = None
    elif pairs.source in ("auto", "group"):
        found = group_pairs(items)
    else:
        links = read_links(night, location)
        read = links.agg(F.count("*").alias("rows"), F.count_if("incomplete").alias("incomplete")).collect()[0]
        counts |= {"rows": read["rows"]} | ({"incomplete": read["incomplete"]} if read["incomplete"] else {})
        if read["incomplete"]:
            night.progress.say(f"{read['incomplete']} of the {read['rows']} rows of {pairs.path} cannot be read or lack an id: they give no pair")
        found = linked_pairs(links.where("NOT incomplete"), items, pairs.key_column)
    if found is None:
        night.spark.sql(f"DELETE FROM {warehouse.qualified('relevance_pairs')}")
        return counts
    columns = warehouse.read("relevance_pairs").columns
    if key is None or warehouse.note_of("relevance_pairs") != key:
        warehouse.overwrite(split_pairs(found, pairs.test_share).select(*columns), "relevance_pairs", key)
    rows = (
        warehouse.read("relevance_pairs")
        .groupBy("source", "split")
        .agg(F.sum((F.col("weight") > 0).cast("long")).alias("judged"), F.sum((F.col("weight") == 0).cast("long")).alias("ignored"))
        .collect()
    )  # a few kinds of links
    counts |= {f"{r['source']}.{r['split']}": r["judged"] for r in rows}
    counts["ignored"] = sum(r["ignored"] for r in rows)
    if counts.get("rows") and not rows:
        night.progress.say(f"no row of {pairs.path} ({counts['rows']} rows) joins two active items; check pairs.key_column")
    return counts


def group_pairs(items: DataFrame) -> DataFrame:
    """All ordered pairs within a group; the same variant, where variants are known, has weight 0.

    A group above MAX_GROUP items is represented by that many of them, chosen by hash.
    """
    by_hash = Window.partitionBy("group_id").orderBy(F.xxhash64("item_id"), "item_id")
    members = items.where("group_id IS NOT NULL").withColumn("n", F.row_number().over(by_hash)).where(F.col("n") <= MAX_GROUP).drop("n")
    q, p = _side(members, "q"), _side(members, "p")
    pairs = q.join(p, F.col("q_group_id") == F.col("p_group_id"))
    same_variant = F.coalesce(F.col("q_variant_id") == F.col("p_variant_id"), F.lit(False))
    weight = F.when(same_variant, 0.0).otherwise(1.0)
    return _joined(pairs, F.lit("group"), weight, F.lit(None).cast("timestamp"))


def linked_pairs(links: DataFrame, items: DataFrame, key: str) -> DataFrame:
    """Links between ids, groups or variants as pairs of items: every item of one end with every item of the other.

    links: columns query, positive, source, weight, event_time. Repeated links count once, with their highest weight.
    """
    links = links.groupBy("query", "positive", "source").agg(F.max("weight").alias("weight"), F.max("event_time").alias("event_time"))
    q, p = _side(items, "q"), _side(items, "p")
    pairs = links.join(q, F.col("query") == F.col(f"q_{key}")).join(p, F.col("positive") == F.col(f"p_{key}"))
    return _joined(pairs, F.col("source"), F.col("weight"), F.col("event_time"))


def split_pairs(pairs: DataFrame, test_share: float) -> DataFrame:
    """Add group_id (the unit) and split. Pairs of a training unit with an item of a test unit are left out."""
    query_unit = F.coalesce("q_group_id", "query_item_id")
    positive_unit = F.coalesce("p_group_id", "positive_item_id")
    units = pairs.withColumns({
        "group_id": query_unit,
        "split": split_of(query_unit, test_share),
        "positive_split": split_of(positive_unit, test_share),
    })  # fmt: skip
    kept = units.where((F.col("split") == "test") | (F.col("positive_split") == "train"))
    return kept.withColumn("weight", F.col("weight").cast("float"))


def split_of(unit: Column, test_share: float) -> Column:
    """`tgq.training.data.split.split_of` as SQL, bit for bit: the first 64 bits of sha256 as a share of 2**64."""
    draw = F.conv(F.substring(F.sha2(unit, 256), 1, 16), 16, 10).cast("double") / F.lit(2.0**64)
    return F.when(draw < F.lit(float(test_share)), "test").otherwise("train")


def read_links(night: Night, location: Location) -> DataFrame:
    """The configured table or CSV as (query, positive, source, weight, event_time, incomplete).

    Ids are read as the catalog's are: trimmed, and without the '.0' of whole doubles. A row that cannot be read or lacks
    an end is incomplete.

    Optional columns: weight (1 where absent or no finite number, never below 0), event_time, and kind, the name of the source.

    Raises:
        SourceError: it cannot be read, or an end's column is missing.
    """
    settings = night.settings.pairs
    place = location.resolve(str(settings.path))
    wanted = (settings.query_column, settings.positive_column)
    choices = ENDS[settings.source] if wanted == ENDS["table"][0] else (wanted,)
    columns = {"query": tuple(q for q, _ in choices), "positive": tuple(p for _, p in choices)}
    columns |= {name: (name,) for name in ("kind", "weight", "event_time")}
    table = CatalogSettings(path=place, csv=night.settings.catalog.csv)
    opened = open_columns(night.spark, table, columns, "pairs.path")
    if not any(find(opened.columns, q) and find(opened.columns, p) for q, p in choices):
        shown = " or ".join(", ".join(pair) for pair in choices)
        raise SourceError(
            f"{settings.path} has no columns {shown}", f"its columns are {', '.join(opened.columns)}: set pairs.query_column and positive_column"
        )
    weight = F.coalesce(F.col("weight").try_cast("float"), F.lit(1.0))
    weight = F.when(F.isnan(weight) | (F.abs(weight) == float("inf")), 1.0).otherwise(weight)
    return opened.frame.select(
        "query",
        "positive",
        F.coalesce("kind", F.lit(settings.source)).alias("source"),
        F.greatest(weight, F.lit(0.0)).cast("float").alias("weight"),
        F.col("event_time").try_cast("timestamp").alias("event_time"),
        (F.col("reason").isNotNull() | F.col("query").isNull() | F.col("positive").isNull()).alias("incomplete"),
    )


def _side(items: DataFrame, side: str) -> DataFrame:
    return items.select(*(F.col(c).alias(f"{side}_{c}") for c in items.columns))


def _joined(pairs: DataFrame, source: Column, weight: Column, event_time: Column) -> DataFrame:
    same_picture = F.coalesce(F.col("q_image_hash") == F.col("p_image_hash"), F.lit(False))
    return pairs.where("q_item_id <> p_item_id").select(
        F.col("q_item_id").alias("query_item_id"),
        F.col("p_item_id").alias("positive_item_id"),
        source.alias("source"),
        F.when(same_picture, 0.0).otherwise(weight).alias("weight"),
        event_time.alias("event_time"),
        "q_group_id",
        "p_group_id",
    )
