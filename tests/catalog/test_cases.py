"""Small catalogs as shops and other tools write them: every row is read right, or refused by id and reason.

The folder `shared/cases` stands beside the checkout; its README says what is right for each catalog.
"""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from tgq.catalog.examine import MISSING
from tgq.catalog.identity import MAX_ID
from tgq.catalog.ingest import _counts, examine, ingest
from tgq.catalog.reading.location import locate
from tgq.catalog.reading.source import open_source
from tgq.errors import SourceError
from tgq.metrics.gate import judge_change
from tgq.publishing.catalog_change import catalog_change
from tgq.run.night import Night
from tgq.settings.load import load_settings
from tgq.storage.warehouse import Warehouse

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the catalogs in shared/cases are not beside this checkout")


@dataclass
class Read:
    """What the ingest step makes of a catalog, before it is written."""

    rows: list[Any]
    notes: tuple[str, ...]
    staged: Any

    @property
    def counts(self) -> dict[str, Any]:
        return _counts(self.staged)

    @property
    def items(self) -> dict[str, Any]:
        return {r.item_id: r for r in self.rows if not r.reason}

    @property
    def refused(self) -> Counter:
        return Counter((r.item_id, r.reason) for r in self.rows if r.reason)


@pytest.fixture(scope="module")
def cases_warehouse(spark, tmp_path_factory, tables_in):
    from tgq.settings.sections import WarehouseSettings

    return Warehouse(spark, WarehouseSettings(path=str(tables_in(tmp_path_factory.mktemp("cases") / "warehouse"))))


@pytest.fixture
def make_night(spark, cases_warehouse):
    def make(case, conf=None, sets=(), run_id=None):
        folder = case if isinstance(case, Path) else CASES / case
        sets = [f"catalog.path={json.dumps(str(folder))}", f"warehouse.path={cases_warehouse.root}", *sets]
        settings = load_settings(["local", *([CASES / conf] if conf else [])], sets, {}).settings
        return Night(spark, settings, cases_warehouse, run_id or folder.name.replace(" ", "-"), datetime.now(timezone.utc))

    return make


@pytest.fixture
def read(make_night):
    """read(case, conf, sets): one verdict a row, as ingest stages them."""

    def read(case, conf=None, sets=()):
        night = make_night(case, conf, sets)
        location = locate(night.spark, night.settings.catalog)
        source = open_source(night.spark, night.settings.catalog, location)
        staged = examine(night, source, location)
        return Read(staged.collect(), source.notes, staged)

    return read


def copy_of(case: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(CASES / case, tmp_path / case, symlinks=True))


def said(notes: tuple[str, ...], *words: str) -> bool:
    return any(all(w in note for w in words) for note in notes)


def test_01_pictures_of_every_odd_kind(read, tmp_path):
    folder = copy_of("01-odd-pictures", tmp_path)
    table = pq.read_table(folder / "catalog.parquet")  # one path is absolute: it was written for a catalog in /tmp/cases
    moved = [uri and uri.replace("/tmp/cases", str(tmp_path)) for uri in table["image"].to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("image"), "image", [moved]), folder / "catalog.parquet")
    expected = json.loads((CASES / "01-expect.json").read_text())
    found = read(folder)
    assert len(found.rows) == len(expected)
    wrong = {}
    for row in found.rows:
        fate = row.reason or "embedded"
        wanted = expected[row.item_id]["want"]
        if fate != {"ok": "embedded"}.get(wanted, wanted) and wanted != "either":
            wrong[row.item_id] = (fate, wanted, row.detail)
    assert not wrong
    assert not [r.detail for r in found.rows if " at 0x" in (r.detail or "")], "a memory address stands in a reason"


