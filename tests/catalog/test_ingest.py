"""Nights over a small shop of drawn pictures with every defect, against an account kept by hand."""

import io
import json
import os
import random
from collections import Counter
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from tgq.catalog.examine import VERDICT, Examiner
from tgq.catalog.ingest import ingest
from tgq.catalog.reading.location import Location
from tgq.errors import SourceError
from tgq.images.decode import ImageLimits
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions
from tgq.run.night import Night
from tgq.settings.sections import CatalogSettings, ColumnMapping, MetadataSettings, PairSettings, Settings, WarehouseSettings

OPTIONAL = ("title", "brand", "category", "attributes", "image_uri", "image_bytes", "group_id", "variant_id")


def picture(number: int, kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.effect_noise((24, 24), 40 + number % 50).convert("RGB").save(out, kind)
    return out.getvalue()


class Shop:
    """A catalog folder that a test edits row by row."""

    def __init__(self, folder):
        self.folder = folder
        self.rows: list[dict] = []
        (folder / "images").mkdir(parents=True)

    def add(self, item_id, data: bytes | None = b"", **fields) -> dict:
        """A row with a picture of its own; `data` None for a row without a file."""
        name = f"images/{len(self.rows)}.bin"
        if data is not None:
            (self.folder / name).write_bytes(data or picture(len(self.rows)))
        row = {"item_id": item_id, "title": f"item {item_id}", "category": "a > b", "image": name if data is not None else None,
               "image_bytes": None, "group_id": f"g{len(self.rows) % 7}", "variant_id": None, **fields}  # fmt: skip
        self.rows.append(row)
        return row

    def write(self, rows=None):
        schema = pa.schema([(c, pa.binary() if c == "image_bytes" else pa.string()) for c in self.rows[0]])
        pa.parquet.write_table(pa.Table.from_pylist(self.rows if rows is None else rows, schema), self.folder / "catalog.parquet")

    def night(self, spark, warehouse, run_id: str, **settings) -> Night:
        columns = ColumnMapping(image_bytes="image_bytes", group_id="group_id", variant_id="variant_id")
        catalog = CatalogSettings(path=str(self.folder), columns=columns, optional_columns=OPTIONAL)
        whole = Settings(warehouse=WarehouseSettings(path=warehouse.root), catalog=catalog, **settings)
        return Night(spark, whole, warehouse, run_id, datetime.now(timezone.utc))


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path / "shop")


def refused(warehouse, run_id: str) -> Counter:
    rows = warehouse.read("quarantine").where(f"run_id = '{run_id}'").collect()
    assert len({(r.stage, r.item_id, r.occurrence) for r in rows}) == len(rows), "the key of quarantine is not one"
    return Counter((r.item_id, r.reason) for r in rows)


def items(warehouse) -> dict:
    rows = warehouse.read("catalog_items").collect()
    assert len({r.item_id for r in rows}) == len(rows), "an id stands twice in catalog_items"
    return {r.item_id: r for r in rows}


