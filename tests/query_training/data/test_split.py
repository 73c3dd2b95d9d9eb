"""The queries that validate: a share of the texts, the same for every spelling, and independent of the split into train and test."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.query_training.data.split import is_validation
from tgq.training.data.split import split_of

TEXTS = [f"query {n}" for n in range(2000)]


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_about_a_share_of_the_texts_validates_on_both_sides_of_the_test_split(share):
    for side in ("train", "test"):
        texts = [text for text in TEXTS if split_of(text) == side]
        assert abs(sum(is_validation(text, share) for text in texts) / len(texts) - share) < 0.04


@given(st.text(max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_spellings_of_a_text_are_on_one_side_and_a_larger_share_keeps_what_validates(text, one, other):
    assert is_validation(text, one) == is_validation(f"  {text} ", one)
    if text.isascii():
        assert is_validation(text.upper(), one) == is_validation(text.lower(), one)
    assert is_validation(text, max(one, other)) or not is_validation(text, min(one, other))
