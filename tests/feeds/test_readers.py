"""Every row of a generated file comes out once, whole or with a reason. The oracle is the list that was written."""

import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgq.errors import SourceError
from tgq.feeds.feed import inspect, read
from tgq.feeds.files import feed_files
from tgq.feeds.options import CsvOptions, FeedOptions

FIELDS = ("item_id", "title", "brand")
OPTIONS = FeedOptions({name: (name,) for name in FIELDS}, frozenset(FIELDS[1:]))
CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
ROWS = st.lists(st.tuples(st.integers().map(lambda n: f"id{n}"), CELL, CELL), min_size=1, max_size=12)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows_of(path, format, options=OPTIONS):
    return [row for file in feed_files(str(path)) for part in inspect(file, format, options).parts for row in read(part, format, options)]


def cells(rows):
    return [tuple(row.values.get(name) for name in FIELDS) for row in rows if not row.reason]


def written(path, rows, **dialect):
    out = io.StringIO(newline="")
    writer = csv.writer(out, **dialect)
    writer.writerow(FIELDS)
    writer.writerows(rows)
    path.write_bytes(out.getvalue().encode())


@quick
@given(ROWS, st.sampled_from(",;\t|"), st.sampled_from(["\r\n", "\n"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_csv_of_any_cells(tmp_path, rows, sep, end, quoting):
    if quoting == csv.QUOTE_MINIMAL:  # Python's writer leaves a lone CR unquoted, where it ends the line
        rows = [tuple(cell.replace("\r", " ") for cell in row) for row in rows]
    written(tmp_path / "a.csv", rows, delimiter=sep, lineterminator=end, quoting=quoting)
    found = rows_of(tmp_path / "a.csv", "csv")
    assert not [r for r in found if r.reason] and cells(found) == rows


@quick
@given(st.lists(st.tuples(st.sampled_from(["good", "short", "long", "quote", "tail"]), st.integers(0, 99)), min_size=1, max_size=15))
def test_each_broken_csv_line_costs_one_row(tmp_path, kinds):
    """A quote that opens and never closes swallows nothing: each line is one row, good or refused with its text."""
    lines, good = ["item_id,title,brand"], []
    for kind, n in kinds:
        line = {"good": f"i{n},t,b", "short": f"i{n},t", "long": f"i{n},t,b,c", "quote": f'i{n},"t,b', "tail": f'i{n},"t"x,b'}[kind]
        lines.append(line)
        if kind == "good":
            good.append((f"i{n}", "t", "b"))
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found = rows_of(tmp_path / "a.csv", "csv")
    assert len(found) == len(kinds)
    assert cells(found) == good
    assert [r.raw.strip() for r in found if r.reason] == [line for line, (kind, _) in zip(lines[1:], kinds, strict=True) if kind != "good"]


def test_two_stray_quotes_do_not_make_one_cell_of_the_rows_between(tmp_path):
    (tmp_path / "a.csv").write_text('item_id,title,brand\n1,"lamp 5,b\n2,lamp 6",b\n3,lamp,b\n')
    found = rows_of(tmp_path / "a.csv", "csv")
    assert [r.values.get("item_id") for r in found] == [None, "2", "3"] and found[0].reason == "malformed_row"


def test_a_long_quoted_text_is_one_cell_up_to_the_limit(tmp_path):
    text = "\n".join(f"line {n}" for n in range(50))
    written(tmp_path / "a.csv", [("1", text, "b"), ("2", "t", "b")])
    assert cells(rows_of(tmp_path / "a.csv", "csv")) == [("1", text, "b"), ("2", "t", "b")]
    short = FeedOptions(OPTIONS.columns, OPTIONS.optional, csv=CsvOptions(max_cell_lines=20))
    found = rows_of(tmp_path / "a.csv", "csv", short)
    assert cells(found) == [("2", "t", "b")] and len(found) == 51 and all("catalog.csv.quote" in found[0].detail for _ in found[:1])


@quick
@given(ROWS, st.integers(1, 40))
def test_a_csv_cut_into_ranges_gives_the_same_rows(tmp_path, rows, size):
    rows = [tuple(c.replace("\n", " ").replace("\r", " ").replace("\x85", " ") for c in row) for row in rows]
    written(tmp_path / "a.csv", rows, lineterminator="\n")
    options = FeedOptions(OPTIONS.columns, OPTIONS.optional, csv=CsvOptions(multiline=False), part_bytes=size)
    assert cells(rows_of(tmp_path / "a.csv", "csv", options)) == rows


def test_csv_parts_are_read_by_name(tmp_path):
    (tmp_path / "1.csv").write_text("item_id,title,brand\n1,t,b\n")
    (tmp_path / "2.csv").write_text("brand,item_id,title\nb,2,t\n")
    (tmp_path / "3.csv").write_text("Item_ID ,title\n3,t\n")
    found = rows_of(tmp_path, "csv")
    assert cells(found)[:2] == [("1", "t", "b"), ("2", "t", "b")] and found[2].values == {"Item_ID ": "3", "title": "t"}
    (tmp_path / "4.csv").write_text("4,t,b\n")
    with pytest.raises(SourceError, match="4.csv names no column item_id; it is: 4,t,b"):
        rows_of(tmp_path, "csv")


def test_the_line_by_which_excel_tells_the_separator_is_no_header(tmp_path):
    (tmp_path / "a.csv").write_text('sep=;\r\nitem_id;title;brand\r\n1;t;"b;b"\r\n', newline="")
    assert cells(rows_of(tmp_path / "a.csv", "csv")) == [("1", "t", "b;b")]


JSON = st.recursive(st.none() | st.booleans() | st.integers() | CELL, lambda v: st.lists(v, max_size=3) | st.dictionaries(CELL, v, max_size=3), max_leaves=5)
OBJECTS = st.lists(st.dictionaries(CELL, JSON, max_size=3), min_size=1, max_size=10)


@quick
@given(OBJECTS, st.data())
def test_json_objects_however_they_are_separated(tmp_path, objects, data):
    """By newlines, blanks, commas or nothing; as one array; over several lines. A part ends where a line ends."""
    texts = [json.dumps(o, ensure_ascii=data.draw(st.booleans())) for o in objects]
    shape = data.draw(st.sampled_from(["lines", "glued", "array", "pretty array"] + ["pretty"] * bool(objects[0])))
    text = {
        "lines": "\n".join(texts), "array": "[" + ", ".join(texts) + "]", "pretty array": json.dumps(objects, indent=2),
        "pretty": "\n".join(json.dumps(o, indent=1) for o in objects),
        "glued": "".join(t + data.draw(st.sampled_from(["", " ", "\n", "\r\n", ","])) for t in texts),
    }[shape]  # fmt: skip
    (tmp_path / "a.json").write_text(text, encoding="utf-8", newline="")
    options = FeedOptions(OPTIONS.columns, OPTIONS.optional, part_bytes=data.draw(st.integers(5, 60)))
    found = rows_of(tmp_path / "a.json", "jsonl", options)
    assert [r.values for r in found] == objects and not any(r.reason for r in found)


@quick
@given(st.lists(st.sampled_from(['{"item_id": 1}', '{"item_id": ', "hello", '{"item_id": 1}{"item_id": 2}', "[1]"]), min_size=2, max_size=9))
def test_each_broken_json_line_costs_one_row(tmp_path, lines):
    (tmp_path / "a.jsonl").write_text('{"item_id": 0}\n' + "\n".join(lines))
    found = rows_of(tmp_path / "a.jsonl", "jsonl")
    whole = sum(line.count("}") for line in lines)
    assert sum(not r.reason for r in found) == 1 + whole and sum(bool(r.reason) for r in found) == sum("}" not in line for line in lines)


@pytest.mark.parametrize("text, said", [
    ('[{"item_id": 1}, {"item_id": 2}', "line 1: the array is not closed"),
    ('[{"item_id": 1},\n {"item_id": }]', "line 2: an object is broken"),
    ('[{"item_id": 1}]\n\n{"item_id": 2}', "something stands behind the array"),
    ('{\n "item_id": 1\n}\n{\n "item_id": \n}', "an object is broken"),
])  # fmt: skip
def test_json_that_breaks_off_is_refused_whole(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    if "behind" in said:  # lines of which one is an array: nothing is lost
        assert [r.values["item_id"] for r in rows_of(tmp_path / "a.json", "jsonl")] == [1, 2]
        return
    with pytest.raises(SourceError, match=said):
        rows_of(tmp_path / "a.json", "jsonl")


@quick
@given(ROWS, st.integers(1, 5))
def test_parquet_in_row_groups(tmp_path, rows, group):
    table = pa.table({name: [row[n] for row in rows] for n, name in enumerate(FIELDS)} | {"odd": pa.array([1] * len(rows), pa.timestamp("ns"))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=group)
    options = FeedOptions(OPTIONS.columns, OPTIONS.optional, part_bytes=1)
    file = feed_files(str(tmp_path / "a.parquet"))[0]
    assert len(inspect(file, "parquet", options).parts) == -(-len(rows) // group)
    found = rows_of(tmp_path / "a.parquet", "parquet", options)
    assert cells(found) == rows and "odd" not in found[0].values


def test_text_that_is_not_utf8_stays_in_its_row(tmp_path):
    bad = pa.array([b"good", b"b\xe9d"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"item_id": ["1", "2"], "title": bad}), tmp_path / "a.parquet")
    assert [r.values["title"] for r in rows_of(tmp_path / "a.parquet", "parquet")] == ["good", "b\udce9d"]


def test_compressed_files_and_damaged_ones(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"item_id,title,brand\n1,t,b\n"))
    assert cells(rows_of(tmp_path / "a.csv.gz", "csv")) == [("1", "t", "b")]
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"item_id,title,brand\n" + b"1,t,b\n" * 9999)[:-20])
    with pytest.raises(SourceError, match=r"a\.csv\.gz"):
        rows_of(tmp_path / "a.csv.gz", "csv")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing PAR1")
    with pytest.raises(SourceError, match="a.parquet cannot be read as Parquet"):
        rows_of(tmp_path / "a.parquet", "parquet")


FEED = """<?xml version="1.0"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel><title>Shop</title>
<item><g:id>1</g:id><title>Lamp &amp; shade</title><g:additional_image_link>a.jpg</g:additional_image_link>
<g:additional_image_link>b.jpg</g:additional_image_link><g:shipping><g:country>DE</g:country></g:shipping></item>
<item><g:id>2</g:id></item></channel></rss>"""


def test_product_xml(tmp_path):
    (tmp_path / "feed.xml").write_text(FEED)
    first, second = rows_of(tmp_path / "feed.xml", "xml")
    assert first.values == {"id": "1", "title": "Lamp & shade", "additional_image_link": ["a.jpg", "b.jpg"], "shipping": {"country": "DE"}}
    assert second.values == {"id": "2"}
    (tmp_path / "feed.xml").write_text(FEED.replace("</channel>", ""))
    with pytest.raises(SourceError, match="not well-formed"):
        rows_of(tmp_path / "feed.xml", "xml")
    bomb = '<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><rss><item><id>&b;</id></item></rss>'
    (tmp_path / "feed.xml").write_text(bomb)
    with pytest.raises(SourceError, match="refused: it defines entities"):
        rows_of(tmp_path / "feed.xml", "xml")


@pytest.mark.parametrize("data, setting, said", [
    (b"item_id,title\n1,caf\xe9\n", None, r"line 2 of .* is not UTF-8 \(byte 0xe9\): set catalog.csv.encoding"),
    ("item_id,title\n1,café\n".encode("utf-16-le"), None, "zero bytes.*utf-16-le"),
    (b"item_id,title\n1,x\n", "klingon", "'klingon', which is no known encoding"),
    ("item_id,title\n1,café\n".encode("utf-16"), None, None), ("item_id,title\n1,café\n".encode("utf-8-sig"), None, None),
    (b"item_id,title\n1,caf\xe9\n", "cp1252", None), ("item_id,title\n1,café\n".encode("utf-16-le"), "utf-16-le", None),
])  # fmt: skip
def test_encodings(tmp_path, data, setting, said):
    (tmp_path / "a.csv").write_bytes(data)
    options = FeedOptions(OPTIONS.columns, OPTIONS.optional, encoding=setting)
    if said is None:
        assert [r.values for r in rows_of(tmp_path / "a.csv", "csv", options)] == [{"item_id": "1", "title": "café"}]
        return
    with pytest.raises(SourceError, match=said):
        rows_of(tmp_path / "a.csv", "csv", options)


def test_one_bad_byte_among_good_characters_is_one_row(tmp_path):
    (tmp_path / "a.csv").write_bytes("item_id,title\n1,café\n2,".encode() + b"\xe9\n")
    assert [r.values["title"] for r in rows_of(tmp_path / "a.csv", "csv")] == ["café", "\udce9"]


def test_folders(tmp_path):
    for name in ("category=007/a.csv", "category=__HIVE_DEFAULT_PARTITION__/b.csv", "._c.csv", "_SUCCESS", "other/d.csv", "picture.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("item_id\n1\n")
    files = feed_files(str(tmp_path), frozenset({".csv"}))
    assert [f.partition for f in files] == [(("category", "007"),), (("category", None),)]
    assert [r.values for f in files for p in inspect(f, "csv", OPTIONS).parts for r in read(p, "csv", OPTIONS)] == [
        {"item_id": "1", "category": "007"}, {"item_id": "1", "category": None},
    ]  # fmt: skip
