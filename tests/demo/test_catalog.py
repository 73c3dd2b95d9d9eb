"""The drawn catalog: same bytes from the same seed, an honest ground truth, no real data overwritten."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFile

from tgq.demo import draw_catalog
from tgq.demo.catalog import SCHEMA
from tgq.demo.defects import DEFECTS
from tgq.demo.drawing.surface import COLOURS, GLOSSY, TEXTURES
from tgq.demo.metadata import ADJECTIVES, PROMISES
from tgq.demo.styles import NAMES
from tgq.demo.types import products
from tgq.errors import UsageError

ITEMS = 250
SIZE = 64


def digest(folder: Path) -> dict[str, str]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "catalog"
    calls = []
    note = lambda *call: calls.append(call)  # noqa: E731
    summary = draw_catalog(out, ITEMS, seed=3, size=SIZE, workers=1, progress=note)
    return out, summary, pq.read_table(out / "catalog.parquet"), calls


@pytest.fixture(scope="module")
def rows(drawn):
    return drawn[2].to_pylist()


def test_same_seed_same_bytes_with_any_number_of_workers(drawn, tmp_path):
    draw_catalog(tmp_path / "again", ITEMS, seed=3, size=SIZE, workers=2)
    assert digest(tmp_path / "again") == digest(drawn[0])


def test_an_item_does_not_depend_on_how_many_are_drawn(drawn, rows, tmp_path):
    draw_catalog(tmp_path / "few", 30, seed=3, size=SIZE, workers=1)
    assert pq.read_table(tmp_path / "few" / "catalog.parquet").to_pylist() == rows[:30]
    few, many = digest(tmp_path / "few"), digest(drawn[0])
    assert all(many[name] == few[name] for name in few if name.endswith(".jpg"))


def test_another_seed_shares_no_style_and_no_picture(drawn, rows, tmp_path):
    draw_catalog(tmp_path / "other", 60, seed=4, size=SIZE, workers=1)
    others = pq.read_table(tmp_path / "other" / "catalog.parquet").to_pylist()
    for column in ("item_id", "group_id", "variant_id"):
        assert not {r[column] for r in others} & {r[column] for r in rows}
    assert not set(digest(tmp_path / "other" / "images").values()) & set(digest(drawn[0] / "images").values())


def test_schema_files_and_summary(drawn, rows):
    out, summary, table, calls = drawn
    assert table.schema.equals(SCHEMA)
    assert len(rows) == summary.items == ITEMS
    assert len({r["item_id"] for r in rows}) == len({r["variant_id"] for r in rows}) == ITEMS
    assert summary.styles == len({r["group_id"] for r in rows})
    assert summary.types == len({r["fine_class"] for r in rows}) > 30
    for r in rows:
        with Image.open(out / r["image"]) as image:
            assert image.format == "JPEG" and image.size == (SIZE, SIZE)
        assert r["category"].count(" > ") == 2 and r["category"].endswith(r["fine_class"])
        assert r["is_primary"] and not r["defect"] and r["price"] > 0
    assert calls == [(done, ITEMS) for done in range(50, ITEMS + 1, 50)]
    assert "seed: 3" in (out / "SOURCE.md").read_text()


def test_group_sizes(rows):
    sizes = Counter(r["group_id"] for r in rows)
    *whole, last = sizes.values()  # the last style may be cut short
    assert set(whole) == {2, 3, 4, 5, 6} and 1 <= last <= 6
    for r in rows:
        assert r["variant_id"].startswith(r["group_id"] + "-")


def test_text_tells_the_truth_except_where_it_is_flagged(rows):
    names = sorted(COLOURS, key=len, reverse=True)
    for r in rows:
        told, true = json.loads(r["attributes"]), json.loads(r["true_attributes"])
        assert all(true[name] == value for name, value in told.items())
        assert len(true) - len(told) == r["missing_attributes"]
        assert r["true_color"] == true["color"] and r["true_material"] == true["material"]
        assert r["missing_brand"] == (r["brand"] == "")
        assert r["brand"] in ("", r["true_brand"])
        title = r["title"].lower()
        if r["title_noise"] == "shuffled":
            assert set(r["true_color"].split()) <= set(title.split())
            continue
        found = [c for c in names if f" {c} " in f" {title} "]
        assert (r["true_color"] in found) == (r["title_noise"] != "wrong colour"), r
        assert r["title"].isupper() == (r["title_noise"] == "upper case")
        if r["missing_brand"]:
            assert r["true_brand"].lower() not in title


def test_titles_are_made_of_words_that_styles_share(rows):
    phrases = [*NAMES, *ADJECTIVES, *PROMISES, *COLOURS, *TEXTURES, *GLOSSY]
    phrases += [word for p in products() for word in (*p.nouns, *p.sizes, *p.materials)]
    vocabulary = {word for phrase in phrases for word in phrase.lower().split()}
    for r in rows:
        strange = set(r["title"].lower().split()) - vocabulary
        assert len(strange) <= (1 if r["title_noise"] == "typo" else 0), (strange, r["title_noise"])


def test_box_lies_in_the_picture(rows):
    for r in rows:
        x0, y0, x1, y1 = r["box"]
        assert 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1
        assert (x1 - x0) * (y1 - y0) > 0.01


def test_nuisances_have_the_shares_of_a_shop(rows):
    def share(test):
        return sum(map(test, rows)) / len(rows)

    assert 0.26 < share(lambda r: r["distractors"] > 0) < 0.44
    assert 0.2 < share(lambda r: r["overlay"] != "none") < 0.4
    assert 0.46 < share(lambda r: r["background"] != "none") < 0.7
    assert 0.07 < share(lambda r: r["prop"] != "none") < 0.32
    assert 0.03 < share(lambda r: r["title_noise"] == "wrong colour") < 0.16
    assert 0.04 < share(lambda r: r["missing_brand"]) < 0.18


def test_broken_rows_are_broken_as_they_say(tmp_path, monkeypatch):
    summary = draw_catalog(tmp_path, 10, size=SIZE, workers=1, bad_rows=len(DEFECTS))
    rows = pq.read_table(tmp_path / "catalog.parquet").to_pylist()
    assert summary.bad_rows == len(DEFECTS) and len(rows) == 10 + len(DEFECTS)
    bad = {r["defect"]: r for r in rows if r["defect"]}
    assert tuple(bad) == DEFECTS
    assert bad["missing id"]["item_id"] is None
    assert [r["item_id"] for r in rows].count(bad["duplicate id"]["item_id"]) == 2
    assert not (tmp_path / bad["path outside"]["image"]).resolve().is_relative_to(tmp_path.resolve())
    assert bad["no image and no text"]["image"] is None and bad["no image and no text"]["title"] is None
    assert not (tmp_path / bad["missing file"]["image"]).exists()
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(tmp_path / bad["not an image"]["image"])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    with (
        Image.open(tmp_path / bad["truncated image"]["image"]) as image,
        pytest.raises(OSError, match="truncated"),
    ):
        image.load()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / bad["decompression bomb"]["image"])
    assert (tmp_path / bad["decompression bomb"]["image"]).stat().st_size < 200_000


def test_a_real_catalog_is_left_alone(tmp_path):
    (tmp_path / "catalog.parquet").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not drawn by this command"):
        draw_catalog(tmp_path, items=1)
    assert (tmp_path / "catalog.parquet").read_bytes() == b"precious"


def test_a_drawn_catalog_is_replaced_whole(tmp_path):
    draw_catalog(tmp_path, 8, seed=1, size=SIZE, workers=1)
    draw_catalog(tmp_path, 3, seed=2, size=SIZE, workers=1)
    assert pq.read_table(tmp_path / "catalog.parquet").num_rows == 3
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == 3


@pytest.mark.parametrize("wrong", [{"items": 0}, {"size": 8}, {"bad_rows": -1}, {"workers": 0}])
def test_numbers_out_of_range_are_named(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        draw_catalog(tmp_path / "none", **{"items": 1, **wrong})
    assert not (tmp_path / "none").exists()
