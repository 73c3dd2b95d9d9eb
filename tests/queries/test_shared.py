"""Real queries, judgments and clicks in shared/data, read with the shipped profiles. The folder stands beside the checkout."""

from collections import Counter
from pathlib import Path

import pytest
from pyspark.sql import functions as F

from tgq.catalog.reading.location import Location
from tgq.queries.inputs import open_inputs
from tgq.queries.load import Last, load, prepare
from tgq.run.night import Night
from tgq.settings.load import load_settings

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def read(spark, warehouse, make_night):
    """read(folder, profile): loads a folder's queries beside its items, and gives (figures, rows of query_judgments)."""

    def read(folder, profile):
        place = DATA / folder
        if not (place / "catalog.parquet").is_file():
            pytest.skip(f"shared/data/{folder} is not beside this checkout")
        items = spark.read.parquet(str(place / "catalog.parquet")).select("item_id", F.lit("hash").alias("content_hash"), F.lit(True).alias("is_active"))
        items.write.format("delta").mode("append").saveAsTable(warehouse.qualified("catalog_items"))
        settings = load_settings(["local", f"catalogs/{profile}"], [f"warehouse.path={warehouse.root}"], {}).settings
        made = make_night()
        night = Night(spark, settings, warehouse, made.run_id, made.started_at)
        inputs = open_inputs(spark, settings, Location(f"file:{place}/catalog.parquet", "parquet", str(place)))
        return load(night, inputs, Last("", {}), prepare(night, inputs, Last("", {}))), warehouse.read("query_judgments").collect()

    return read


def test_grades_of_people(read):
    figures, judgments = read("homedepot", "homedepot")
    assert (figures["queries"], figures["judgments"], figures["quarantined"]) == (5_991, 37_531, {})
    assert 0.45 < figures["test"] / figures["queries"] < 0.55
    assert {round(row.grade, 2) for row in judgments} >= {1.0, 2.33, 3.0}


def test_generated_queries_beside_a_catalog_with_pictures(read):
    figures, judgments = read("fashion", "fashion-queries")
    assert (figures["queries"], figures["judgments"]) == (473, 63_513 - sum(figures["quarantined"].values()))
    assert Counter(row.grade for row in judgments).keys() == {1, 2, 3}


def test_clicks_with_position_bias(read, warehouse):
    figures, judgments = read("retrotech", "retrotech")
    assert figures["queries"] == 13 and figures["rows"] == {"clicks": 644_925}
    examined = figures["clicks"]["examination"]
    assert examined[0] == 1 and 0.4 < examined[1] < 0.7 and examined[10] < 0.12
    query = {row.text: row.query_id for row in warehouse.read("relevance_queries").collect()}
    best = {(row.query_id, row.item_id): row.grade for row in judgments}
    assert best[query["transformers dark of the moon"], "97360810042"] == 3, "the film itself"
    assert Counter(best.values()).keys() == {0, 1, 2, 3}
