"""Titles of 100 MB, and packed feeds that never end: the row is refused for its length, or the file by its name, and its neighbours stay."""

import bz2
import gzip
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tgq.encoder.towers.text import TextTower
from tgq.errors import SourceError
from tgq.feeds.feed import inspect, read
from tgq.feeds.files import feed_files
from tgq.feeds.options import FeedOptions
from tgq.feeds.rows import LONGEST_ROW
from tgq.feeds.source_row import SourceRows
from tgq.feeds.values import LONGEST, TooLong, attributes, category, picture, text

OPTIONS = FeedOptions({name: (name,) for name in ("item_id", "title", "brand", "category", "attributes", "image_uri")}, frozenset({"title", "brand"}))
TITLE = "a" * 100_000_000
GOOD = {"item_id": "2", "title": "a shoe", "brand": "", "category": "", "attributes": "", "image_uri": "2.jpg"}


def rows_of(path) -> list[dict]:
    """The rows of a feed file in our columns, as a night reads them."""
    convert, format = SourceRows(OPTIONS), {".xml": "xml", ".parquet": "parquet", ".csv": "csv"}.get(path.suffixes[0], "jsonl")
    found = []
    for file in feed_files(str(path)):
        for part in inspect(file, format, OPTIONS).parts:
            found += [convert(raw, n) for n, raw in enumerate(read(part, format, OPTIONS))]
    return found