def test_every_row_ends_once_as_an_item_or_with_its_reason(spark, warehouse, shop):
    """Hundreds of rows with defects drawn at random; the verdict that each must have is noted while it is written."""
    draw, expected, good = random.Random(3), Counter(), set()
    long = "x" * 600
    for n in range(300):
        i, kind = f"i{n}", draw.choice(["good"] * 8 + ["no_image", "inline", "both", "cut", "html", "bomb", "absent", "outside", "absolute",
                                       "scheme", "host", "missing", "blank", "control", "long", "nothing", "twice", "thrice"])  # fmt: skip
        bad = {"absent": ("images/none.jpg", "not_found"), "outside": ("../../secret.jpg", "path_outside_catalog"),
               "absolute": ("/etc/hostname", "path_outside_catalog"), "scheme": ("gopher://x/1.jpg", "unsupported_scheme"),
               "host": ("https://shop.example/1.jpg", "host_not_allowed")}.get(kind)  # fmt: skip
        if bad:
            shop.add(i, image=bad[0])
            expected[i, bad[1]] += 1
        elif kind == "no_image":
            shop.add(i, None)
            good.add(i)
        elif kind in ("inline", "both"):
            shop.add(i, None if kind == "inline" else b"no picture, and not asked", image_bytes=picture(n, "PNG"))
            good.add(i)
        elif kind in ("cut", "html", "bomb"):
            data, reason = {"cut": (picture(n)[:300], "truncated"), "html": (b"<html>404</html>", "not_an_image"),
                            "bomb": (bomb(), "decompression_bomb")}[kind]  # fmt: skip
            inline = draw.random() < 0.5
            shop.add(i, None if inline else data, image_bytes=data if inline else None)
            expected[i, reason] += 1
        elif kind in ("missing", "blank"):
            shop.add(None if kind == "missing" else "  ")
            expected["(missing)", "missing_id"] += 1
        elif kind == "control":
            shop.add(f"{i}\n\0")
            expected[f"{i}\n\0", "bad_id"] += 1
        elif kind == "long":
            shop.add(long + i)
            expected[long[:512], "bad_id"] += 1
        elif kind == "nothing":
            shop.add(i, None, title=None, category=" > ")
            expected[i, "no_image_and_no_text"] += 1
        elif kind in ("twice", "thrice"):
            for _ in range(2 if kind == "twice" else 3):  # the last two even alike in every field
                shop.add(i, None)
                expected[i, "duplicate_id"] += 1
        else:
            shop.add(i)
            good.add(i)
    shop.write(draw.sample(shop.rows, len(shop.rows)))
    result = ingest(shop.night(spark, warehouse, "r1"))
    assert refused(warehouse, "r1") == expected
    found = items(warehouse)
    assert set(found) == good
    assert result.rows_in == len(shop.rows) == result.rows_out + result.quarantined == len(good) + sum(expected.values())
    assert result.figures["new"] == len(good) and result.figures["reasons"] == dict(
        sorted(Counter(r for (_, r), n in expected.items() for _ in range(n)).items(), key=lambda p: (-p[1], p[0]))
    )
    for row in shop.rows:
        if row["item_id"] in good:
            item = found[row["item_id"]]
            assert bool(item.image_hash) == bool(row["image"] or row["image_bytes"]) == bool(item.image_size)
            assert item.image_bytes == row["image_bytes"] and (item.image_uri is None) == bool(row["image_bytes"] or not row["image"])
    fields = {r.item_id: json.loads(r.fields) for r in warehouse.read("quarantine").where("reason = 'not_found'").collect()}
    assert all(f == {**f, "item_id": i, "title": f"item {i}", "image_uri": "images/none.jpg"} for i, f in fields.items())


def bomb() -> bytes:
    out = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(out, "PNG")
    return out.getvalue()


