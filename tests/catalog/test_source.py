"""One catalog in every format that is read, and every way in which a catalog cannot be."""

import base64
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.catalog.fields import encoder_texts
from tgq.catalog.reading.location import Location, fetch_options, folder_of, locate  # fmt: skip
from tgq.catalog.reading.source import open_columns, open_source
from tgq.errors import SourceError
from tgq.feeds.values import attributes as flat_attributes
from tgq.feeds.values import category_path
from tgq.images.decode import ImageError
from tgq.settings.sections import CatalogSettings, ColumnMapping, ImageSettings, MetadataSettings

OPTIONAL = ("title", "brand", "category", "attributes", "image_uri", "image_bytes", "group_id", "variant_id")
COLUMNS = ColumnMapping(group_id="group_id", variant_id="variant_id")
ROWS = [
    {"item_id": "a/1", "title": 'A "red", shoe\nof two lines', "category": "Shoes>  Sport >", "attributes": '{"color": "red", "sizes": [38, 39.0]}',
     "image": "images/1.jpg", "group_id": "g"},
    {"item_id": "b", "title": " ", "category": None, "attributes": None, "image": None, "group_id": "g"},
]  # fmt: skip


def settings(path, **more) -> CatalogSettings:
    return CatalogSettings(**{"path": str(path), "columns": COLUMNS, "optional_columns": OPTIONAL, **more})


def rows(spark, path, **more) -> list[dict]:
    return sorted((r.asDict() for r in open_source(spark, settings(path, **more)).frame.collect()), key=lambda r: r["item_id"])


@pytest.mark.parametrize("kind", ["parquet", "delta", "csv", "jsonl"])
def test_every_format_gives_the_same_rows(spark, tmp_path, kind):
    frame, folder = pd.DataFrame(ROWS), tmp_path / "shoes [new] 100%"
    folder.mkdir()
    if kind == "parquet":
        frame.to_parquet(folder / "catalog.parquet")
    elif kind == "delta":
        spark.createDataFrame(frame).write.format("delta").save(f"file:{folder}/catalog.parquet")
    elif kind == "csv":
        frame.to_csv(folder / "catalog.csv", index=False, quotechar='"', encoding="utf-8-sig")  # as spreadsheets write it
    else:
        frame.to_json(folder / "catalog.jsonl", orient="records", lines=True)
    first, second = rows(spark, folder)
    assert first["title"] == ROWS[0]["title"]
    assert (first["category"], first["image_uri"], first["group_id"]) == ("Shoes > Sport", "images/1.jpg", "g")
    assert first["attributes"] == {"color": "red", "sizes": "38, 39"}
    assert {k: second[k] for k in ("title", "category", "attributes", "image_uri", "image_bytes", "variant_id", "slices")} \
        == dict.fromkeys(("title", "category", "attributes", "image_uri", "image_bytes", "variant_id", "slices"))  # fmt: skip


