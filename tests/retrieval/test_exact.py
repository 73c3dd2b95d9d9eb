"""Exact search against the plain definition: all scores, one sort."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.retrieval import exact
from tgq.retrieval.exact import Block, Exclude, merge_top, pack, score_pairs, search_blocks, unpack


def plain_search(queries, pool, positions, k, own=None, images=None, query_images=None):
    """The definition, in float64, one query at a time."""
    scores = np.full((len(queries), k), -np.inf, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for i, query in enumerate(queries):
        row = np.round(pool.astype(np.float64) @ query.astype(np.float64), 6)
        keep = np.ones(len(pool), bool)
        if own is not None:
            keep &= positions != own[i]
        if images is not None:
            keep &= ~((images == query_images[i]) & (images != 0))
        order = [j for j in np.lexsort((positions, -row)) if keep[j]][:k]
        scores[i, : len(order)], found[i, : len(order)] = row[order], positions[order]
    return scores, found


def cut(pool, positions, images, edges):
    bounds = [0, *sorted(edges), len(pool)]
    return [Block(pool[a:b], positions[a:b], images[a:b]) for a, b in itertools.pairwise(bounds)]


def unit(rng, n, dim, clusters=12, spread=0.5):
    centres = rng.standard_normal((clusters, dim))
    x = centres[rng.integers(0, clusters, n)] + spread * rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_cut_of_the_pool_gives_the_plain_answer(data):
    # Entries are small multiples of 1/4: scores are exact in any arithmetic and ties are everywhere.
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, q, dim = data.draw(st.integers(0, 80)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 5))
    k = data.draw(st.integers(1, 40))
    levels = data.draw(st.integers(0, 2))  # 0: every vector is the same
    pool = (rng.integers(-levels, levels + 1, (n, dim)) / 4).astype(np.float32)
    queries = (rng.integers(-levels, levels + 1, (q, dim)) / 4).astype(np.float32)
    positions = rng.permutation(1000)[:n].astype(np.int64)
    images = rng.integers(0, data.draw(st.integers(1, 6)), n).astype(np.uint64)
    query_images = rng.integers(0, 6, q).astype(np.uint64)
    own = rng.integers(-1, 1000, q) if n == 0 else rng.choice(np.append(positions, -1), q)
    edges = data.draw(st.lists(st.integers(0, n), max_size=6))
    blocks = cut(pool, positions, images, edges)
    data.draw(st.randoms()).shuffle(blocks)

    with pytest.MonkeyPatch.context() as patch:  # tiles of all sizes, so that their seams are crossed too
        patch.setattr(exact, "QUERY_TILE", data.draw(st.integers(1, 10)))
        patch.setattr(exact, "POOL_TILE", data.draw(st.integers(1, 30)))
        patch.setattr(exact, "SLACK", data.draw(st.integers(0, 16)))
        scores, found = search_blocks(queries, iter(blocks), k, Exclude(own, query_images))

    wanted_scores, wanted = plain_search(queries, pool, positions, k, own, images, query_images)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_real_valued_vectors_in_any_blocks_give_bitwise_equal_answers():
    rng = np.random.default_rng(3)
    pool = unit(rng, 3000, 64)
    pool[500:560] = pool[500]  # a crowd of copies larger than the slack
    positions = rng.permutation(3000).astype(np.int64)
    queries, own = pool[480:900], positions[480:900]
    whole = search_blocks(queries, [Block(pool, positions)], 20, Exclude(own))
    for edges in ([1], [100, 1500], list(range(0, 3000, 77))):
        part = search_blocks(
            queries, cut(pool, positions, np.zeros(3000, np.uint64), edges), 20, Exclude(own)
        )
        np.testing.assert_array_equal(whole[0], part[0])
        np.testing.assert_array_equal(whole[1], part[1])
    for rows in (slice(0, 1), slice(17, 200)):
        part = search_blocks(queries[rows], [Block(pool, positions)], 20, Exclude(own[rows]))
        np.testing.assert_array_equal(whole[1][rows], part[1])
    true = np.sort(
        np.where(own[:, None] == positions, -np.inf, queries.astype(float) @ pool.T.astype(float))
    )[:, ::-1]
    np.testing.assert_allclose(whole[0], true[:, :20], atol=2e-6)
    assert not (whole[1] == own[:, None]).any()


def test_an_encoder_that_collapsed_returns_the_first_positions():
    pool = np.tile(unit(np.random.default_rng(0), 1, 32), (5000, 1))
    positions = np.random.default_rng(1).permutation(5000).astype(np.int64)
    scores, found = search_blocks(
        pool[:3], [Block(pool[:2000], positions[:2000]), Block(pool[2000:], positions[2000:])], 50
    )
    np.testing.assert_array_equal(found, np.tile(np.arange(50), (3, 1)))
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_same_image_items_beyond_the_slack_are_replaced_by_the_next_best():
    rng = np.random.default_rng(5)
    pool = unit(rng, 400, 16)
    pool[:100] = pool[0]
    images = np.r_[np.full(100, 7), np.zeros(300)].astype(np.uint64)
    _, found = search_blocks(
        pool[:5], [Block(pool, np.arange(400), images)], 10, Exclude(np.arange(5), np.full(5, 7, np.uint64))
    )
    assert (found >= 100).all()


def test_parts_of_a_pool_merge_to_the_whole():
    rng = np.random.default_rng(7)
    pool, positions = unit(rng, 900, 24), rng.permutation(900).astype(np.int64)
    whole = search_blocks(pool[:50], [Block(pool, positions)], 30)
    parts = [
        search_blocks(pool[:50], [Block(pool[a:b], positions[a:b])], 30)
        for a, b in ((0, 10), (10, 400), (400, 900))
    ]
    for got, wanted in zip(merge_top(parts, 30), whole, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert (merge_top(parts[:1], 30)[1][:, 10:] == -1).all()


@given(
    scores=st.lists(st.floats(-10, 10, width=32).map(lambda x: x + 0.0), min_size=2, max_size=30),
    seed=st.integers(0, 99),
)
def test_keys_sort_by_score_then_position_and_come_back(scores, seed):
    scores = np.array(scores, np.float32)
    positions = np.random.default_rng(seed).permutation(len(scores)) + 2**32 - 40
    keys = pack(scores, positions)
    np.testing.assert_array_equal(np.argsort(keys), np.lexsort((positions, -scores)))
    back = unpack(keys)
    np.testing.assert_array_equal(back[0], scores)
    np.testing.assert_array_equal(back[1], positions)


@pytest.mark.parametrize("dim", [3, 16, 31, 256])
def test_a_pair_scores_the_same_wherever_it_stands(dim):
    rng = np.random.default_rng(dim)
    row, query = rng.standard_normal(dim).astype(np.float32), rng.standard_normal((1, dim)).astype(np.float32)
    scores = {
        float(score_pairs(query, np.tile(row, (place + 1, 1)), np.array([[place]]))[0, 0])
        for place in range(9)
    }
    assert len(scores) == 1


def test_bad_input_is_named():
    block = Block(np.zeros((2, 3), np.float32), np.arange(2))
    with pytest.raises(ValueError, match="k must be"):
        search_blocks(np.zeros((1, 3)), [block], 0)
    with pytest.raises(ValueError, match=r"expected \[n, 4\]"):
        search_blocks(np.zeros((1, 4)), [block], 1)
    with pytest.raises(ValueError, match="not finite"):
        search_blocks(np.array([[np.nan, 0, 0]]), [block], 1)
    with pytest.raises(ValueError, match="image codes"):
        search_blocks(np.zeros((1, 3)), [block], 1, Exclude(images=np.ones(1, np.uint64)))
    with pytest.raises(ValueError, match="positions"):
        Block(np.zeros((2, 3)), np.array([0, 2**32]))
    with pytest.raises(ValueError, match="1 positions for 2"):
        Block(np.zeros((2, 3)), np.arange(1))
