"""Batches of pairs, splits and the rank that validation counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.errors import SourceError
from tgq.training.data.dataset import TrainingSet
from tgq.training.data.sampling import ExcludedNegatives, PairSampler, hard_negatives
from tgq.training.data.split import split_of
from tgq.training.loss.ranking import first_ranks


def rows_of(group, image, catalog, pairs, unjudged=(), hard=None):
    """A TrainingSet of which only the columns matter."""
    n = len(group)
    empty, zeros = np.zeros((1, 1, 1), np.float16), np.zeros((1, 1), np.float32)
    return TrainingSet(
        empty, zeros, empty, np.ones((1, 1), bool), zeros, ("",), zeros, np.array(image), np.zeros((n, 2), int), np.zeros(n, int),
        *(np.array(x, dtype=str) for x in (group, catalog, range(n))), *(np.array(x, int).reshape(-1, 2) for x in (pairs, unjudged)),
        np.zeros((n, 0), int) if hard is None else np.array(hard),
    )  # fmt: skip


@st.composite
def sets(draw):
    n = draw(st.integers(4, 30))
    labels = [draw(st.lists(strategy, min_size=n, max_size=n)) for strategy in (st.integers(0, 5), st.integers(-1, 8), st.sampled_from("ab"))]
    ends = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    pairs = [(a, b) for a, b in draw(st.lists(ends, max_size=40)) if labels[2][a] == labels[2][b]]
    return rows_of(*labels, pairs, draw(st.lists(ends, max_size=10)), np.array([[(i + 1) % n, (i + 2) % n, -1] for i in range(n)]))


@settings(max_examples=60, deadline=None)
@given(sets(), st.integers(0, 3), st.integers(1, 50))
def test_a_batch_is_of_given_pairs_of_one_catalog_and_follows_from_seed_and_step(rows, seed, step):
    try:
        sampler, excluded = PairSampler(rows, seed), ExcludedNegatives(rows)
    except SourceError:
        return  # nothing to pair
    left, right = sampler.batch(step, 6)
    again = PairSampler(rows, seed).batch(step, 6)
    assert (left == again[0]).all() and (right == again[1]).all()
    given_pairs, unjudged = ({tuple(pair) for pair in ends.tolist()} for ends in (rows.pairs, rows.unjudged))
    assert len(left) == 6 and set(zip(left.tolist(), right.tolist(), strict=True)) <= given_pairs
    assert len(set(rows.catalog[np.concatenate([left, right])])) == 1
    between = excluded.mask(left, right)
    for i, j in np.ndindex(between.shape):
        a, b = int(left[i]), int(right[j])
        alike = rows.group[a] == rows.group[b] or (rows.image_index[a] == rows.image_index[b] and rows.image_index[a] >= 0) or a == b
        assert between[i, j] == (alike or bool({(a, b), (b, a)} & (given_pairs | unjudged)))
    hard = hard_negatives(rows, left, 2, excluded)
    assert len(set(hard.tolist())) == len(hard) and all(any(h in rows.hard[a] and not excluded.mask(np.array([a]), np.array([h]))[0, 0]
                                                            for a in left) for h in hard)  # fmt: skip


def test_training_groups_without_positive_pairs_are_refused():
    with pytest.raises(SourceError, match="2 groups for training, but 1 group has a positive pair of two different items"):
        PairSampler(rows_of(["g", "g", "h"], [0, 1, 2], ["a"] * 3, [(0, 1), (1, 0)]), 0)
    with pytest.raises(SourceError, match="no group has.*catalog.columns.group_id"):
        PairSampler(rows_of(["g", "h"], [0, 1], ["a"] * 2, []), 0)


def test_the_rank_skips_the_row_itself_its_image_and_unjudged_rows():
    pairs = [(0, 1), (0, 3), (1, 0), (2, 3)]
    rows = rows_of(["g", "g", "g", "g", "x", "y"], [0, 0, 1, 2, 3, 4], ["a"] * 6, pairs, [(0, 2)])
    towards = np.array([[1.0, 1.0, 1.0, 0.5, 0.9, 0.4]]).T  # similarity to row 0 is the number itself
    # row 0: 1 shares its picture, 2 is not judged; the positive left is 3 (0.5), behind 4 (0.9)
    assert first_ranks(towards, rows, np.array([0])).tolist() == [2]
    assert first_ranks(towards, rows, np.array([0]), asked=np.array([[-1.0]])).tolist() == [2], "a disturbed query; now 5 is nearest"
    assert first_ranks(towards, rows, np.array([0]), asked=np.array([[0.0]])).tolist() == [3]
    assert np.isnan(first_ranks(towards, rows, np.array([4]))).all(), "no positive, no rank"
    assert first_ranks(np.ones((6, 1)), rows, np.array([0])).tolist() == [3], "equal vectors must not rank the positive first"


def test_a_part_keeps_the_pairs_and_neighbours_whose_ends_it_has():
    rows = rows_of(list("gghh"), [0, 1, 2, 3], ["a"] * 4, [(0, 1), (2, 3), (3, 0)], [(1, 2)], [[1, 2], [0, -1], [3, 1], [0, 2]])
    part = rows.subset(np.array([3, 2]))
    assert part.pairs.tolist() == [[1, 0]] and part.unjudged.tolist() == [] and part.hard.tolist() == [[-1, 1], [0, -1]]
    both = TrainingSet.concatenate([rows, part])
    assert both.pairs.tolist() == [[0, 1], [2, 3], [3, 0], [5, 4]] and both.hard[4:].tolist() == [[-1, 5], [4, -1]]


def test_a_split_is_by_group_alone_and_near_its_share():
    sides = [split_of(f"group {n}", 0.3) for n in range(4000)]
    assert abs(np.mean([side == "test" for side in sides]) - 0.3) < 0.03
    assert split_of("group 1", 0.3) == sides[1] and split_of("x", 0.0) == "train" and split_of("x", 1.0) == "test"
