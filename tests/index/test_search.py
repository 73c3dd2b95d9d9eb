"""Search by words: through the query tower where the encoder has one, and fused with BM25."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tgq.errors import ModelError, UsageError
from tgq.grounding.box import WHOLE, cropped, ground
from tgq.grounding.zero_shot import ZeroShot
from tgq.images.decode import ImageLimits
from tgq.index import build, generations, texts
from tgq.index.search import DEPTH, search
from tgq.inference.grounder import decode_for_crop
from tgq.query_tower.config import FOLDER, QueryTowerConfig
from tgq.query_tower.tower import QueryTower
from tgq.registry.loading import load_encoder, versions_of
from tgq.retrieval import manifest
from tgq.retrieval.bm25 import POSTINGS
from tgq.settings.sections import EnrichSettings

VERSIONS = {"catalog_items": 1, "item_embeddings": 1, "item_neighbors": 0}
QUERY = "title 7 brand 3"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TGQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def with_tower(tiny_encoder, tmp_path):
    """The tiny encoder with a random query tower beside it."""
    folder = tmp_path / "with-tower"
    shutil.copytree(tiny_encoder, folder)
    torch.manual_seed(5)
    QueryTower(QueryTowerConfig(versions_of(str(folder))[0], 32, text="towers/text"), relative_to=folder).save(folder / FOLDER)
    return folder


def published(make_night, items, n=90):
    night, data = make_night(index={"max_shard_items": 25}), items(n=n, dim=32, styles=12)
    data.write(night)
    build.build_index(night)
    generations.publish_index(night, VERSIONS)
    return night, data


def settings_with(night, folder):
    return night.settings.model_copy(update={"encoder": night.settings.encoder.model_copy(update={"path": str(folder)})})


def by_vectors(data, vector, inside):
    rows = [i for i in range(data.n) if inside(data.category[i])]
    return [data.ids[i] for i in sorted(rows, key=lambda i: -float(data.vectors[i] @ vector))]


def by_words(root, data, query, inside):
    """BM25 (Lucene) in plain Python over all items, ties by category, shard and id."""
    place = {}
    for file in manifest.load_current(root).shards:
        for item in texts.read_details(root, file)["item_id"].to_pylist():
            place[item] = (file.category, file.shard, item)
    rows = [re.findall(r"\w+", f"title {i} {data.brand[i] or ''}") for i in range(data.n)]
    mean, score = sum(map(len, rows)) / data.n, dict.fromkeys(data.ids, 0.0)
    for word in query.split():
        n = sum(word in row for row in rows)
        for item, row in zip(data.ids, rows, strict=True):
            f = row.count(word)
            score[item] += math.log(1 + (data.n - n + 0.5) / (n + 0.5)) * f / (f + 1.5 * (0.25 + 0.75 * len(row) / mean))
    found = [item for i, item in enumerate(data.ids) if score[item] > 0 and inside(data.category[i])]
    return sorted(found, key=lambda item: (-round(score[item], 5), place[item]))


def fused(first, second):
    """Reciprocal ranks, added."""
    scores = {item: sum(1 / (61 + ranking.index(item)) for ranking in (first, second) if item in ranking) for item in {*first, *second}}
    order = [*first, *(item for item in second if item not in first)]
    return sorted(scores.items(), key=lambda found: (-round(found[1], 12), order.index(found[0])))


def test_a_text_is_embedded_by_the_query_tower_if_there_is_one(make_night, items, with_tower, tiny_encoder):
    night, data = published(make_night, items)
    vector = QueryTower.load(with_tower / FOLDER).encode_queries([QUERY])[0]
    hits = search(settings_with(night, with_tower), text=QUERY, k=90)
    assert [hit["item_id"] for hit in hits] == by_vectors(data, vector, bool)
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(data.vectors @ vector, reverse=True), abs=1e-5)
    title = load_encoder(str(tiny_encoder), "cpu", "float32").encode(None, torch.tensor([-1]), [QUERY], [""]).embedding.numpy()[0]
    without = [hit["item_id"] for hit in search(night.settings, text=QUERY, k=90)]
    assert without == by_vectors(data, title, bool) and without != [hit["item_id"] for hit in hits]

    # an item is searched by its vector, tower or not
    assert search(settings_with(night, with_tower), item_id=data.ids[3], k=5) == search(night.settings, item_id=data.ids[3], k=5)

    QueryTower(QueryTowerConfig("f" * 16, 32, text="../with-tower/towers/text"), relative_to=with_tower).save(with_tower.parent / "other" / FOLDER)
    shutil.copytree(with_tower, with_tower.parent / "other", dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER))
    with pytest.raises(ModelError, match="the query tower is for item embeddings of model ffffffffffffffff, these are of"):
        search(settings_with(night, with_tower.parent / "other"), text=QUERY)


GROUNDINGS = pytest.mark.parametrize("category, crop", [("top0 > c0", True), (None, False)], ids=["named", "unnamed"])


def zero_shot_night(make_night, items, detector):
    night, data = make_night(enrich={"grounding": {"detector": str(detector), "threshold": 0.0}}), items(n=30, dim=32, styles=12)
    data.write(night)
    build.build_index(night)
    generations.publish_index(night, VERSIONS)
    return night, data


@GROUNDINGS
def test_a_picture_is_cropped_as_those_of_the_published_generation(make_night, items, grounding_dino_dir, tiny_encoder, tmp_path, category, crop):
    """A zero-shot detector is asked for the last level of --category; without one there is nothing to ask for."""
    night, data = zero_shot_night(make_night, items, grounding_dino_dir)
    ramp = np.linspace(0, 255, 90 * 60 * 3).reshape(60, 90, 3).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "query.png")
    encoder = load_encoder(str(tiny_encoder), "cpu", "float32")
    shown = decode_for_crop((tmp_path / "query.png").read_bytes(), ImageLimits(), encoder.vision.input_size)
    [found] = ZeroShot(grounding_dino_dir).find([shown], ["c0"])
    part = ground(found.box, found.score, 0.0, 0.1).crop
    assert part != WHOLE, "this detector would crop"
    if not crop:
        shown, part = Image.open(tmp_path / "query.png").convert("RGB"), WHOLE
    pixels = encoder.vision.preprocess(cropped(shown, part))[None]
    vector = encoder.encode(pixels, torch.tensor([0]), [""], [""]).embedding.numpy()[0]
    off = night.settings.model_copy(update={"enrich": EnrichSettings()})  # the manifest says how, not the settings
    hits = search(off, image=tmp_path / "query.png", category=category, k=30)
    assert {hit["item_id"]: hit["score"] for hit in hits} == pytest.approx(
        {i: float(v @ vector) for i, v, c in zip(data.ids, data.vectors, data.category, strict=True) if category in (None, c)}, abs=1e-5)  # fmt: skip


def test_a_detector_that_was_moved_is_named_anew_and_another_one_refused(make_night, items, grounding_dino_dir, owlv2_dir, tmp_path):
    detector = shutil.copytree(grounding_dino_dir, tmp_path / "detector")
    night, _ = zero_shot_night(make_night, items, detector)
    Image.new("RGB", (40, 40), "red").save(tmp_path / "query.png")
    detector.rename(tmp_path / "moved")

    def asked(**grounding):
        settings = night.settings.model_copy(update={"enrich": EnrichSettings.model_validate({"grounding": grounding})})
        return search(settings, image=tmp_path / "query.png", category="top0 > c0")

    with pytest.raises(ModelError, match="does not exist"):
        asked()
    with pytest.raises(ModelError, match="were cropped by another detector"):
        asked(detector=str(owlv2_dir))
    assert asked(detector=str(tmp_path / "moved"))


@pytest.mark.parametrize("category", [None, "top0"])
def test_a_hybrid_search_is_the_fusion_of_both_rankings(make_night, items, with_tower, warehouse, category):
    night, data = published(make_night, items)
    assert len(manifest.load_current(warehouse.root).shards) > 3 and data.n < DEPTH  # several shards, and rankings without an end
    vector = QueryTower.load(with_tower / FOLDER).encode_queries([QUERY])[0]

    def inside(path):
        return category is None or path.startswith("top0 ")

    words = by_words(warehouse.root, data, QUERY, inside)
    expected = fused(by_vectors(data, vector, inside), words)
    hits = search(settings_with(night, with_tower), text=QUERY, hybrid=True, category=category, k=90)
    assert [hit["item_id"] for hit in hits] == [item for item, _ in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([score for _, score in expected])
    assert hits[0]["title"] == f"title {data.ids.index(hits[0]['item_id'])}" and all(inside(hit["category"]) for hit in hits)
    assert search(settings_with(night, with_tower), text=QUERY, hybrid=True, category=category, k=4) == hits[:4]

    # words that no item has leave the ranking by vectors
    strange = QueryTower.load(with_tower / FOLDER).encode_queries(["zebra"])[0]
    hits = search(settings_with(night, with_tower), text="zebra", hybrid=True, category=category, k=90)
    assert [hit["item_id"] for hit in hits] == by_vectors(data, strange, inside)


def test_the_index_of_words_is_made_once_for_each_generation(make_night, items, warehouse, cache, monkeypatch):
    night, data = published(make_night, items)
    root, first = warehouse.root, manifest.load_current(warehouse.root)

    def find(text):
        return [hit["item_id"] for hit in search(night.settings, text=text, hybrid=True, k=3)]

    assert not (cache / "bm25").exists()
    found = find("title 7")
    folder = texts.cached_folder(first)
    assert [p for p in folder.parent.iterdir()] == [folder] and cache in folder.parents
    inodes = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}
    assert find("title 7") == found and {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()} == inodes

    # a damaged index is made again
    (folder / POSTINGS).write_bytes(b"half")
    assert find("title 7") == found and len(texts.TextIndex.load(str(folder))) == 90

    # another generation with another title has another index, and finds the new word; the old one is kept for a rollback
    night.spark.sql(f"UPDATE tgq.catalog_items SET title = 'zebra' WHERE item_id = '{data.ids[50]}'")
    later = make_night("night-2", index={"max_shard_items": 25})
    build.build_index(later)
    generations.publish_index(later, VERSIONS)
    second = texts.cached_folder(manifest.load_current(root))
    assert second != folder and not second.exists()
    vectors, both = ([hit["item_id"] for hit in search(night.settings, text="zebra", hybrid=h, k=90)] for h in (False, True))
    assert both.index(data.ids[50]) < vectors.index(data.ids[50]) and second.is_dir() and folder.is_dir()

    # beyond the number that is kept the least lately used goes
    monkeypatch.setattr(texts, "KEPT", 2)
    night.spark.sql(f"UPDATE tgq.catalog_items SET title = 'lion' WHERE item_id = '{data.ids[51]}'")
    last = make_night("night-3", index={"max_shard_items": 25})
    build.build_index(last)
    generations.publish_index(last, VERSIONS)
    find("lion")
    assert sorted(folder.parent.iterdir()) == sorted([second, texts.cached_folder(manifest.load_current(root))])

    # a cache that cannot be written costs time only
    (cache.parent / "file").write_text("")
    monkeypatch.setenv("TGQ_CACHE", str(cache.parent / "file"))
    assert len(texts.text_index(root, manifest.load_current(root))) == 90 and Path(cache.parent / "file").is_file()


def test_mistakes_of_a_search_by_words(make_night, items):
    night, data = published(make_night, items, n=30)
    for query, said in (({"item_id": data.ids[0]}, "compares words, and there is no text"), ({"text": " \t"}, "the text of the search is empty")):
        with pytest.raises(UsageError, match=said) as caught:
            search(night.settings, hybrid=True, **query)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no category 'nowhere'"):
        search(night.settings, text="title", hybrid=True, category="nowhere")
