"""Grounding in nights on real Spark and Delta with a tiny encoder: what is cropped, embedded again, taken from the cache, and said."""

import hashlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from tests.fixtures.nights import append
from tgq.catalog.ingest import ingest
from tgq.demo.catalog import draw_catalog
from tgq.embedding import committer
from tgq.embedding.embed import embed
from tgq.embedding.grounding import grounding_figures
from tgq.encoder.model import TGQFormer
from tgq.errors import ConfigError, ModelError
from tgq.grounding.anchor import AnchorMap
from tgq.grounding.box import cropped, ground
from tgq.grounding.policy import Policy
from tgq.images.decode import decode_image
from tgq.inference.grounder import SCALE
from tgq.registry.loading import versions_of
from tgq.run.opening import open_night
from tgq.settings.load import load_settings


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "catalog"
    draw_catalog(folder, items=24, seed=3)
    return folder


def begin(spark, tmp_path, encoder, catalog, *sets):
    """A night whose catalog is ingested."""
    profiles = ["catalogs/demo"] if Path(catalog, "catalog.parquet").exists() else []
    loaded = load_settings(
        profiles, [f"warehouse.path={tmp_path / 'warehouse'}", f"catalog.path={catalog}", f"encoder.path={encoder}", "encoder.device=cpu",
                   "embed.task_items=8", *sets], {},
    )  # fmt: skip
    night = open_night(spark, loaded.settings)
    ingest(night)
    return night


def rows(night, table="item_grounding"):
    found = {row["item_id"]: row.asDict() for row in night.warehouse.read(table).collect()}
    assert len(found) == night.warehouse.read(table).count(), "an id occurs twice"
    return found


def vectors(night):
    return {item: np.array(row["embedding"], np.float32) for item, row in rows(night, "item_embeddings").items()}


ANCHOR = "enrich.grounding.detector=anchor"


def test_nights_with_the_encoders_own_anchor(spark, tmp_path, looking_encoder_dir, demo, empty_tables):
    plain = begin(spark, tmp_path, looking_encoder_dir, demo)
    whole = embed(plain)
    assert "grounding" not in whole.figures and rows(plain) == {}
    before, contents = vectors(plain), {item: row["content_hash"] for item, row in rows(plain, "catalog_items").items()}

    night = begin(spark, tmp_path, looking_encoder_dir, demo, ANCHOR, "enrich.grounding.threshold=0.3")
    done = embed(night)
    found, items, got = rows(night), rows(night, "catalog_items"), vectors(night)
    pictured = {item for item, row in items.items() if row["image_hash"] and row["is_active"]} & set(got)
    assert done.embedded == len(pictured) == len(found), "items with a picture are embedded again, and no others"
    figures = done.figures["grounding"]
    reasons = {reason: n for reason in {r["reason"] for r in found.values()} - {None} if (n := sum(r["reason"] == reason for r in found.values()))}
    assert figures["cropped"] + sum(figures["kept_whole"].values()) == len(found) and figures["kept_whole"] == reasons
    assert figures["cropped"] and reasons.get("low_score"), "the threshold is chosen so that both happen"
    assert all((row["score"] >= 0.3) == (row["reason"] is None) == (not row["kept_whole"]) for row in found.values())

    encoder = TGQFormer.from_pretrained(looking_encoder_dir)
    item, row = next((i, r) for i, r in sorted(found.items()) if not r["kept_whole"])
    size = SCALE * encoder.vision.input_size
    picture = decode_image(Path(items[item]["image_uri"]).read_bytes(), target=size)
    picture.thumbnail((size, size))
    [again] = AnchorMap(encoder).find([picture], [items[item]["metadata_text"]])
    assert again.box == pytest.approx(row["box"], abs=1e-6)
    pixels = encoder.vision.preprocess(cropped(picture, ground(again.box, again.score, 0.3, 0.1).crop))[None]
    alone = encoder.encode(pixels, torch.tensor([0]), [items[item]["metadata_text"]], [items[item]["encoder_title"]]).embedding[0].numpy()
    assert np.abs(alone - got[item]).max() < 1e-4 < np.abs(before[item] - got[item]).max()

    second = begin(spark, tmp_path, looking_encoder_dir, demo, ANCHOR, "enrich.grounding.threshold=0.3", "evaluate.seed=1")
    again = embed(second)
    assert (again.embedded, again.figures["encoded_now"]) == (0, 0) and rows(second) == found
    assert again.figures["grounding"] == figures, "counted from the tables, whichever night embedded them"

    third = begin(spark, tmp_path, looking_encoder_dir, demo, ANCHOR, "enrich.grounding.threshold=0.9")
    changed = embed(third)
    assert changed.embedded == len(found) and changed.figures["grounding"]["cropped"] == 0
    assert {row["detector_version"] for row in rows(third).values()}.isdisjoint({row["detector_version"] for row in found.values()})

    off = begin(spark, tmp_path, looking_encoder_dir, demo)
    embed(off)
    assert {item: row["content_hash"] for item, row in rows(off, "catalog_items").items()} == contents, "off, contents are what they were"
    after = vectors(off)
    assert all(np.abs(after[item] - before[item]).max() < 1e-5 for item in before)


