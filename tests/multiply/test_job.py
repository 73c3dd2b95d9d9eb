"""Catalogs that are multiplied: every row is there and true, a night reads them, and what cannot be used is named."""

import io
import json
from collections import Counter
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tgq.catalog.ingest import ingest
from tgq.cli import app as cli
from tgq.demo.catalog import draw_catalog
from tgq.errors import SourceError, UsageError
from tgq.multiply import job
from tgq.multiply.folder import LEFT_OUT, PROFILE, SOURCE, TABLE, TITLE, OutFolder
from tgq.multiply.job import multiply
from tgq.multiply.options import Options
from tgq.multiply.row import ROW, SLICES
from tgq.multiply.sampling import CAST, Sampling
from tgq.run.night import Night
from tgq.run.progress import Silent
from tgq.settings.load import load_settings

ITEMS, BAD, ROWS = 30, 9, 100
REASONS = {
    "duplicate_id": 2, "missing_id": 1, "truncated": 1, "not_an_image": 1, "path_outside_catalog": 1, "no_image": 1, "decompression_bomb": 1,
    "not_found": 1, "unsupported_scheme": 1,
}  # fmt: skip
OPTIONS = Options(ROWS, size=64, wrong_titles=0.3, seed=5)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "demo"
    draw_catalog(folder, items=ITEMS, seed=2, size=64, workers=1, bad_rows=BAD)
    table = pq.read_table(folder / "catalog.parquet")
    coarse = [{**row, "category": row["category"] and row["category"].split(" > ")[0]} for row in table.to_pylist()]  # several groups in each
    pq.write_table(pa.Table.from_pylist(coarse, table.schema), folder / "catalog.parquet")
    return folder


def settings_of(folder, *profiles, **sets):
    return load_settings(["local", *profiles], [f"catalog.path={folder}", *(f"{key}={value}" for key, value in sets.items())], environ={}).settings


def multiplied(spark, shop, out, options=OPTIONS, **sets):
    report = multiply(spark, settings_of(shop, "catalogs/demo", **sets), options, OutFolder(str(out)), Silent())
    return report, rows_of(out)


def rows_of(out):
    return {row["item_id"]: row for row in pq.read_table(out / TABLE).to_pylist()}


@pytest.fixture(scope="module")
def done(spark, shop, tmp_path_factory):
    out = tmp_path_factory.mktemp("multiplied") / "out"
    return out, *multiplied(spark, shop, out)