def test_a_second_night_reads_only_what_changed_and_loses_nothing(spark, warehouse, shop):
    same, retitled, redrawn, touched, gone, broken, doubled, moved = (
        shop.add(n) for n in ("same", "retitled", "redrawn", "touched", "gone", "broken", "doubled", "moved")
    )
    cut, healed, late = shop.add("cut", picture(1)[:300]), shop.add("healed", b"<html>"), shop.add("late", image="images/late.jpg")
    inline = shop.add("inline", None, image_bytes=picture(77))
    shop.write()
    first = ingest(shop.night(spark, warehouse, "r1"))
    assert (first.rows_out, first.quarantined, first.figures["images_read"]) == (9, 3, 11)
    before = items(warehouse)
    assert before["same"].first_seen == before["same"].last_seen and not before["same"].slices

    retitled["title"], moved["group_id"] = "another title", "elsewhere"
    (shop.folder / redrawn["image"]).write_bytes(picture(99, "PNG"))
    os.utime(shop.folder / touched["image"], ns=(1, 1))
    (shop.folder / broken["image"]).write_bytes(b"<html>")
    (shop.folder / healed["image"]).write_bytes(picture(98))
    (shop.folder / "images/late.jpg").write_bytes(picture(97))
    shop.rows.remove(gone)
    shop.add("doubled", title="the other")
    fresh = shop.add("fresh")
    shop.write()
    for _ in range(2):  # the second time as after a kill: the same tables
        second = ingest(shop.night(spark, warehouse, "r2"))
        after = items(warehouse)
        assert refused(warehouse, "r2") == Counter({("cut", "truncated"): 1, ("doubled", "duplicate_id"): 2, ("broken", "not_an_image"): 1})
        assert {i for i, r in after.items() if not r.is_active} == {"gone"} and second.inactive == 1
        assert {i for i, r in after.items() if r.last_run_id == "r2"} == {
            "retitled", "redrawn", "touched", "moved", "healed", "late", "fresh"
        }, "what did not change is not written again"  # fmt: skip
        # what was refused or vanished keeps its last good version
        for i in ("broken", "doubled"):
            assert after[i] == before[i] and after[i].is_active
        changed = {i for i in before if before[i].content_hash != after[i].content_hash}
        assert changed == {"retitled", "redrawn"}
        assert after["moved"].group_id == "elsewhere" and after["inline"].image_bytes == inline["image_bytes"]
        assert after["same"] == before["same"] and after["moved"].last_seen > before["moved"].last_seen
        assert after["gone"].last_seen == before["gone"].last_seen, "the run before is the one that saw it last"
        if _ == 0:
            f = second.figures
            assert (f["new"], f["changed"], f["touched"], f["unchanged"], f["newly_inactive"]) == (3, 2, 2, 2, 1)
            assert f["images_read"] == 6, "redrawn, touched, broken, healed, late and fresh; not what was refused before and is as it was"
    assert refused(warehouse, "r1") == Counter({("cut", "truncated"): 1, ("healed", "not_an_image"): 1, ("late", "not_found"): 1})

    shop.rows = [r for r in shop.rows if r["item_id"] not in ("doubled", "fresh")] + [gone]
    shop.write()
    masked = {"metadata": MetadataSettings(fields=("category",)), "pairs": PairSettings(source="none"), "embed": {"retry_quarantined": True}}
    third = ingest(shop.night(spark, warehouse, "r3", **masked))
    last, f = items(warehouse), third.figures
    assert {i for i, r in last.items() if not r.is_active} == {"doubled", "fresh"}
    assert f["reactivated"] == 1 and f["changed"] == third.rows_out == 9 and f["new"] == 0
    assert f["images_read"] == 2, "other metadata cost no picture; only the two refused ones were asked to be tried again"
    assert last["same"].metadata_text == "a > b" and last["same"].encoder_title == ""
    assert last["same"].image_hash == before["same"].image_hash
    assert same and cut and late and fresh


def test_a_night_without_changes_commits_no_items_and_one_that_only_lost_items_does(spark, warehouse, shop):
    _, gone = shop.add("stays", None), shop.add("goes", None)
    shop.write()
    ingest(shop.night(spark, warehouse, "r1"))
    version = warehouse.version("catalog_items")
    same = ingest(shop.night(spark, warehouse, "r2"))
    assert warehouse.version("catalog_items") == version and (same.rows_out, same.unchanged, same.inactive) == (2, 2, 0)
    shop.rows.remove(gone)
    shop.write()
    lost = ingest(shop.night(spark, warehouse, "r3"))
    assert (lost.inactive, lost.figures["newly_inactive"]) == (1, 1) and warehouse.version("catalog_items") == version + 1
    assert {i for i, r in items(warehouse).items() if r.is_active} == {"stays"}


def test_a_catalog_of_bad_rows_only_stops_the_night_and_counts_the_reasons(spark, warehouse, shop):
    for n in range(3):
        shop.add(None if n else "1", b"<html>")
    shop.write()
    with pytest.raises(SourceError, match=r"none of the 3 rows of .* can be used \(missing_id 2, not_an_image 1\)") as caught:
        ingest(shop.night(spark, warehouse, "r1"))
    assert "\n" not in str(caught.value)
    assert sum(refused(warehouse, "r1").values()) == 3 and not items(warehouse)