@pytest.fixture
def shop(tmp_path):
    """Two categories, a picture that two items of them share, one that is blank, and one without a category."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "shop"
    folder.mkdir()

    def picture(x: int) -> bytes:
        image = Image.new("RGB", (64, 64), "white")
        if x >= 0:
            ImageDraw.Draw(image).rectangle((x, 16, x + 15, 47), fill="black")
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    table = [
        {"item_id": f"i{n}", "title": f"red shoe {n}", "category": category, "image_bytes": picture(x)}
        for n, (category, x) in enumerate([("Shoes", 0), ("Shoes", 8), ("Bags", 8), ("Bags", 32), ("Bags", -1), (None, 16)])
    ]
    pq.write_table(pa.Table.from_pylist(table), folder / "items.parquet")
    return folder / "items.parquet"


def test_a_new_model_embeds_crops_from_the_cache_without_asking_the_detector(spark, tmp_path, shop, dark_saliency, empty_tables):
    from tgq.encoder.tiny import write_tiny_encoder

    encoder = write_tiny_encoder(tmp_path / "encoder", seed=3)
    other = write_tiny_encoder(tmp_path / "other", seed=3, anchored_queries=2)
    detector = shutil.copy(dark_saliency, tmp_path / "dark.onnx")
    saliency = f"enrich.grounding.detector={detector}"
    night = begin(spark, tmp_path, encoder, shop, saliency)
    done = embed(night)
    found = rows(night)
    assert done.figures["grounding"]["cropped"] == 5 and done.figures["grounding"]["kept_whole"] == {"no_box": 1}
    assert found["i0"]["box"] == pytest.approx([0, 0.25, 0.25, 0.75], abs=0.04) and found["i4"]["reason"] == "no_box"
    keys = {row["source_hash"] for row in night.warehouse.read("tower_features").collect() if row["mask"] is None}
    expected = {hashlib.sha256(f"{row['image_hash']}|{row['detector_version']}".encode()).hexdigest() for row in found.values()}
    assert keys == expected and len(keys) == 5, "two items share a picture"

    second = begin(spark, tmp_path, other, shop, saliency, "embed.slice_items=100")
    cached = embed(second)
    assert cached.embedded == 6 and cached.figures["from_kept_features"] == 6
    by_model = {row["item_id"]: row["embedding"] for row in second.warehouse.read("item_embeddings").collect() if row["run_id"] == second.run_id}
    assert {item: row["box"] for item, row in rows(second).items()} == {item: row["box"] for item, row in found.items()}
    fresh = begin(spark, tmp_path / "fresh", other, shop, saliency, "features.max_gb=0")
    embed(fresh)
    assert all(np.abs(np.array(by_model[item]) - vector).max() < 1e-5 for item, vector in vectors(fresh).items())


def test_a_changed_phrase_embeds_its_category_again_and_no_other(spark, tmp_path, shop, grounding_dino_dir, tiny_encoder, empty_tables):
    phrases = tmp_path / "phrases.yaml"
    sets = [f"enrich.grounding.detector={grounding_dino_dir}", f"enrich.grounding.phrases={phrases}", "enrich.grounding.threshold=0"]
    phrases.write_text("Shoes: shoe\n")
    night = begin(spark, tmp_path, tiny_encoder, shop, *sets)
    done = embed(night)
    found = rows(night)
    assert {item for item, row in found.items() if row["reason"] == "no_phrase"} == {"i2", "i3", "i4", "i5"}
    assert done.figures["grounding"]["kept_whole"]["no_phrase"] == 4 and found["i2"]["detector_version"] is None
    assert found["i0"]["score"] is not None and done.embedded == 6

    phrases.write_text("Shoes: shoe\nBags: a bag\n")
    second = begin(spark, tmp_path, tiny_encoder, shop, *sets, "evaluate.seed=1")
    again = embed(second)
    assert again.embedded == 3 and {i for i, row in rows(second).items() if row["run_id"] == second.run_id} == {"i2", "i3", "i4"}
    assert rows(second)["i2"]["detector_version"] != rows(second)["i1"]["detector_version"], "one picture under two phrases"


def test_a_killed_night_continues_and_every_item_has_one_row(spark, tmp_path, shop, dark_saliency, tiny_encoder, empty_tables, monkeypatch):
    saliency = f"enrich.grounding.detector={dark_saliency}"
    night = begin(spark, tmp_path, tiny_encoder, shop, saliency)
    real = committer.commit_slices

    def dies(night, *rest):
        append = night.warehouse.append

        def fails(frame, table, **options):
            if table == "item_embeddings":
                raise KeyboardInterrupt
            append(frame, table, **options)

        monkeypatch.setattr(night.warehouse, "append", fails)
        real(night, *rest)

    monkeypatch.setattr(committer, "commit_slices", dies)
    with pytest.raises(KeyboardInterrupt):
        embed(night)
    monkeypatch.undo()
    assert len(rows(night)) == 6 and not vectors(night), "killed between two commits"
    resumed = begin(spark, tmp_path, tiny_encoder, shop, saliency)
    assert embed(resumed).embedded == 6 and len(rows(resumed)) == 6


def test_counts_are_of_the_present_contents(make_night, items):
    """A night without grounding leaves the rows of earlier nights behind, and they must not count."""
    night, data = make_night(), items(n=6, styles=2)
    data.write(night)
    cropped = dict(image_hash="0", detector_version="v", box=[0.0, 0.0, 0.5, 0.5], score=0.5, kept_whole=False, run_id="night-0")
    whole = cropped | {"kept_whole": True, "reason": "low_score"}
    append(night, "item_grounding", [
        dict(item_id=data.ids[0], content_hash=data.content[0], **cropped), dict(item_id=data.ids[1], content_hash=data.content[1], **whole),
        dict(item_id=data.ids[2], content_hash="earlier", **cropped), dict(item_id=data.ids[3], content_hash=data.content[3], **cropped),
    ])  # fmt: skip
    policy = Policy("anchor", "", "0123456789abcdef", 0.2, 0.1)
    figures = grounding_figures(night, versions_of(night.model_folder)[0], policy)
    assert (figures["cropped"], figures["kept_whole"]) == (2, {"no_phrase": 3, "low_score": 1})
    assert figures["detector"] == "anchor (0123456789abcdef), threshold 0.2, margin 0.1, asked for: the item's metadata"


def test_a_broken_setting_stops_the_night_before_its_first_step(spark, tmp_path, shop, tiny_encoder, empty_tables):
    from tgq.embedding.embed import need_model

    def night(*sets):
        return open_night(spark, load_settings([], [f"warehouse.path={tmp_path / 'warehouse'}", f"encoder.path={tiny_encoder}", *sets], {}).settings)

    with pytest.raises(ModelError, match="does not exist"):
        need_model(night("enrich.grounding.detector=no/such/folder"))
    with pytest.raises(ConfigError, match="cannot be read"):
        need_model(night(ANCHOR, "enrich.grounding.phrases=none.yaml"))
