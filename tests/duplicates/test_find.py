"""Clusters of near-duplicates on real Spark and Delta: those of brute force, made only when pictures change, and what neighbours and metrics make of them."""

import hashlib
import shutil

import numpy as np
import pytest

import tgq
from tests.fixtures.nights import append
from tgq.duplicates.find import connected, find_duplicates, linked
from tgq.errors import ConfigError
from tgq.evaluation.evaluate import evaluate
from tgq.images.phash import PLAIN
from tgq.index import neighbors
from tgq.publishing.views import define_views
from tgq.retrieval import manifest
from tgq.settings.load import load_settings
from tgq.upkeep.needed import needed
from tgq.upkeep.tasks import tasks

ON = {"enabled": True, "max_distance": 3}


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def clusters_of(spark, codes: np.ndarray, most: int, large: int) -> set[frozenset[tuple[int, int]]]:
    frame = spark.createDataFrame(codes.tolist(), "hash long, colour int")
    rows = connected(linked(frame, len(codes), (most, 8), large)).collect()
    assert len({(row.hash, row.colour) for row in rows}) == len(rows)
    found: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for row in rows:
        found.setdefault((row.root, row.root_colour), set()).add((row.hash, row.colour))
    assert all(root == min(members) for root, members in found.items())
    return {frozenset(members) for members in found.values()}


def brute(codes: np.ndarray, most: int) -> set[frozenset[tuple[int, int]]]:
    hashes, colours = np.ascontiguousarray(codes[:, 0]).view(np.uint64), codes[:, 1]
    near = (np.bitwise_count(hashes[:, None] ^ hashes[None]) <= most) & (np.abs(colours[:, None] - colours[None]) <= 8)  # shades of blue
    label = np.arange(len(codes))
    while (least := np.where(near, label[None], len(label)).min(axis=1)).tolist() != label.tolist():
        label = least
    groups = [frozenset(map(tuple, codes[label == one].tolist())) for one in np.unique(label)]
    return {group for group in groups if len(group) > 1}


@pytest.mark.parametrize(("most", "large"), [(0, 100), (2, 10_000), (5, 10_000), (5, 20), (9, 30)])
def test_clusters_are_those_of_brute_force_also_where_buckets_are_cut_again(spark, most, large):
    rng = np.random.default_rng(most)
    free, alike = (rng.integers(0, 2**64, n, dtype=np.uint64) for n in (150, 4))
    copies = [int(h) ^ sum(1 << int(b) for b in rng.choice(64, rng.integers(1, 8), replace=False)) for h in rng.choice(free, 80)]
    skewed = [int(h) ^ sum(1 << int(b) for b in rng.choice(range(0, 64, 2), rng.integers(1, 9), replace=False)) for h in rng.choice(alike, 250)]
    hashes = np.array([*free.tolist(), *copies, *skewed], np.uint64).view(np.int64)
    codes = np.unique(np.stack([hashes, rng.choice([0, 5, 200], len(hashes), p=[0.6, 0.3, 0.1])], axis=1), axis=0)
    assert clusters_of(spark, codes, most, large) == brute(codes, most)


def hashed(night, rows: dict[str, int], colours: dict[str, int] | None = None) -> None:
    append(night, "picture_hashes", [
        dict(image_hash=picture, perceptual_hash=code, colour=(colours or {}).get(picture, 0xFF0000), run_id=night.run_id) for picture, code in rows.items()
    ])  # fmt: skip


def rows_of(night) -> dict[str, tuple]:
    return {row.image_hash: (row.canonical_hash, row.distance, row.pictures) for row in night.warehouse.read("picture_clusters").collect()}


@pytest.fixture
def shop(make_night, items):
    """A night whose items 4 to 8 have near-duplicates: 4 and 5 share a hash, 6 and 7 are 2 and 4 bits away, 8 is unlike them, 9 and 10 are plain, and 11 is
    what 4 is in another colour."""

    def make(run_id="night-1", **sections):
        night = make_night(run_id, **({"duplicates": ON} | sections))
        return night

    night, data = make(), items(n=60, styles=6)
    data.write(night)
    codes = {4: 0b1111 << 20, 5: 0b1111 << 20, 6: 0b111111 << 20, 7: (0b111111 << 20) | 0b11 << 50, 8: -1, 9: PLAIN, 10: PLAIN, 11: 0b1111 << 20}
    hashed(night, {data.image_hash[i]: code for i, code in codes.items()}, {data.image_hash[11]: 0x0000FF})
    return make, night, data, {data.image_hash[i]: code for i, code in codes.items()}


def test_a_night_without_new_pictures_makes_nothing_again(shop):
    make, night, data, codes = shop
    figures = find_duplicates(night)
    alike = [data.image_hash[i] for i in (4, 5, 6, 7)]
    assert rows_of(night) == {picture: (min(alike), (codes[picture] ^ codes[min(alike)]).bit_count(), 4) for picture in alike}
    assert {k: figures[k] for k in ("pictures", "unknown", "plain", "clusters", "in_clusters", "largest", "carried")} == {
        "pictures": 8, "unknown": 50, "plain": 2, "clusters": 1, "in_clusters": 4, "largest": 4, "carried": False}  # fmt: skip

    night.spark.sql("UPDATE tgq.catalog_items SET title = 'another', last_run_id = 'x'")
    version = night.warehouse.version("picture_clusters")
    assert find_duplicates(make("night-2"))["carried"] and night.warehouse.version("picture_clusters") == version
    night.spark.sql(f"UPDATE tgq.catalog_items SET is_active = false WHERE item_id = '{data.ids[6]}'")
    assert not find_duplicates(make("night-3"))["carried"]
    assert {p for p in rows_of(night)} == {data.image_hash[4], data.image_hash[5]}, "without the picture between them, 7 is too far away"
    assert find_duplicates(make("night-4", duplicates=ON | {"max_distance": 4}))["in_clusters"] == 3
    assert find_duplicates(make("night-5", duplicates=ON | {"max_colour_difference": 255}))["in_clusters"] == 3, "4, 5 and 11"