def test_every_usable_item_is_shown_equally_often_and_the_others_are_named(shop, done):
    out, report, rows = done
    usable = ITEMS - 1  # the id of one stands on two rows
    assert report.rows == len(rows) == ROWS and report.used == report.usable == usable
    shown = Counter(row["parent_id"] for row in rows.values())
    assert set(shown.values()) == {ROWS // usable, ROWS // usable + 1}
    assert all(item == f"{row['parent_id']}#{n}" for item, row in rows.items() for n in [item.rpartition("#")[2]] if int(n) < shown[row["parent_id"]])
    assert report.left_out == REASONS and list(report.left_out)[0] == "duplicate_id"
    lost = [json.loads(line) for file in (out / LEFT_OUT).glob("part-*") for line in file.read_text().splitlines()]
    assert Counter(row["reason"] for row in lost) == REASONS and all(row["item_id"] and row["detail"] for row in lost)
    said = "\n".join(report.lines("out"))
    scenes, alike = (report.traits[name] for name in ("scenes", "of these with the item's category"))
    assert f"{ROWS} rows of {usable} items in out: scenes {scenes} ({scenes}%), of these with the item's category {alike} ({alike / scenes:.0%}), " in said
    assert "left out: 10 (duplicate_id 2, " in said
    assert len(report.named) == 10 and all(f"  {row['item_id']}: {row['reason']} (" in said for row in lost)
    assert not (out / "_staging").exists() and (out / SOURCE).read_text().startswith(TITLE + "\n")


def test_the_rows_are_true(shop, done):
    _, report, rows = done
    source = {row["item_id"]: row for row in pq.read_table(shop / "catalog.parquet").to_pylist()}
    groups = {row["title"]: row["group_id"] for row in source.values()}
    for row in rows.values():
        parent = source[row["parent_id"]]
        assert (row["true_title"], row["group_id"], row["category"]) == (parent["title"], parent["group_id"], parent["category"])
        assert row["brand"] in (parent["brand"] or None, None) and dict(row["attributes"]).items() <= json.loads(parent["attributes"]).items()
        assert row["title"] == row["true_title"] or groups[row["title"]] != row["group_id"]
        assert Image.open(io.BytesIO(row["image_bytes"])).size == (64, 64) and 0 <= min(row["box"]) < max(row["box"]) <= 1
        assert not row["same_category"] or row["distractors"]
    truth = {
        "scenes": lambda row: row["distractors"] > 0, "of these with the item's category": lambda row: row["same_category"],
        "banners": lambda row: row["overlay"], "other backgrounds": lambda row: row["background"] != "plain",
        "wrong titles": lambda row: row["title"] != row["true_title"],
    }  # fmt: skip
    assert report.traits == {name: sum(map(holds, rows.values())) for name, holds in truth.items()}
    assert all(0.05 * ROWS < count < 0.8 * ROWS for count in report.traits.values())


def test_rows_depend_neither_on_the_order_of_the_source_nor_on_the_tasks(spark, shop, done, tmp_path, monkeypatch):
    table = pq.read_table(shop / "catalog.parquet")
    backwards = tmp_path / "backwards"
    for n, part in enumerate((table.slice(0, 11), table.slice(11))):
        (backwards / "catalog.parquet").mkdir(parents=True, exist_ok=True)
        pq.write_table(part.take(list(range(part.num_rows))[::-1]), backwards / "catalog.parquet" / f"part-{9 - n}.parquet")
    (backwards / "images").symlink_to(shop / "images")
    monkeypatch.setattr(job, "_chunk_rows", lambda work: 5)
    monkeypatch.setattr(job, "FILE_ROWS", 20)
    _, rows = multiplied(spark, backwards, tmp_path / "again", **{"images.allowed_roots": f"[{shop}]"})
    assert len(list((tmp_path / "again" / TABLE).glob("part-*"))) > len(list((done[0] / TABLE).glob("part-*")))
    assert rows == done[2]


def test_a_night_reads_it_with_its_profile_whatever_profile_comes_before(spark, done, warehouse):
    out, _, rows = done
    for before in ((), ("catalogs/shopify",)):
        settings = settings_of(out, *before, str(out / PROFILE), **{"warehouse.path": warehouse.root})
        assert settings.catalog.columns.image_uri is None and set(SLICES) <= set(settings.evaluate.slices)
        assert settings.metadata.fields == ("title", "brand", "category", "attributes")
    night = Night(spark, settings, warehouse, "night-1", datetime.now(timezone.utc))
    result = ingest(night)
    assert (result.rows_in, result.rows_out, result.quarantined) == (ROWS, ROWS, 0) and result.figures["pairs"]
    for item in warehouse.read("catalog_items").collect():
        row = rows[item.item_id]
        told = {"overlay": str(row["overlay"]).lower(), "background": row["background"], "distractors": str(row["distractors"])}
        assert item.slices == told | {"same_category": str(row["same_category"]).lower()} and bytes(item.image_bytes) == row["image_bytes"]
        assert (item.title, item.brand, item.attributes) == (row["title"], row["brand"], dict(row["attributes"]))


def test_fewer_rows_than_items_and_many_rows_of_one(spark, shop, tmp_path):
    report, rows = multiplied(spark, shop, tmp_path / "few", Options(7, size=32))
    assert report.rows == report.used == len({row["parent_id"] for row in rows.values()}) == 7 and report.usable == ITEMS - 1
    one = tmp_path / "one"
    one.mkdir()
    pq.write_table(pq.read_table(shop / "catalog.parquet").slice(3, 1), one / "catalog.parquet")
    (one / "images").symlink_to(shop / "images")
    report, rows = multiplied(spark, one, tmp_path / "many", Options(600, size=32, scenes=1), **{"images.allowed_roots": f"[{shop}]"})
    assert (report.rows, report.used, report.left_out, report.traits["scenes"]) == (600, 1, {}, 0), "there is nothing to stand beside it"
    assert sorted(int(item.rpartition("#")[2]) for item in rows) == list(range(600))


def test_a_cast_has_every_group_before_it_has_one_twice(spark):
    items = [(f"a{n}", "large", "A") for n in range(200)] + [(f"b{n}", f"small{n % 3}", "A") for n in range(6)] + [("c", "c", None), ("d", "d", "D")]
    sampling = Sampling.of(spark.createDataFrame(items, "item_id string, group_id string, category string"), 20, seed=0)
    cast = {row["item_id"]: row for row in sampling.cast().collect()}
    assert sampling.items == 208 and Counter(row["category"] for row in cast.values()) == {"A": CAST, "": 1, "D": 1}
    first = [item for item, row in cast.items() if row["category"] == "A" and row["rank"] <= 4]
    assert {item[0] for item in first} == {"a", "b"} and len({int(item[1:]) % 3 for item in first if item[0] == "b"}) == 3
    assert {f"b{n}" for n in range(6)} <= set(cast) and sampling.pool().count() == len(cast)


def test_a_catalog_without_usable_pictures_is_one_error_and_nothing_is_replaced(spark, shop, tmp_path, done):
    table = pq.read_table(shop / "catalog.parquet").slice(0, 3)
    (tmp_path / "gone").mkdir()
    pq.write_table(table, tmp_path / "gone" / "catalog.parquet")
    out = tmp_path / "out"
    multiplied(spark, shop, out, Options(3, size=32))
    before = rows_of(out)
    with pytest.raises(SourceError, match=r"none of the 3 rows of .*gone has a picture that can be used \(not_found 3\): check the pictures"):
        multiplied(spark, tmp_path / "gone", out)
    assert rows_of(out) == before and not (out / "_staging").exists()


def test_only_a_folder_of_its_own_is_replaced_and_only_when_told(tmp_path):
    folder, out = OutFolder(str(tmp_path / "out")), tmp_path / "out"
    folder.check("demo", force=False)
    folder.begin()
    folder.check("demo", force=False)  # one that is not finished is begun again
    folder.clear()
    folder.finish("a: 1\n", "rows\n")
    (out / TABLE).mkdir()
    with pytest.raises(UsageError, match="already holds a multiplied catalog: name another folder, or give --force"):
        folder.check("demo", force=False)
    folder.check("demo", force=True)
    for source in (out, out / TABLE):
        with pytest.raises(UsageError, match="is where the catalog .* is read from"):
            folder.check(str(source), force=True)
    folder.clear()
    assert sorted(p.name for p in out.iterdir()) == [SOURCE]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "catalog.parquet").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"")
    for name, said in (("other", "holds files that were not written by this command"), ("file", "is a file: name a folder")):
        with pytest.raises(UsageError, match=said):
            OutFolder(str(tmp_path / name)).check("demo", force=True)


