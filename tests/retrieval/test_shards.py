"""Shards: the right index for the budget, safe names, nothing read unchecked, answers against exact
search."""

import dataclasses
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.errors import ConfigError, WarehouseError
from tgq.metrics.shard_recall import draw_sample, sample_recall, tune_search, verify_shard
from tgq.retrieval import shards
from tgq.retrieval.exact import Block, search_blocks
from tgq.retrieval.factory import choose_factory
from tgq.retrieval.shards import assign_shards, build_shard, members_digest, n_shards, open_shards, read_shard, search_shards, slug, write_shard

GIB = 2**30


def clustered(n, dim=32, seed=0, centres=60):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((centres, dim))[rng.integers(0, centres, n)] + 0.5 * rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def names(n, prefix="item"):
    return [f"{prefix}-{i:05d}" for i in range(n)]


@pytest.mark.parametrize(
    ("n", "dim", "budget", "factory"),
    [
        (0, 256, GIB, "Flat"),
        (10_000, 256, GIB, "Flat"),
        (10_001, 256, GIB, "HNSW32,Flat"),
        (1_000_000, 256, 2 * GIB, "HNSW32,Flat"),
        (1_000_000, 256, int(1.1 * GIB), "IVF4000,Flat"),
        (1_000_000, 256, GIB // 2, "IVF4000,SQ8"),
        (1_000_000, 256, GIB // 6, "IVF4000,PQ128x4fs"),
        (12_000, 30, 330_000, "IVF307,PQ15x4fs"),
    ],
)
def test_the_factory_follows_size_and_budget(n, dim, budget, factory):
    assert choose_factory(n, dim, budget) == factory


def test_a_budget_that_nothing_fits_is_named():
    with pytest.raises(ConfigError, match="1,000,000 items .* raise the memory budget"):
        choose_factory(1_000_000, 256, 1_000_000)


@pytest.mark.parametrize("factory", ["HNSW32,Flat", "IVF307,Flat", "IVF307,SQ8", "IVF307,PQ16x4fs"])
def test_an_index_takes_no_more_than_the_budget_it_was_chosen_for(factory):
    n, dim = 12_000, 32
    budget = min(b for b in range(200_000, 6_000_000, 20_000) if chosen(n, dim, b) == factory)
    shard, used = build_shard(clustered(n, dim), names(n), factory, seed=0)
    assert used == factory
    assert faiss.serialize_index(shard.index).nbytes <= budget


def chosen(n, dim, budget):
    try:
        return choose_factory(n, dim, budget)
    except ConfigError:
        return None


@pytest.mark.parametrize(
    ("n", "factory", "used"),
    [
        (500, "IVF64,Flat", "IVF12,Flat"),
        (50, "IVF64,Flat", "Flat"),
        (500, "IVF4,PQ8x4fs", "Flat"),
        (1, "HNSW32,Flat", "HNSW32,Flat"),
    ],
)
def test_too_few_training_points_fall_back(n, factory, used):
    shard, got = build_shard(clustered(n), names(n), factory, seed=0)
    assert got == used and shard.index.ntotal == n


def test_a_written_shard_reads_back_and_finds_its_items(tmp_path):
    vectors, ids = clustered(3000), names(3000)
    order = np.random.default_rng(1).permutation(3000)
    shard, factory = build_shard(vectors[order], [ids[i] for i in order], "IVF40,Flat", seed=0)
    file = write_shard(tmp_path, shard, "shoes > running", 0, factory, "digest")
    sample = draw_sample(vectors[order], [ids[i] for i in order], k=10, size=100)
    judged = verify_shard(tmp_path, file, ids, sample)
    assert judged.recall_at_k >= 0.95 and 1 <= judged.search["nprobe"] < 40
    assert judged.n_items == 3000 and judged.members_digest == "digest"
    again = write_shard(
        tmp_path, build_shard(vectors, ids, "IVF40,Flat", seed=0)[0], "shoes > running", 0, factory, "digest"
    )
    assert again == file  # content-addressed: the input's order does not matter
    assert len(list((tmp_path / shards.FOLDER).iterdir())) == 2
    opened = open_shards(tmp_path, [judged])
    _, found = search_shards(opened, vectors[:50], 1)
    assert found[:, 0].tolist() == ids[:50]


def test_several_shards_answer_like_one_pool(tmp_path):
    vectors, ids = clustered(1200), names(1200)
    category = np.random.default_rng(2).integers(0, 3, 1200)
    files = []
    for code in range(3):
        members = np.flatnonzero(category == code)
        part = assign_shards([ids[i] for i in members], n_shards(len(members), 250))
        for number in range(part.max() + 1):
            rows = members[part == number]
            shard, factory = build_shard(vectors[rows], [ids[i] for i in rows], "Flat", seed=0)
            files.append(write_shard(tmp_path, shard, f"c{code}", number, factory))
    assert len(files) == 6 and sum(file.n_items for file in files) == 1200
    opened = open_shards(tmp_path, files)
    scores, found = search_shards(opened, vectors[:40], 15)
    wanted_scores, wanted = search_blocks(vectors[:40], [Block(vectors, np.arange(1200))], 15)
    assert found.tolist() == np.array(ids)[wanted].tolist()
    np.testing.assert_allclose(scores, wanted_scores, atol=2e-6)
    _, only = search_shards(opened, vectors[:5], 500, category_filter={"c1"})
    inside = {ids[i] for i in np.flatnonzero(category == 1)}
    assert all({item for item in row if item is not None} == inside for row in only)
    assert search_shards(opened, vectors[:5], 3, category_filter=set())[1].tolist() == [[None] * 3] * 5
    assert {o.file.category for o in open_shards(tmp_path, files, {"c2"})} == {"c2"}


@pytest.mark.parametrize("which", ["path", "ids_path"])
def test_an_altered_or_missing_file_is_refused_before_faiss_sees_it(tmp_path, which, monkeypatch):
    shard, factory = build_shard(clustered(20), names(20), "Flat", seed=0)
    file = write_shard(tmp_path, shard, "a", 0, factory)
    target = tmp_path / getattr(file, which)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)
    monkeypatch.setattr(faiss, "deserialize_index", lambda _: pytest.fail("parsed before it was checked"))
    with pytest.raises(WarehouseError, match="sha256"):
        read_shard(tmp_path, file)
    target.unlink()
    with pytest.raises(WarehouseError, match="is missing"):
        read_shard(tmp_path, file)


def test_a_shard_that_is_not_what_was_built_is_refused(tmp_path):
    vectors, ids = clustered(30), names(30)
    shard, factory = build_shard(vectors, ids, "Flat", seed=0)
    file = write_shard(tmp_path, shard, "a", 0, factory)
    with pytest.raises(WarehouseError, match="the manifest says 29"):
        read_shard(tmp_path, dataclasses.replace(file, n_items=29))
    with pytest.raises(WarehouseError, match="does not hold the ids"):
        verify_shard(tmp_path, file, names(30, "other"), draw_sample(vectors, ids))
    for path in ("../outside.faiss", "/etc/passwd", "a//b", "a/../../b", "", "a\0b", "..\\b"):
        with pytest.raises(WarehouseError, match="leaves the warehouse"):
            read_shard(tmp_path, dataclasses.replace(file, path=path))


def test_recall_of_copies_is_not_a_matter_of_luck():
    vectors = np.repeat(
        clustered(20, seed=4), 50, axis=0
    )  # every item has 49 copies: any ten of them are right
    ids = names(1000)
    shard, _ = build_shard(vectors[::-1], ids[::-1], "HNSW32,Flat", seed=0)
    sample = draw_sample(vectors, ids, k=10)
    search, recall = tune_search(shard.index, sample)
    assert recall >= 0.95, search


def test_recall_counts_what_a_narrow_search_misses():
    vectors, ids = clustered(4000, centres=4000, seed=6), names(4000)
    shard, _ = build_shard(vectors, ids, "IVF60,Flat", seed=0)
    sample = draw_sample(vectors, ids)
    narrow = sample_recall(shard.index, sample, {"nprobe": 1})
    assert 0.02 < narrow < 0.7
    assert sample_recall(shard.index, sample, {"nprobe": 60}) == 1.0
    search, recall = tune_search(shard.index, sample, target=0.9)
    assert recall >= 0.9 > sample_recall(shard.index, sample, {"nprobe": search["nprobe"] // 2})
    search, recall = tune_search(build_shard(vectors, ids, "Flat", seed=0)[0].index, sample)
    assert search == {} and recall == 1.0


def test_a_shard_of_one_item_has_nothing_to_miss():
    vectors, ids = clustered(1), ["only"]
    assert tune_search(build_shard(vectors, ids, "Flat", seed=0)[0].index, draw_sample(vectors, ids)) == (
        {},
        1.0,
    )


@given(st.text(st.characters(), max_size=400))
def test_no_category_can_name_another_folder(category):
    name = slug(category)
    assert name.isascii() and len(name) <= 53 and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert Path("folder", name).parent == Path("folder")


@pytest.mark.parametrize(
    "category", ["../../etc", "a\0b", "x" * 5000, "кеды > 跑鞋", "\ud800", "", ".", "CON", "a/b\\c"]
)
def test_hostile_categories_are_written_and_read_in_the_folder(tmp_path, category):
    shard, factory = build_shard(clustered(3), names(3), "Flat", seed=0)
    file = write_shard(tmp_path, shard, category, 0, factory)
    assert (tmp_path / file.path).resolve().parent == (tmp_path / shards.FOLDER).resolve()
    assert read_shard(tmp_path, file).ids.tolist() == names(3)


def test_slugs_of_different_categories_differ():
    assert len({slug(c) for c in ("a b", "a-b", "A b", "a  b", "", "-")}) == 6


def test_shard_numbers_depend_on_the_id_alone():
    ids = names(5000)
    numbers = assign_shards(ids, 4)
    assert (assign_shards(ids[::-1], 4)[::-1] == numbers).all()
    assert np.bincount(numbers).min() > 1100
    assert n_shards(0, 10) == 1 and n_shards(10, 10) == 1 and n_shards(11, 10) == 2


def test_the_members_digest_sees_every_change_and_no_order():
    digest = members_digest(["a", "b"], ["1", "2"])
    assert digest == members_digest(["b", "a"], ["2", "1"])
    others = [
        (["a", "b"], ["1", "3"]),
        (["a"], ["1"]),
        (["a", "c"], ["1", "2"]),
        (["a", "b"], ["2", "1"]),
        (["a1", "b"], ["", "2"]),
    ]
    assert len({digest, *(members_digest(*other) for other in others)}) == 6


def test_bad_members_are_refused():
    with pytest.raises(ValueError, match="2 distinct"):
        build_shard(clustered(3), ["a", "a", "b"], "Flat", seed=0)
    with pytest.raises(ValueError, match="not finite"):
        build_shard(np.full((1, 4), np.nan), ["a"], "Flat", seed=0)