def test_a_hash_that_many_pictures_share_is_compared_once(make_night):
    night = make_night(duplicates=ON)
    pictures = [sha(f"white {i}") for i in range(3000)]
    catalog = [dict(item_id=f"i{n}", image_hash=p, content_hash=p, is_active=True) for n, p in enumerate(pictures)]
    append(night, "catalog_items", catalog)
    hashed(night, dict.fromkeys(pictures, 12345))
    figures = find_duplicates(night)
    assert (figures["clusters"], figures["largest"], figures["in_clusters"]) == (1, 3000, 3000)
    assert set(rows_of(night).values()) == {(min(pictures), 0, 3000)}


def test_near_duplicates_are_no_neighbours_and_no_candidates(shop):
    make, night, data, _ = shop
    data.vectors[4:8] = data.vectors[4]  # so that they are each other's nearest
    night.spark.sql("DELETE FROM tgq.item_embeddings")
    night.spark.sql("DELETE FROM tgq.catalog_items")
    data.write(night, features=False)
    find_duplicates(night)
    near = {data.ids[i] for i in (4, 5, 6, 7)}

    def first(night):
        neighbors.build_neighbors(night)
        rows = night.spark.read.parquet(night.staging("neighbors")).where(f"item_id = '{data.ids[4]}' AND rank <= 3").collect()
        return {row.neighbor_id for row in rows}

    plain, without = make("plain"), make("without", neighbors={"block_rows": 64, "exclude_duplicates": True})
    assert first(plain) == near - {data.ids[4]}
    assert len(first(without)) == 3 and not first(without) & near

    # a pair of every item with item 20; items 5 to 7 rank before it for item 4
    data.write_pairs(night, [(4, 20, 1.0), (4, 5, 1.0), (30, 20, 1.0)])
    options = {"baselines": False, "replicates": 20, "slices": ()}

    def rank(name, **more):
        night = make(name, evaluate=options | more)
        done = evaluate(night)
        return done.figures["pairs"]["positives"], done.figures["metrics"]

    counted, with_them = rank("with")
    fewer, without_them = rank("left-out", exclude_duplicates=True)
    assert (counted, fewer) == (3, 2), "a near-duplicate of the query's picture is no positive"
    order = np.argsort(-(data.vectors @ data.vectors[4]), kind="stable").tolist()
    before = sum(1 for i in order[: order.index(20)] if i not in (4, 5, 6, 7))
    other = np.argsort(-(data.vectors @ data.vectors[30]), kind="stable").tolist()
    assert pytest.approx((1 / (before + 1) + 1 / other.index(20)) / 2, abs=1e-6) == next(v for k, v in without_them.items() if k.endswith("/mrr"))
    assert next(v for k, v in with_them.items() if k.endswith("/mrr")) != next(v for k, v in without_them.items() if k.endswith("/mrr"))


def test_analysts_see_duplicates_through_spark_and_without_it(shop):
    _, night, data, _ = shop
    find_duplicates(night)
    tables = night.warehouse.versions("catalog_items", "item_embeddings", "item_neighbors")
    made = dict(generation="g", run_id="r", model_version="m", encoder="default", created_at="2026-01-02T03:00:00+00:00")
    manifest.publish(night.warehouse.root, manifest.Manifest(**made, tables=tables))
    define_views(night.spark, night.warehouse)
    there = sorted((r.item_id, r.canonical_image_hash, r.distance, r["items"]) for r in night.spark.table("duplicate_pictures").collect())
    first = min(data.image_hash[i] for i in (4, 5, 6, 7))
    assert [(i, c, n) for i, c, _, n in there] == sorted(
        [(data.ids[i], data.image_hash[i], 2) for i in range(4)] + [(data.ids[i], first, 4) for i in (4, 5, 6, 7)]
    ), "items 0 and 1, and 2 and 3, have the same picture, which needs no hash"
    here = tgq.open_warehouse(night.warehouse.root).sql("SELECT item_id, canonical_image_hash, distance, items FROM duplicate_pictures ORDER BY item_id")
    assert [tuple(row.values()) for row in here.to_pylist()] == there


def test_a_warehouse_of_an_earlier_version_is_read_without_the_new_tables(shop):
    _, night, *_ = shop
    for table in ("picture_hashes", "picture_clusters"):
        shutil.rmtree(f"{night.warehouse.root}/{table}")
    assert tgq.open_warehouse(night.warehouse.root).sql("SELECT * FROM duplicate_pictures").num_rows == 0


def test_upkeep_removes_hashes_of_pictures_that_no_item_has(shop):
    _, night, data, _ = shop
    hashed(night, {sha("gone"): 5})
    night.spark.sql(f"UPDATE tgq.catalog_items SET is_active = false WHERE item_id = '{data.ids[4]}'")
    keep = needed(night.settings, night.warehouse.root)
    task = next(t for t in tasks(night.warehouse, night.settings, keep, print) if t.name.startswith("picture_hashes: rows"))
    assert task.found == 1
    task.remove()
    left = {row.image_hash for row in night.warehouse.read("picture_hashes").collect()}
    assert left == {data.image_hash[i] for i in range(4, 12)}, "inactive items may come back"


def test_near_duplicates_that_are_not_looked_for_cannot_be_excluded():
    with pytest.raises(ConfigError, match="exclude_duplicates: true, but duplicates.enabled is false"):
        load_settings([], ["neighbors.exclude_duplicates=true"], {})
