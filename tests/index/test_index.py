from pathlib import Path

import numpy as np
import pytest

from tgq.errors import UsageError, WarehouseError
from tgq.index import build, carrying, generations
from tgq.index.pool import read_block, write_pool
from tgq.index.search import is_under, search
from tgq.retrieval import manifest
from tgq.retrieval.shards import open_shards, search_shards

VERSIONS = {"catalog_items": 1, "item_embeddings": 1, "item_neighbors": 0}


def places(shards):
    return {(file.category, file.shard): file.path for file in shards}


def test_an_unchanged_night_takes_the_pool_and_the_shards_over(make_night, items, warehouse):
    night, data = make_night(), items(n=60, styles=12)
    data.write(night)
    first, pool = build.build_index(night), carrying.find_pool(night)
    generations.publish_index(night, VERSIONS)

    second = make_night("night-2")
    again = build.build_index(second)
    assert not Path(second.staging("pool")).exists()  # neither shuffled nor written
    assert (again.figures["built"], again.figures["carried"], again.rows_in, again.rows_out) == (0, 3, first.rows_in, first.rows_out)
    described, written = carrying.find_pool(second), write_pool(second)
    assert described == written and described.digest == pool.digest and read_block(written, written.blocks[0]).vectors.shape[1] == 16

    # another setting, a file that is gone, another title: planned again
    other = build.build_index(make_night("night-3", index={"recall_target": 0.5}))
    assert other.figures["built"] == 3
    lost = generations.published_shards(warehouse)[0]
    Path(warehouse.path(lost.path)).unlink()
    build.build_index(make_night("night-4"))
    assert Path(warehouse.path(lost.path)).exists()
    night.spark.sql(f"UPDATE tgq.catalog_items SET title = 'renamed' WHERE item_id = '{data.ids[0]}'")
    renamed = make_night("night-5")
    build.build_index(renamed)
    assert carrying.find_pool(renamed).versions != pool.versions and Path(renamed.staging("pool")).exists()


def test_only_changed_categories_are_rebuilt_and_a_rollback_brings_the_old_ones_back(make_night, items, warehouse):
    night, data = make_night(), items(n=120, styles=12)
    data.write(night)
    first = build.build_index(night)
    assert (first.rows_in, first.rows_out) == (120, 120)
    assert (first.figures["shards"], first.figures["built"], first.figures["carried"], first.figures["removed"]) == (3, 3, 0, 0)
    assert first.figures["recall_at_k_min"] == 1.0
    again = build.build_index(night)  # taken up again: the same, and nothing is built a second time
    timing = ("plan_seconds", "build_seconds")
    assert {k: v for k, v in again.figures.items() if k not in timing} == {k: v for k, v in first.figures.items() if k not in timing}

    # staged is not published
    root = warehouse.root
    assert manifest.load_current(root) is None and warehouse.read("index_shards").count() == 0
    with pytest.raises(WarehouseError, match="nothing is published"):
        search(night.settings, item_id=data.ids[0])
    published = generations.publish_index(night, VERSIONS)
    assert (published.generation, published.tables) == ("night-1", VERSIONS)
    version = warehouse.version("index_shards")
    assert generations.publish_index(night, VERSIONS) == published and warehouse.version("index_shards") == version
    assert {(r.category, r.shard, r.n_items, r.generation) for r in warehouse.read("index_shards").collect()} == {
        (file.category, file.shard, file.n_items, "night-1") for file in published.shards
    }

    # what the shards find is what numpy finds
    scores, ids = search_shards(open_shards(root, published.shards), data.vectors[:5], 4)
    exact = np.sort(data.vectors[:5] @ data.vectors.T, axis=1)[:, ::-1][:, :4]
    assert np.allclose(scores, exact, atol=1e-5)

    # one item of one category changes, another is renamed: one category is rebuilt for each
    spark = night.spark
    changed = next(i for i in range(120) if data.category[i] == "top1 > c1")
    renamed = next(i for i in range(120) if data.category[i] == "top0 > c0")
    spark.sql(f"UPDATE tgq.catalog_items SET content_hash = 'new' WHERE item_id = '{data.ids[changed]}'")
    spark.sql(f"UPDATE tgq.item_embeddings SET content_hash = 'new', embedding = array_repeat(CAST(0.25 AS FLOAT), 16) WHERE item_id = '{data.ids[changed]}'")
    spark.sql(f"UPDATE tgq.catalog_items SET title = 'renamed' WHERE item_id = '{data.ids[renamed]}'")
    later = make_night("night-2", index={"keep_generations": 2})
    second = build.build_index(later)
    assert (second.figures["built"], second.figures["carried"]) == (2, 1)
    generations.publish_index(later, VERSIONS)
    old, new = places(published.shards), places(manifest.load_current(root).shards)
    assert {place for place in old if old[place] != new[place]} == {("top1 > c1", 0)}  # a title is in the sidecar only
    assert [hit["title"] for hit in search(later.settings, item_id=data.ids[renamed], k=200) if hit["title"] == "renamed"] == []
    other = data.ids[renamed + 12]  # of the same style
    assert "renamed" in [hit["title"] for hit in search(later.settings, item_id=other, k=200)]

    # a category that vanished leaves the index
    spark.sql("UPDATE tgq.catalog_items SET is_active = false WHERE category = 'top1 > c1'")
    third_night = make_night("night-3", index={"keep_generations": 2})
    third = build.build_index(third_night)
    assert (third.figures["shards"], third.figures["built"], third.figures["removed"]) == (2, 0, 1)
    Path(root, manifest.GENERATIONS, "night-3").mkdir()  # as a run leaves it that ends while it writes its manifest
    generations.publish_index(third_night, VERSIONS)
    assert [(g.generation, g.current, g.n_items) for g in generations.generations(root)] == [("night-3", True, 80), ("night-2", False, 120)]
    assert not (Path(root) / old["top1 > c1", 0]).exists() and (Path(root) / new["top1 > c1", 0]).exists()
    assert generations.rollback(warehouse).generation == "night-2"
    assert len({hit["category"] for hit in search(later.settings, item_id=data.ids[0], k=200)}) == 3
    with pytest.raises(WarehouseError):
        generations.rollback(warehouse, "night-1")