def written(tmp_path, name: str, rows: list[dict], opened=open):
    """A feed file with these rows, in the format that its name tells."""
    path = tmp_path / name
    if path.suffixes[0] == ".parquet":
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, path, use_dictionary="dictionary" in name, compression="zstd")
        return path
    with opened(path, "wt") as file:
        if path.suffixes[0] == ".csv":
            file.write(",".join(GOOD) + "\n")
            file.writelines(",".join(row.values()) + "\n" for row in rows)
        elif path.suffixes[0] == ".xml":
            items = ("".join(f"<{k}>{v}</{k}>" for k, v in row.items()) for row in rows)
            file.write(f"<rss><channel>{''.join(f'<item>{item}</item>' for item in items)}</channel></rss>")
        elif "array" in name:
            json.dump(rows, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


FEEDS = {
    "csv": ("a.csv", open), "csv-gzip": ("a.csv.gz", gzip.open), "csv-xz": ("a.csv.xz", lambda path, mode: lzma.open(path, mode, preset=0)),
    "csv-bz2": ("a.csv.bz2", lambda path, mode: bz2.open(path, mode, compresslevel=1)), "json-lines": ("a.jsonl", open),
    "json-array": ("array.json", open), "xml": ("a.xml", open), "parquet": ("a.parquet", open), "parquet-dictionary": ("dictionary.parquet", open),
}  # fmt: skip


@pytest.mark.parametrize(("name", "opened"), FEEDS.values(), ids=FEEDS)
def test_a_title_of_100_mb_is_refused_and_its_neighbour_is_not(tmp_path, name, opened):
    bad, good = rows_of(written(tmp_path, name, [GOOD | {"item_id": "1", "title": TITLE}, GOOD], opened))
    assert bad["reason"] == "text_too_long" and bad["detail"] == "title: 100,000,000 characters, above the limit of 4,000,000"
    assert bad["item_id"] == "1" and bad["title"] is None and len(bad["raw"]) <= 2000
    assert good["reason"] is None and good["title"] == "a shoe"


FIELDS = {
    "brand": {"brand": "b" * (LONGEST + 1)}, "category": {"category": "c" * (LONGEST + 1)}, "category-levels": {"category": ["c" * 1000] * 4001},
    "attributes-text": {"attributes": "d" * (LONGEST + 1)}, "attributes-json": {"attributes": json.dumps({"colour": "e" * LONGEST})},
    "attributes-many": {"attributes": {f"name {n}": "f" * 400 for n in range(10_000)}}, "image": {"image_uri": "g" * (LONGEST + 1)},
    "title-of-parts": {"title": ["h" * 1000] * 4001}, "title-of-bytes": {"title": {"inner": "i" * LONGEST}},
}  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_every_field_has_an_end(tmp_path, fields):
    bad, good = rows_of(written(tmp_path, "a.jsonl", [GOOD | {"item_id": "1"} | fields, GOOD]))
    assert bad["reason"] == "text_too_long" and "above the limit of 4,000,000" in bad["detail"] and good["reason"] is None


def test_an_id_that_is_too_long_is_refused_too(tmp_path):
    bad, good = rows_of(written(tmp_path, "a.jsonl", [GOOD | {"item_id": "1" * (LONGEST + 1)}, GOOD]))
    assert bad["reason"] == "text_too_long" and bad["item_id"] is None and good["item_id"] == "2"


def test_a_long_text_within_the_limit_is_kept():
    assert len(text("a" * LONGEST)) == LONGEST == len(category("a" * LONGEST, ">")) and picture("a" * LONGEST)[0]
    assert attributes({"a": "b" * (LONGEST - 1)}) == {"a": "b" * (LONGEST - 1)}
    with pytest.raises(TooLong):
        attributes({"a": "b" * LONGEST})


ENDLESS = "b" * (LONGEST_ROW + 2**20)


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_packed_line_without_an_end_is_one_refused_row(tmp_path, name):
    path = tmp_path / name
    head = ",".join(GOOD) if ".csv" in name else json.dumps(GOOD | {"item_id": "0"})
    last = ",".join(GOOD.values()) if ".csv" in name else json.dumps(GOOD)
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write(f"{head}\n{ENDLESS}\n{last}\n")
    assert path.stat().st_size < 2**20
    rows = rows_of(path)
    bad = next(row for row in rows if row["reason"])
    assert bad["reason"] == "malformed_row" and "of more than 128 MiB" in bad["detail"] and len(bad["raw"]) <= 2000
    assert rows[-1]["item_id"] == "2" and rows[-1]["reason"] is None


STARTS = {"json-array": ("array.json.gz", '[{"item_id": "1", "title": "'), "xml": ("a.xml.gz", "<rss><channel><item><title>")}


@pytest.mark.parametrize(("name", "start"), STARTS.values(), ids=STARTS)
def test_a_packed_object_without_an_end_refuses_the_file(tmp_path, name, start):
    path = tmp_path / name
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write(start + ENDLESS + ENDLESS)
    with pytest.raises(SourceError, match="of more than 128 MiB") as caught:
        rows_of(path)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_parquet_file_whose_rows_share_a_long_text_takes_the_memory_of_one(tmp_path):
    path = tmp_path / "dictionary.parquet"
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["s" * 5_000_000]))
    pq.write_table(pa.table({"item_id": [str(n) for n in range(5000)], "title": shared}), path, compression="zstd")
    assert path.stat().st_size < 2**20
    script = (  # in a process of its own, because a process tells only the most memory that it ever had
        "import resource, sys; from pathlib import Path; from tests.security.test_texts import rows_of\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert {row['reason'] for row in rows_of(Path(sys.argv[1]))} == {'text_too_long'}\n"
        "print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(run.stdout) < 2**28, "5,000 copies would take 25 GB"


XML = {
    "billion-laughs": ('<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><rss><item><id>&b;</id></item></rss>', "it defines entities"),
    "external-file": ('<!DOCTYPE r [<!ENTITY a SYSTEM "file:///etc/passwd">]><rss><item><id>&a;</id></item></rss>', "it defines entities"),
    "external-address": ('<!DOCTYPE r [<!ENTITY a SYSTEM "http://127.0.0.1/">]><rss><item><id>&a;</id></item></rss>', "it defines entities"),
    "parameter-entity": ('<!DOCTYPE r [<!ENTITY % a SYSTEM "http://127.0.0.1/">%a;]><rss><item/></rss>', "it defines entities"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), XML.values(), ids=XML)
def test_xml_that_defines_entities(tmp_path, content, said):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(SourceError, match=f"a.xml is refused: .*{said}"):
        rows_of(tmp_path / "a.xml")


def test_an_external_document_type_is_not_asked_for(tmp_path, attacker):
    (tmp_path / "a.xml").write_text(f'<!DOCTYPE r SYSTEM "http://127.0.0.1:{attacker.port}/x.dtd"><rss><item><item_id>1</item_id></item></rss>')
    assert rows_of(tmp_path / "a.xml")[0]["item_id"] == "1" and attacker.connections == 0


DEEP = 100_000
NESTED = {
    "json-line": ("a.jsonl", json.dumps(GOOD) + "\n" + '{"item_id": "1", "title": ' + "[" * DEEP + "]" * DEEP + "}\n"),
    "xml": ("a.xml", f"<rss><item><item_id>1</item_id>{'<b>' * DEEP}{'</b>' * DEEP}</item></rss>"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), NESTED.values(), ids=NESTED)
def test_a_row_that_is_nested_too_deeply(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    bad = next(row for row in rows_of(tmp_path / name) if row["reason"])
    assert (bad["reason"], bad["detail"]) == ("malformed_row", "nested too deeply")


def test_a_tokenizer_sees_no_more_of_a_text_than_the_model_can_use(tiny_encoder_dir):
    tower = TextTower("towers/text", 16, tiny_encoder_dir)
    assert tower._tokenized(["shoe " * 200_000])["input_ids"].tolist() == tower._tokenized(["shoe " * 100])["input_ids"].tolist()
