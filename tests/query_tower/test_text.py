"""Spellings of one query have one form, and so one split."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.query_tower.text import normalised_text
from tgq.training.data.split import split_of


@pytest.mark.parametrize("text, form", [
    ("  Red   SHOES ", "red shoes"), ("STRASSE", "strasse"), ("Straße", "strasse"), ("Cafe\u0301", "caf\u00e9"), ("a\u00a0b\tc\nd", "a b c d"),
    ("", ""), (None, ""), (" \n", ""),
])  # fmt: skip
def test_forms(text, form):
    assert normalised_text(text) == form


@given(st.text(), st.sampled_from(["NFC", "NFD"]), st.floats(0, 1))
def test_spellings_of_a_text_share_its_split(text, coding, share):
    form = normalised_text(text)
    assert normalised_text(form) == form
    spelled = f" \t{unicodedata.normalize(coding, text)}  ".replace(" ", "  ")
    assert normalised_text(spelled) == form
    assert split_of(normalised_text(spelled), share) == split_of(form, share)


@given(st.text("abcXYZ äÖ09", max_size=30))
def test_case_does_not_matter(text):
    assert normalised_text(text.upper()) == normalised_text(text.lower()) == normalised_text(text)