def examiner(folder, **more) -> Examiner:
    location = Location(f"file:{folder}/catalog.parquet", "parquet", str(folder))
    fetcher = Fetcher(FetchOptions(allowed_roots=(str(folder),)))
    return Examiner(**{"location": location, "fetcher": fetcher, "limits": ImageLimits(), "verify": "decode", "metadata": MetadataSettings(),
                       "retry": False, **more})  # fmt: skip


def source_row(**fields) -> dict:
    known = ("known_fingerprint", "known_hash", "known_size", "known_content", "known_active", "refused_fingerprint", "refused_reason",
             "refused_detail", "reason", "detail")  # fmt: skip
    blank = dict.fromkeys((*known, "title", "brand", "category", "attributes", "image_uri", "image_bytes", "group_id", "variant_id", "slices"))
    return blank | {"item_id": "1", "occurrence": 0, **fields}


def test_a_verdict_on_bytes_is_remembered_until_the_limits_change(tmp_path):
    (tmp_path / "1.jpg").write_bytes(picture(1, "PNG")[:300])
    row = {"image_uri": "1.jpg", "title": "x"}
    first = examiner(tmp_path)(source_row(**row))
    assert set(first) == set(VERDICT.names) and (first["reason"], first["bytes_read"]) == ("truncated", 300)
    known = {"refused_fingerprint": first["source_fingerprint"], "refused_reason": "truncated", "refused_detail": first["detail"]}
    again = examiner(tmp_path)(source_row(**row, **known))
    assert (again["reason"], again["bytes_read"], again["source_fingerprint"]) == ("truncated", 0, first["source_fingerprint"])
    assert examiner(tmp_path, verify="header")(source_row(**row, **known))["reason"] is None
    assert examiner(tmp_path, limits=ImageLimits(max_pixels=10))(source_row(**row, **known))["reason"] == "decompression_bomb"
    assert examiner(tmp_path, retry=True)(source_row(**row, **known))["bytes_read"] == 300


def test_a_picture_whose_version_cannot_be_told_is_read_every_time(tmp_path):
    class Versionless(Fetcher):
        def stat(self, uri):
            return ""

    (tmp_path / "1.png").write_bytes(picture(1, "PNG"))
    look = examiner(tmp_path, fetcher=Versionless(FetchOptions(allowed_roots=(str(tmp_path),))))
    first = look(source_row(image_uri="1.png", title="x"))
    known = {"known_fingerprint": first["source_fingerprint"], "known_hash": first["image_hash"], "known_size": first["image_size"],
             "known_content": first["content_hash"], "known_active": True}  # fmt: skip
    again = look(source_row(image_uri="1.png", title="x", **known))
    assert again["bytes_read"] > 0 and again["change"] == "unchanged"
    (tmp_path / "1.png").write_bytes(picture(20, "PNG"))
    assert look(source_row(image_uri="1.png", title="x", **known))["change"] == "changed"
    (tmp_path / "1.png").write_bytes(b"")
    failed = look(source_row(image_uri="1.png", title="x", **known))
    refusal = {"refused_fingerprint": failed["source_fingerprint"], "refused_reason": failed["reason"], "refused_detail": failed["detail"]}
    (tmp_path / "1.png").write_bytes(picture(20, "PNG"))
    assert look(source_row(image_uri="1.png", title="x", **refusal))["reason"] is None


def test_the_order_of_fields_in_a_map_is_no_change(tmp_path):
    one = examiner(tmp_path)(source_row(title="x", attributes=[("a", "1"), ("b", "2")]))
    two = examiner(tmp_path)(source_row(title="x", attributes=[("b", "2"), ("a", "1")]))
    assert one["source_fingerprint"] == two["source_fingerprint"] and one["content_hash"] == two["content_hash"]
    assert one["reason"] is None
