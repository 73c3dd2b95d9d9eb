"""The drawn queries: true attributes as shoppers type them, and grades that any reader of the truth would give."""

import json

import pyarrow.parquet as pq
import pytest

from tgq.demo.catalog import draw_catalog
from tgq.demo.drawing.surface import COLOURS
from tgq.demo.metadata import truth
from tgq.demo.queries import FAMILIES, FAMILY, JUDGMENTS, QUERIES, Facts, grade, write_queries
from tgq.demo.styles import style
from tgq.demo.types import products
from tgq.errors import UsageError
from tgq.nuisances.spelling import plural_of


@pytest.fixture(scope="module")
def items():
    found = []
    for k in range(250):
        own = style(0, k)
        found += [Facts(f"{k}-{v.name}", own.product.path, truth(own, v, own.shape().traits)) for v in own.variants]
    return {item.item_id: item for item in found}


@pytest.fixture(scope="module")
def written(items, tmp_path_factory):
    out = tmp_path_factory.mktemp("queries")
    n = write_queries(out, list(items.values()), seed=0)
    queries, judgments = pq.read_table(out / "queries.parquet"), pq.read_table(out / "judgments.parquet")
    assert queries.schema.equals(QUERIES) and judgments.schema.equals(JUDGMENTS) and queries.num_rows == n
    return out, queries.to_pylist(), judgments.to_pylist()


def test_grades_follow_the_truth_and_every_query_has_an_answer(items, written):
    _, queries, judgments = written
    by_query = {row["query_id"]: row for row in queries}
    assert len({row["query"] for row in queries}) == len(by_query) == len(queries) > 100
    best, types = dict.fromkeys(by_query, 0), {}
    for row in judgments:
        item, asked = items[row["item_id"]], json.loads(by_query[row["query_id"]]["asked"])
        agree = [item.attributes.get(name) == value for name, value in asked.items()]
        assert (row["grade"] == 3) == all(agree) and row["grade"] in (1, 2, 3)
        assert types.setdefault(row["query_id"], item.type) == item.type
        best[row["query_id"]] = max(best[row["query_id"]], row["grade"])
    assert set(best.values()) == {3} and len({(r["query_id"], r["item_id"]) for r in judgments}) == len(judgments)
    assert {row["grade"] for row in judgments} == {1, 2, 3}


def test_spellings_have_their_shares_and_say_what_was_done(written):
    _, queries, _ = written
    nouns = {spelling for p in products() for noun in p.nouns for spelling in (noun.lower(), plural_of(noun.lower()))}
    for row in queries:
        words = list(json.loads(row["asked"]).values())
        if not row["typo"]:
            assert all(word in row["query"] for word in words) and any(noun in row["query"] for noun in nouns)
            if not row["reordered"]:
                assert row["query"].startswith(" ".join(words))
    for name, low, high in (("typo", 0.08, 0.25), ("plural", 0.12, 0.35), ("reordered", 0.2, 0.4)):
        assert low < sum(row[name] for row in queries) / len(queries) < high
    often = [row["popularity"] for row in queries]
    assert often == sorted(often, reverse=True) and often[0] > 50 * often[-1]


def test_the_same_items_and_seed_give_the_same_bytes(items, written, tmp_path):
    write_queries(tmp_path, list(items.values()), seed=0)
    for name in ("queries.parquet", "judgments.parquet"):
        assert (tmp_path / name).read_bytes() == (written[0] / name).read_bytes()


@pytest.mark.parametrize("asked, true, worth", [
    ({"color": "red"}, {"color": "red"}, 3), ({"color": "red"}, {"color": "burgundy"}, 2), ({"color": "red"}, {"color": "blue"}, 1),
    ({"color": "red", "material": "wool"}, {"color": "blue", "material": "wool"}, 2), ({"color": "red", "material": "wool"}, {"color": "blue"}, 1),
    ({"material": "wool"}, {"material": "cotton"}, 1),
])  # fmt: skip
def test_grades(asked, true, worth):
    assert grade(asked, true) == worth


def test_every_colour_is_in_one_family():
    assert set(FAMILY) == set(COLOURS) and sum(map(len, FAMILIES)) == len(COLOURS)


def test_the_files_stand_beside_the_catalog_and_foreign_ones_are_left_alone(tmp_path):
    drawn = draw_catalog(tmp_path / "drawn", 30, seed=3, size=64, workers=1, bad_rows=2)
    ids = set(pq.read_table(tmp_path / "drawn" / "catalog.parquet")["item_id"].to_pylist()[:30])
    judged = pq.read_table(tmp_path / "drawn" / "judgments.parquet")["item_id"].to_pylist()
    assert drawn.queries == pq.read_table(tmp_path / "drawn" / "queries.parquet").num_rows and set(judged) <= ids
    (tmp_path / "queries.parquet").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not drawn by this command"):
        draw_catalog(tmp_path, items=1)
    assert (tmp_path / "queries.parquet").read_bytes() == b"precious"
