"""Ranks against the plain definition, and against chance."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.metrics import ranks
from tgq.metrics.ranks import Positives, count_above, excluded_pairs, listed_above
from tgq.retrieval.exact import Block, Exclude, search_blocks


def plain_above(queries, pool, positions, positives, own, images, query_images, categories, query_categories):
    everywhere, inside = [], []
    for i, query in enumerate(queries):
        row = np.round(pool.astype(np.float64) @ query.astype(np.float64), 6)
        shown = (positions != own[i]) & ~((images == query_images[i]) & (images != 0))
        for pair in range(positives.offsets[i], positives.offsets[i + 1]):
            place = positives.positions[pair]
            score = np.round(positives.vectors[pair].astype(np.float64) @ query.astype(np.float64), 6)
            above = shown & (positions != place) & ((row > score) | ((row == score) & (positions < place)))
            everywhere.append(above.sum())
            inside.append((above & (categories == query_categories[i])).sum())
    return np.array(everywhere, int), np.array(inside, int)


def pick_positives(rng, pool, positions, own, most):
    offsets, chosen = [0], []
    for place in own:
        others = np.flatnonzero(positions != place)
        chosen.extend(rng.permutation(others)[: rng.integers(0, most + 1)])
        offsets.append(len(chosen))
    chosen = np.array(chosen, int)
    return Positives(np.array(offsets), positions[chosen], pool[chosen])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_counts_follow_the_definition_for_any_blocks_and_tiles(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, q, dim = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 8)), data.draw(st.integers(1, 4))
    levels = data.draw(st.integers(0, 2))
    pool = (rng.integers(-levels, levels + 1, (n, dim)) / 4).astype(np.float32)
    queries = (rng.integers(-levels, levels + 1, (q, dim)) / 4).astype(np.float32)
    positions = rng.permutation(500)[:n]
    own = rng.choice(np.append(positions, -1), q)
    images, query_images = rng.integers(0, 9, n).astype(np.uint64), rng.integers(0, 9, q).astype(np.uint64)
    categories, query_categories = rng.integers(0, 3, n), rng.integers(0, 3, q)
    positives = pick_positives(rng, pool, positions, own, 6)
    edges = [0, *sorted(data.draw(st.lists(st.integers(0, n), max_size=4))), n]
    blocks = [
        Block(pool[a:b], positions[a:b], images[a:b], categories[a:b]) for a, b in itertools.pairwise(edges)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "QUERY_TILE", data.draw(st.integers(1, 9)))
        patch.setattr(ranks, "POOL_TILE", data.draw(st.integers(1, 20)))
        patch.setattr(ranks, "NEAR", data.draw(st.integers(1, 30)))
        patch.setattr(ranks, "DIRECT", data.draw(st.sampled_from([0, ranks.DIRECT, 10**9])))  # never, by cost, wherever there are candidates
        got = count_above(queries, positives, blocks, Exclude(own, query_images), query_categories)
        parts = [
            count_above(queries, positives, [b], Exclude(own, query_images), query_categories) for b in blocks
        ]
    wanted = plain_above(
        queries, pool, positions, positives, own, images, query_images, categories, query_categories
    )
    np.testing.assert_array_equal(got.pool, wanted[0])
    np.testing.assert_array_equal(got.category, wanted[1])
    summed = sum(parts[1:], parts[0])
    np.testing.assert_array_equal(summed.pool, got.pool)
    np.testing.assert_array_equal(summed.category, got.category)


def clustered(rng, n, dim, spread=0.6):
    x = rng.standard_normal((15, dim))[rng.integers(0, 15, n)] + spread * rng.standard_normal((n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_ranks_are_the_places_in_an_exact_search():
    rng = np.random.default_rng(2)
    pool = clustered(rng, 800, 48)
    pool[300:340] = pool[300] + rng.normal(0, 1e-8, (40, 48)).astype(np.float32)
    positions = rng.permutation(800)
    queries, own = pool[280:400], positions[280:400]
    positives = pick_positives(rng, pool, positions, own, 5)
    above = count_above(
        queries,
        positives,
        [Block(pool[:333], positions[:333]), Block(pool[333:], positions[333:])],
        Exclude(own),
    )
    _, found = search_blocks(queries, [Block(pool, positions)], 799, Exclude(own))
    place = [
        int(np.flatnonzero(found[q] == p)[0])
        for q, p in zip(positives.rows, positives.positions, strict=True)
    ]
    np.testing.assert_array_equal(above.pool, place)
    assert above.category is None


@pytest.mark.parametrize("noise", [0.0, 2e-8])
def test_an_encoder_that_collapsed_scores_like_chance(noise):
    # Group members share even their noise, as they would when they are encoded in one batch.
    rng = np.random.default_rng(4)
    groups, size = 200, 4
    n = groups * size
    group = np.repeat(np.arange(groups), size)
    pool = (
        np.tile(clustered(rng, 1, 64), (n, 1))
        + noise * rng.standard_normal((groups, 64)).astype(np.float32)[group]
    )
    positions = rng.permutation(n)
    own = np.arange(n)
    offsets = np.arange(n + 1) * (size - 1)
    chosen = np.array([j for i in own for j in np.flatnonzero(group == group[i]) if j != i])
    above = count_above(
        pool,
        Positives(offsets, positions[chosen], pool[chosen]),
        [Block(pool, positions)],
        Exclude(positions),
    )
    best = above.pool.reshape(n, size - 1).min(axis=1)
    hit_at_40 = (best < 40).mean()
    chance = 1 - (1 - 40 / (n - 1)) ** (size - 1)
    assert abs(hit_at_40 - chance) < 0.04
    assert abs((above.pool / (n - 1)).mean() - 0.5) < 0.02


def test_listed_items_taken_off_are_as_if_they_were_not_in_the_pool():
    rng = np.random.default_rng(8)
    pool = clustered(rng, 300, 16)
    pool[50:60] = pool[50]
    positions, own = rng.permutation(300), np.arange(40, 80)
    offsets = np.arange(41) * 3
    chosen = np.array([rng.permutation(np.setdiff1d(np.arange(300), i))[:8] for i in own])
    wanted, neutral = chosen[:, :3].ravel(), chosen[:, 3:]
    positives = Positives(offsets, positions[wanted], pool[wanted])
    listed = Positives(np.arange(41) * 5, positions[neutral.ravel()], pool[neutral.ravel()])
    whole = count_above(pool[own], positives, [Block(pool, positions)], Exclude(positions[own]))
    got = whole.pool - listed_above(pool[own], positives, listed)
    for i, query in enumerate(own):
        kept = np.setdiff1d(np.arange(300), neutral[i])
        one = count_above(
            pool[[query]],
            positives.slice(i, i + 1),
            [Block(pool[kept], positions[kept])],
            Exclude(positions[[query]]),
        )
        np.testing.assert_array_equal(got[offsets[i] : offsets[i + 1]], one.pool)


def test_pairs_of_one_item_or_one_picture_are_no_relevance():
    hidden = excluded_pairs(
        np.array([1, 2, 3, 4]), np.array([1, 5, 6, 7]), np.array([8, 9, 0, 3]), np.array([8, 9, 0, 4])
    )
    assert hidden.tolist() == [True, True, False, False]


def test_bad_input_is_named():
    block = Block(np.eye(3, dtype=np.float32), np.arange(3))
    one = Positives(np.array([0, 1]), np.array([1]), np.eye(3, dtype=np.float32)[1:2])
    query = np.eye(3, dtype=np.float32)[:1]
    with pytest.raises(ValueError, match="its own positive"):
        count_above(query, one, [block], Exclude(np.array([1])))
    with pytest.raises(ValueError, match="category codes"):
        count_above(query, one, [block], categories=np.array([1]))
    with pytest.raises(ValueError, match="offsets up to"):
        count_above(np.eye(3), one, [block])
    with pytest.raises(ValueError, match=r"expected \[n, 3\]"):
        count_above(query, Positives(one.offsets, one.positions, np.zeros((1, 2))), [block])
