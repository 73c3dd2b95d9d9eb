"""Plurals and singulars of English nouns; typos that are one letter of a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.nuisances.draws import seeded
from tgq.nuisances.spelling import BESIDE, SLIPS, mistyped, plural_of, singular_of

PLURALS = [("mug", "mugs"), ("dress", "dresses"), ("nesting box", "nesting boxes"), ("city", "cities"), ("toy", "toys"), ("torch", "torches"),
           ("shoe", "shoes"), ("t-shirt", "t-shirts"), ("glass", "glasses")]  # fmt: skip


@pytest.mark.parametrize("noun, plural", [*PLURALS, ("tie", "ties"), ("boots", "boots"), ("y", "ies")])
def test_plurals(noun, plural):
    assert plural_of(noun) == plural


@pytest.mark.parametrize("noun, plural", [*PLURALS, ("bus", "bus"), ("tennis", "tennis"), ("dress", "dress"), ("as", "as"), ("", "")])
def test_singulars(noun, plural):
    assert singular_of(plural) == noun


@given(st.integers(), st.sampled_from(["red mug", "sky blue tee", "oak wall clock", "красная кружка"]), st.sampled_from(SLIPS))
def test_a_typo_is_one_letter(key, text, slip):
    typed = mistyped(seeded(key), text, (slip,))
    assert abs(len(typed) - len(text)) <= 1 and typed != text and typed.count(" ") == text.count(" ")
    assert len(typed) == len(text) + {"left out": -1, "doubled": 1, "replaced": 0 if text.isascii() else -1}.get(slip, len(typed) - len(text))


@given(st.integers(), st.text(max_size=12))
def test_any_text_can_be_mistyped_and_keeps_its_first_letter(key, text):
    typed = mistyped(seeded(key), text)
    assert typed[:1] == text[:1]
    if not any(text[i - 1 : i + 2].isalpha() for i in range(1, len(text) - 1)):
        assert typed == text


def test_keys_lie_beside_each_other_in_both_directions():
    assert BESIDE["q"] == "w" and BESIDE["s"] == "ad" and all(a in BESIDE[b] for a, found in BESIDE.items() for b in found)