@pytest.mark.parametrize("scheme", ["http:", ""])
def test_02_a_shopify_export_with_pictures_from_a_server(read, tmp_path, scheme):
    handler = partial(_Quiet, directory=str(CASES / "02-web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        folder = copy_of("02-shopify", tmp_path)
        table = next(folder.iterdir())
        text = table.read_bytes().decode("utf-8")
        table.write_bytes(text.replace("http://127", f"{scheme}//127").replace(":8765", f":{server.server_port}").encode())
        found = read(folder, "02.yaml")
    finally:
        server.shutdown()
    assert len(found.rows) == 36
    assert Counter(r.reason for r in found.rows) == Counter({"missing_id": 12, None: 24})
    first = found.items["'00000"]
    assert (first.title, first.brand, first.category) == ('Desk lamp 0" tall, "steel"', "Lumen & Co", "Home & Garden > Lighting > Lamps")
    assert all(r.image_hash for r in found.items.values())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_04_ids_of_every_kind(read):
    folder = next((CASES / "04-ids").iterdir())
    found = read(folder, "04.yaml")
    rows = pq.read_table(next(p for p in folder.iterdir() if p.suffix == ".parquet")).to_pylist()
    ids = [str(r["item_id"]).strip()[:MAX_ID] for r in rows]
    assert len(found.rows) == len(rows)
    twice = {i for i, n in Counter(ids).items() if n > 1}
    assert {i for i, reason in found.refused if reason == "duplicate_id"} == twice
    assert set(found.items) | {i for i, _ in found.refused} >= set(ids) - {""}


def test_05_attributes_that_differ_by_case(read):
    found = read("05-jsonl-attr-case")
    assert found.items["i000"].attributes == {"Color": "blue", "Size": "M"} and found.items["i001"].attributes == {"color": "red"}
    assert len(found.items) == 8


@pytest.mark.parametrize("case", ["06a-ns-timestamp", "06b-null-columns", "06c-float16", "06d-time64", "06f-uuid-id"])
def test_06_columns_of_odd_types(read, case):
    found = read(case)
    assert len(found.items) == len(found.rows) == 6 and found.items
    if case == "06f-uuid-id":
        assert all(len(i) == 36 for i in found.items)


def test_06_a_mapped_column_of_an_odd_type_is_read_as_text(read):
    found = read("06a-ns-timestamp", sets=["catalog.columns.brand=updated_at"])
    assert all(r.brand.startswith("20") for r in found.items.values())


def test_08_only_the_table_is_read_beside_pictures(read):
    assert len(read("08-pictures-beside-csv").items) == 6


def test_09_partition_values_keep_their_zeros(read):
    found = read("09-partitioned")
    assert {r.category for r in found.items.values()} == {"007", "013"} and len(found.items) == 8


@pytest.mark.parametrize("sets", [(), ("catalog.columns.image_bytes=image.bytes", "catalog.columns.image_uri=null")])
def test_10_a_struct_of_bytes_and_path(read, sets):
    found = read("10b-hf-struct-image", sets=sets)
    assert len(found.items) == 6 and all(r.image_hash for r in found.items.values())


def test_11_several_pictures_and_nested_categories(read):
    found = read("11-jsonl-arrays")
    assert {r.category for r in found.items.values()} == {"Home > Lamps"}
    assert found.counts["additional_images"] == 5
    item = found.items["i000"]
    assert item.image_uri.endswith("img/0a.jpg") and item.additional_images == ["img/0b.jpg"] and item.image_hash


def test_12_near_misses_are_matched_and_said(read):
    found = read("12a-header-case")
    assert all(r.title and r.brand for r in found.items.values()) and said(found.notes, "'Title'", "title") and said(found.notes, "'Brand'")
    blank = read("24-header-blank")
    assert all(r.brand and r.category for r in blank.items.values()) and said(blank.notes, "' brand'") and said(blank.notes, "'category '")
    with pytest.raises(SourceError, match="2 columns of .* could be 'title'"):
        read("12c-header-twice")


def test_13_words_that_mean_missing(read):
    found = read("13-nan-strings", "13.yaml")
    assert not {v for r in found.items.values() for v in (r.brand, r.title, r.group_id, r.category)} & {"nan", "None", "NULL"}
    assert found.counts["missing_words"] > 0
    kept = read("13-nan-strings", "13.yaml", ["catalog.missing=[]"])
    assert {v for r in kept.items.values() for v in (r.brand, r.title, r.group_id, r.category)} & {"nan", "None", "NULL"}


@pytest.mark.parametrize("case", ["14a-firehose", "14b-json-array"])
def test_14_objects_without_newlines_between(read, case):
    found = read(case)
    assert set(found.items) == {f"i{n:03}" for n in range(8)} and not found.refused


def test_15_tab_separated(read):
    found = read("15a-tsv-open-quote")
    assert len(found.rows) == 10 and found.refused == Counter({(MISSING, "malformed_row"): 1})
    [row] = [r for r in found.rows if r.reason]
    assert "i004" in json.loads(row.fields)["raw"] and "catalog.csv.quote" in row.detail
    assert len(read("15a-tsv-open-quote", sets=["catalog.csv.quote=null"]).items) == 10
    assert len(read("15b-tsv-folder").items) == 8
    assert all(r.title and r.brand for r in read("15c-feed-txt").items.values())


def test_16_an_encoding_is_named_or_detected(read):
    with pytest.raises(SourceError, match=r"line 2 of .*catalog.csv is not UTF-8 \(byte 0xfb\): set catalog.csv.encoding"):
        read("16b-csv-cp1252")
    found = read("16b-csv-cp1252", sets=["catalog.csv.encoding=cp1252"])
    assert len(found.items) == len(found.rows) and not any("\ufffd" in r.title for r in found.rows)
    wide = read("30-utf16-csv")
    assert len(wide.items) == 8 and wide.items["i3"].title == "thiné 3"


def test_17_columns_of_later_files_are_kept(read):
    found = read("17-parquet-evolved")
    assert len(found.items) == 8 and {bool(r.brand) for r in found.items.values()} == {True, False}
    assert said(found.notes, "no column for brand in part-0.parquet")


@pytest.mark.parametrize(("case", "conf"), [("19-float-pairs", "19.yaml"), ("21-padded-csv", "21.yaml")])
def test_19_and_21_pairs_join_the_catalogs_ids(make_night, case, conf):
    pairs = ingest(make_night(case, conf, ["pairs.test_share=1"])).figures["pairs"]
    assert pairs["table.test"] == pairs["rows"] - pairs.get("incomplete", 0) > 0


def test_20_a_catalog_that_vanished_overnight_is_not_published(make_night, tmp_path):
    """14a holds the items of 20-normal without newlines between; where only its first object arrived, seven of eight items are gone."""
    alone = ("pairs.source=none",)
    first = make_night("20-normal", sets=alone)
    ingest(first)
    warehouse = first.warehouse
    before = warehouse.version("catalog_items")
    folder = copy_of("14a-firehose", tmp_path)
    table = folder / "catalog.json"
    table.write_text(table.read_text().partition("}")[0] + "}")
    second = make_night(folder, sets=alone, run_id="second")
    result = ingest(second)
    pool = SimpleNamespace(active=result.rows_out, versions=warehouse.versions("catalog_items"))
    change = catalog_change(second, pool, SimpleNamespace(tables={"catalog_items": before}, run_id=first.run_id))
    assert (change.published, change.vanished) == (8, 7)
    verdict = judge_change(change, second.settings.gate.catalog_change)
    assert not verdict.passed and "7 of the 8 published items vanished" in verdict.reasons[0]
    planned = make_night(folder, sets=["gate.catalog_change.accept=true"]).settings
    assert judge_change(change, planned.gate.catalog_change).passed


def test_25_a_linked_folder_names_the_setting(read, tmp_path):
    folder = copy_of("25-linked-images", tmp_path)
    (folder / "images").symlink_to(CASES / "25-elsewhere")
    found = read(folder)
    assert {r.reason for r in found.rows} == {"path_outside_catalog"} and all("images.allowed_roots" in r.detail for r in found.rows)
    assert len(read(folder, sets=[f"images.allowed_roots=[{CASES / '25-elsewhere'}]"]).items) == len(found.rows)


def test_26_odd_text(read):
    found = read("26-odd-text")
    assert len(found.rows) == 9
    assert found.items["nanjson"].attributes == {"big": "123456789012345678901234567890"}
    assert {r for _, r in found.refused} <= {"bad_id", "bad_text"}


def test_31_other_csv_defaults_stay(read):
    for sets in ([], ["catalog.csv.sep=;"]):
        found = read("31-semicolon", sets=sets)
        assert len(found.items) == len(found.rows) == 6 and all(r.title for r in found.rows)


def test_32_one_bad_byte_costs_one_row(read):
    found = read("32-latin1-jsonl")
    assert found.counts["reasons"] == {"bad_text": 1} and len(found.items) == len(found.rows) - 1


def test_55_ids_of_two_types(read):
    found = read("55-parquet-two-types")
    assert len(found.items) == len(found.rows) == 5


def test_57_a_part_without_a_header_is_refused_by_name(read):
    with pytest.raises(SourceError, match="first line of .*part-ab names no column item_id"):
        read("57-split-csv")
