"""Batches of pairs, splits and the rank that validation counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.errors import SourceError
from tgq.training.dataset import TrainingSet
from tgq.training.sampling import PairSampler, known_pairs
from tgq.training.split import split_of
from tgq.training.train import first_ranks


def rows_of(group, image, variant, catalog):
    """A TrainingSet of which only the columns matter."""
    n = len(group)
    empty = np.zeros((1, 1, 1), np.float16)
    return TrainingSet(
        empty, np.zeros((1, 1), np.float32), empty, np.ones((1, 1), bool), np.zeros((1, 1), np.float32), ("",), np.array(image),
        np.zeros((n, 2), int), np.zeros(n, int), *(np.array(x, dtype=str) for x in (group, variant, catalog, range(n))),
    )  # fmt: skip


table = st.lists(
    st.tuples(st.integers(0, 5), st.integers(-1, 8), st.sampled_from(["", "red", "blue"]), st.sampled_from("ab")), min_size=4, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(table, st.integers(0, 3))
def test_a_pair_is_of_one_group_and_differs_in_picture_and_variant(entries, seed):
    group, image, variant, catalog = zip(*entries, strict=True)
    rows = rows_of(group, image, variant, catalog)
    try:
        sampler = PairSampler(rows, seed)
    except SourceError:
        return  # nothing to pair
    for left, right in sampler.batches(6, 3):
        assert len(left) == len(right) == 6 and len(set(rows.catalog[np.concatenate([left, right])])) == 1
        assert (left != right).all() and (rows.group[left] == rows.group[right]).all()
        assert ((rows.image_index[left] != rows.image_index[right]) | (rows.image_index[left] < 0)).all()
        assert ((rows.variant[left] != rows.variant[right]) | (rows.variant[left] == "")).all()
        known = known_pairs(rows, left, right)
        for i, j in np.ndindex(known.shape):
            a, b = left[i], right[j]
            alike = rows.group[a] == rows.group[b] or (rows.image_index[a] == rows.image_index[b] and rows.image_index[a] >= 0)
            assert known[i, j] == alike


def test_groups_without_two_different_items_are_refused():
    with pytest.raises(SourceError, match="fewer than 2 have two different items"):
        PairSampler(rows_of(["g", "g", "h"], [0, 0, 1], ["", "", ""], ["a"] * 3), 0)


def test_the_rank_skips_the_row_itself_its_picture_and_its_variant():
    rows = rows_of(["g", "g", "g", "g", "x", "y"], [0, 0, 1, 2, 3, 4], ["v", "w", "v", "u", "z", "q"], ["a"] * 6)
    towards = np.array([[1.0, 1.0, 1.0, 0.5, 0.9, 0.4]]).T  # similarity to row 0 is the number itself
    # row 0: 1 shares its picture, 2 its variant; the positive left is 3 (0.5), behind 4 (0.9)
    assert first_ranks(towards, rows, np.array([0])).tolist() == [2]
    assert np.isnan(first_ranks(towards, rows, np.array([4]))).all(), "no positive, no rank"
    assert first_ranks(np.ones((6, 1)), rows, np.array([0])).tolist() == [3], "all the same flatters nobody"


def test_a_split_is_by_group_alone_and_near_its_share():
    sides = [split_of(f"group {n}", 0.3) for n in range(4000)]
    assert abs(np.mean([side == "test" for side in sides]) - 0.3) < 0.03
    assert split_of("group 1", 0.3) == sides[1] and split_of("x", 0.0) == "train" and split_of("x", 1.0) == "test"