class Kept:
    """The session of all tests, which a command may not stop."""

    def __init__(self, spark):
        self.spark = spark

    def __getattr__(self, name):
        return getattr(self.spark, name)

    def stop(self):
        pass


def test_the_command_says_what_it_would_do_and_does_it(spark, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tgq.spark.session.open_session", lambda settings: Kept(spark))

    def run(*options):
        with pytest.raises(SystemExit) as ended:
            cli.main(["multiply", str(shop), "out", "--rows", "8", "--size", "32", "--conf", "local", "--conf", "catalogs/luma", *options])
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    code, said, _ = run("--dry-run", "--item-size", "0.5", "0.6")
    assert code == 0 and not (tmp_path / "out").exists()
    assert "would write 8 rows with pictures of 32 x 32 pixels to out" in said and "an item alone 50% to 60%" in said and f"{ITEMS + BAD} rows in" in said
    assert "note: the encoder does not read titles under these settings" in said
    code, said, _ = run()
    assert code == 0 and "8 rows of 8 items in out" in said and "items used: 8 (21 more could be); left out: 10 (duplicate_id 2" in said
    assert "tgq nightly --conf local --conf out/profile.yaml --catalog out" in said and len(rows_of(tmp_path / "out")) == 8
    assert settings_of("out", "out/profile.yaml").metadata.fields == ("category", "attributes"), "as for the source"
    code, _, said = run()
    assert code == 2 and "already holds a multiplied catalog" in said
    code, _, said = run("--force", "--seed", "1")
    assert code == 0 and {row["seed"] for row in rows_of(tmp_path / "out").values()} == {1}


def test_the_table_has_the_columns_it_promises(done):
    written = pq.read_schema(next((done[0] / TABLE).glob("part-*")))
    assert written.names == ROW.names and pa.types.is_map(written.field("attributes").type) and pa.types.is_list(written.field("box").type)