def test_a_large_category_is_split_and_search_filters_by_category(make_night, items, warehouse):
    night, data = make_night(index={"max_shard_items": 25}), items(n=120, styles=12)
    with pytest.raises(UsageError, match="no staged shards"):
        generations.publish_index(night, VERSIONS)
    data.write(night)
    result = build.build_index(night)
    assert result.figures["shards"] == 6 and result.rows_out == 120
    generations.publish_index(night, VERSIONS)
    settings = night.settings

    row = 7
    expected = [j for j in np.argsort(-(data.vectors @ data.vectors[row])) if j != row]
    hits = search(settings, item_id=data.ids[row], k=5)
    assert [hit["item_id"] for hit in hits] == [data.ids[j] for j in expected[:5]]
    assert hits[0]["title"] == f"title {expected[0]}" and hits[0]["brand"] == data.brand[expected[0]]
    assert hits[0]["score"] == pytest.approx(float(data.vectors[row] @ data.vectors[expected[0]]), abs=1e-5)

    inside = [j for j in expected if data.category[j].startswith("top1 ")]
    hits = search(settings, item_id=data.ids[row], category="TOP1", k=5)
    assert [hit["item_id"] for hit in hits] == [data.ids[j] for j in inside[:5]]
    with pytest.raises(UsageError, match="no category 'top'"):
        search(settings, item_id=data.ids[row], category="top")
    with pytest.raises(UsageError, match="not published"):
        search(settings, item_id="nobody")

    # rebuilt only where it changed, also inside a split category
    night.spark.sql(f"UPDATE tgq.catalog_items SET title = 'other' WHERE item_id = '{data.ids[row]}'")
    assert build.build_index(make_night("night-2", index={"max_shard_items": 25})).figures["built"] == 1


def test_search_by_words_and_by_a_picture_runs_the_encoder(make_night, items, tmp_path):
    from PIL import Image

    night, data = make_night(), items(n=30, dim=32)
    data.write(night)
    build.build_index(night)
    generations.publish_index(night, VERSIONS)
    assert len(search(night.settings, text="red shoe", k=3)) == 3
    picture = tmp_path / "shoe.png"
    Image.new("RGB", (40, 60), (200, 30, 30)).save(picture)
    hits = search(night.settings, image=picture, category="top0", k=100)
    assert len(hits) == sum(c.startswith("top0 ") for c in data.category)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    picture.write_bytes(b"no picture")
    with pytest.raises(UsageError, match="not an image"):
        search(night.settings, image=picture)
    with pytest.raises(UsageError, match="cannot be read"):
        search(night.settings, image=tmp_path / "absent.png")


@pytest.mark.parametrize(
    "category, wanted, under",
    [("A > B > C", "a > b", True), ("A > B", "A>B", True), ("Caf\u00e9 > A", "cafe\u0301", True), ("Cafe\u0301", "CAF\u00c9", True),
     ("Cafe", "Caf\u00e9", False), ("Ab > C", "A", False), ("A", "A > B", False)],
)  # fmt: skip
def test_a_category_filter_is_a_path_prefix(category, wanted, under):
    assert is_under(category, wanted) is under