def test_typed_columns(spark, tmp_path):
    """Whole numbers as ids, levels as an array, attributes as a struct, slices of any type, base64 pictures, odd names."""
    table = pa.table({
        "Item No.": pa.array([12.0, None, 13.5], pa.float64()),
        "path": pa.array([["A/B", " C "], None, []], pa.list_(pa.string())),
        "spec": [{"w": 3.0, "in": {"x": [1, 2]}}, None, {"w": float("nan"), "in": None}],
        "b64": [base64.b64encode(b"\xff\xd8").decode(), None, "not base64!"],
        "overlay": [True, False, None],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "items.parquet")
    mapping = ColumnMapping(item_id="Item No.", category="path", attributes="spec", image_bytes="b64")
    found = open_source(spark, settings(tmp_path / "items.parquet", columns=mapping, slice_columns=("overlay",), category_separator="/")).frame.collect()
    assert [r.item_id for r in found] == ["12", None, "13.5"]
    assert [r.category for r in found] == ["A/B > C", None, None]
    assert [r.attributes for r in found] == [{"in.x": "1, 2", "w": "3"}, None, {}]
    assert [r.image_bytes and bytes(r.image_bytes) for r in found] == [b"\xff\xd8", None, b"not base64!"]
    assert [r.slices for r in found] == [{"overlay": "true"}, {"overlay": "false"}, {"overlay": None}]


def test_a_broken_json_line_is_kept_as_text(spark, tmp_path):
    (tmp_path / "items.jsonl").write_text('{"item_id": 7, "title": "x"}\n{"item_id": 8, "title"\n')
    found = open_source(spark, settings(tmp_path / "items.jsonl")).frame.collect()
    assert [(r.item_id, r.reason, r.raw) for r in found] == [("7", None, None), (None, "malformed_row", '{"item_id": 8, "title"')]


def test_where_images_are_relative_to(spark, tmp_path):
    pd.DataFrame(ROWS).to_parquet(tmp_path / "catalog.parquet")
    here = Location(f"file:{tmp_path}/catalog.parquet", "parquet", str(tmp_path))
    assert locate(spark, settings(tmp_path)) == locate(spark, settings(tmp_path / "catalog.parquet")) == here
    assert locate(spark, settings(tmp_path.as_uri() + "/")) == here
    assert here.resolve("images/1.jpg") == f"{tmp_path}/images/1.jpg"
    assert here.resolve("s3://b/1.jpg") == "s3://b/1.jpg"
    assert folder_of(spark, settings(tmp_path)) == folder_of(spark, settings((tmp_path / "catalog.parquet").as_uri())) == str(tmp_path)
    assert fetch_options(here.folder, ImageSettings(allowed_roots=("/other",))).allowed_roots == (str(tmp_path), "/other")
    remote = Location("s3a://b/shop/catalog.parquet", "parquet", "s3a://b/shop")
    assert remote.resolve("images/../1.jpg") == "s3a://b/shop/1.jpg"
    with pytest.raises(ImageError, match="path_outside_catalog"):
        remote.resolve("images/../../else/1.jpg")


def damaged(folder):
    (folder / "catalog.parquet").write_bytes(b"PAR1 and then nothing of use PAR1")


def two_tables(folder):
    (folder / "a.csv").write_text("item_id\n1\n")
    (folder / "b.parquet").write_bytes(b"")


def whole(folder):
    pd.DataFrame(ROWS).to_parquet(folder / "catalog.parquet")


def ids_only(folder):
    pd.DataFrame({"item_id": ["1"], "sku": ["x"]}).to_parquet(folder / "catalog.parquet")


def no_json(folder):
    (folder / "catalog.jsonl").write_text("hello\nworld\n")


@pytest.mark.parametrize("make, more, said", [
    (None, {"path": None}, "catalog.path is not set"),
    (None, {"path": "/no/such/folder"}, "no catalog at /no/such/folder"),
    (None, {"path": "s4://bucket/catalog"}, "cannot be read.*s4"),
    (None, {}, "no catalog.parquet and no other table"),
    (two_tables, {}, "more than one kind of table .a.csv, b.parquet"),
    (damaged, {}, "cannot be read"),
    (no_json, {}, "nothing that reads as jsonl"),
    (ids_only, {}, "none of the mapped columns.*item_id, sku"),
    (whole, {"columns": ColumnMapping(title="titel")}, "catalog.columns.title names the column 'titel'.*its columns are item_id, title"),
    (whole, {"columns": COLUMNS, "optional_columns": ()}, "catalog.columns.brand names the column 'brand'"),
    (whole, {"slice_columns": ("overlay",)}, "catalog.slice_columns names overlay"),
    (whole, {"columns": ColumnMapping(image_bytes="title", category="item_id", group_id=None)}, None),
])  # fmt: skip
def test_what_spoils_a_night_is_said_in_one_line_at_once(spark, tmp_path, make, more, said):
    if make:
        make(tmp_path)
    catalog = settings(**{"path": tmp_path, **more}) if more.get("path", "") is not None else CatalogSettings()

    def read():
        return open_source(spark, catalog).frame.count()

    if said is None:
        assert read() == 2
        return
    with pytest.raises(SourceError, match=said) as caught:
        read()
    assert "\n" not in str(caught.value) and caught.value.do and "Exception" not in str(caught.value)


def test_a_table_beside_the_catalog_is_named_by_its_setting(spark, tmp_path):
    with pytest.raises(SourceError, match="pairs.path: no catalog at"):
        open_columns(spark, CatalogSettings(path=str(tmp_path / "none.csv")), {"query": ("a",)}, "pairs.path")


def test_category_path():
    assert category_path("a>b / c> >", ">") == "a > b / c"
    assert category_path("Cafe\u0301 / Tea ", "/") == "Café > Tea"
    assert category_path(None, ">") is category_path(" > ", ">") is None


@pytest.mark.parametrize("text, expected", [
    (None, None), (" ", None), ("null", None), ("{}", {}),
    ('{"b": 1.0, "a": [1.5, "x", null], "c": null, "d": true, "e": ""}', {"a": "1.5, x", "b": "1", "d": "true"}),
    ('{"m": {"n": {"o": 1}}, "l": [{"p": 2}, {"q": 3}]}', {"l": "p: 2, q: 3", "m.n.o": "1"}),
    ('{"x": NaN, "y": "NaN", "z": 12345678901234567890}', {"z": "12345678901234567890"}),
    ("red, size 4", {"text": "red, size 4"}), ("{'a': 1}", {"text": "{'a': 1}"}), ("[1, 2]", {"text": "1, 2"}), ("5", {"text": "5"}),
    ("[" * 100_000, {"text": "[" * 100_000}),
])  # fmt: skip
def test_flat_attributes(text, expected):
    assert flat_attributes(text) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_attributes_are_always_flat_text_in_order(value):
    flat = flat_attributes(json.dumps(value))
    assert list(flat) == list(flat_attributes(json.dumps(dict(reversed(value.items())))))
    assert all(isinstance(v, str) and k and v and v == v.strip() for k, v in flat.items())


@given(st.text(max_size=30))
def test_any_text_reads_as_attributes(text):
    flat = flat_attributes(text)
    assert flat is None or all(isinstance(v, str) and v for v in flat.values())


def test_masking_leaves_only_what_was_chosen():
    row = {"title": "T", "brand": "B", "category": "a > b > c", "attributes": {"color": "red", "style": "S"}}
    assert encoder_texts(row, MetadataSettings()) == ("T | B | a > b > c | color: red, style: S", "T")
    masked = MetadataSettings(fields=("category", "attributes"), category_levels=2, attributes=("color",))
    assert encoder_texts(row, masked) == ("a > b | color: red", "")
    assert encoder_texts(row, MetadataSettings(fields=())) == ("", "")
