"""The refiner by rules: what it takes out of noisy titles, and what it must never do to any text."""

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.encoder.text import normalise
from tgq.refinement.refiner import ItemText
from tgq.refinement.rules import RuleRefiner, refined_title
from tgq.refinement.words import folded, numbers_of, words_of

UNIT_NAMES = {"g", "kg", "mg", "ml", "cl", "l", "cm", "mm", "m", "oz", "lb", "ft", "inch", "pcs", "gb", "tb"}


@pytest.mark.parametrize(
    "title, others, refined",
    [
        ("BLUE COTTON SHIRT FOR MEN", {}, "Blue Cotton Shirt FOR MEN"),
        ("ACME RUNNING SHOES", {"brand": "ACME"}, "ACME Running Shoes"),
        ("USB LED LAMP", {}, "USB LED Lamp"),
        ("iPhone HDMI cable", {}, "iPhone HDMI cable"),
        ("Free Shipping! Leather Bag - 50% OFF", {}, "Leather Bag"),
        ("★★ Best seller ★★ mug !!!", {}, "mug"),
        ("Ceramic mug mug, blue", {}, "Ceramic mug, blue"),
        ("running shoe running shoe size 42", {}, "running shoe size 42"),
        ("Bora Bora towel", {"brand": "Bora Bora"}, "Bora Bora towel"),
        ("Coffee 500GR", {}, "Coffee 500 g"),
        ("Juice 1,5 liters", {}, "Juice 1,5 l"),
        ("5G phone 2 x 2", {}, "5G phone 2 x 2"),
        ("500 g | Acme | dark roast coffee beans", {"category": "Food > Coffee"}, "dark roast coffee beans, Acme, 500 g"),
        ("LG - Dryer for Apple&#xAE; iPad&#xae; 2 &amp; others - White", {}, "LG - Dryer for Apple iPad 2 & others - White"),
        ("1/8 in. - 27 Fitting - 45 - Degree Angle", {}, "1/8 in. - 27 Fitting - 45 - Degree Angle"),
        ("Tee 1/2 in. Push x 1/2 in. Push x 1/4 in.", {}, "Tee 1/2 in. Push x 1/2 in. Push x 1/4 in."),
        ("Rug set, 3 Piece", {}, "Rug set, 3 Piece"),
        ("Kids socks 10 - 12 years", {}, "Kids socks 10 - 12 years"),
        ("Trail shoe - shoe - red", {}, "Trail shoe - red"),
        ("Shoe in red - shoe | 42", {}, "Shoe in red, 42"),
        ("Best Seller", {}, "Best Seller"),
        ("Winter Sale picture", {"attributes": {"print": "winter sale"}}, "Winter Sale picture"),
        ("Hand in hand", {}, "Hand in hand"),
        ("", {}, ""),
        ("白色 T恤", {}, "白色 T恤"),
        ("Café  crème", {}, "Café  crème"),
    ],
)
def test_noise_is_taken_out_and_the_rest_stays(title, others, refined):
    assert refined_title(ItemText(title, **others)) == refined


def test_an_unchanged_title_is_kept_and_a_changed_one_is_refined():
    kept, refined = RuleRefiner().refine([ItemText("red mug"), ItemText("red mug mug")])
    assert (kept.verdict, kept.title, refined.verdict, refined.title) == ("kept", None, "refined", "red mug")


NOISE = st.sampled_from([
    "Free Shipping", "50% OFF", "BLUE", "shoe", "shoe", "Shoe,", "-", " - ", "|", "•", ";", "(", ")", "500GR", "1,5", "12", "10", "SALE", "Best Seller!",
    "★", "!!!", "ACME", "Bora", "İSTANBUL", "ΟΔΟΣ", "straße", "é", "T恤", "白色", "_", "'", "x", "cm", "3 inches", "inches", "\u00a0", "10 -", "- 12",
    "&#xAE;", "&amp;",
])  # fmt: skip
TITLES = st.one_of(st.text(max_size=60), st.lists(NOISE, max_size=12).map(" ".join), st.lists(NOISE, max_size=12).map("".join))
ITEMS = st.builds(ItemText, TITLES, brand=st.sampled_from(["", "ACME", "Bora Bora", "Émile"]), category=st.sampled_from(["", "Shoes", "Home > Mugs"]))


@settings(deadline=None)
@given(ITEMS)
def test_refining_twice_changes_nothing_more(item):
    once = refined_title(item)
    assert refined_title(ItemText(once, item.brand, item.category, item.attributes)) == once


@settings(deadline=None)
@given(ITEMS)
def test_no_word_and_no_number_is_invented(item):
    def parts(*texts):
        return {folded(part) for text in texts for part in re.findall(r"[^\W_]+", text)}

    refined = refined_title(item)
    parted = re.sub(r"(?<=\d)(?=[^\W\d])", " ", item.title)  # a unit may be parted from its number
    assert parts(refined) <= parts(item.title, normalise(item.title), parted, html.unescape(item.title), item.brand) | UNIT_NAMES
    assert numbers_of(refined) <= numbers_of(item.title) | numbers_of(normalise(item.title)) | numbers_of(html.unescape(item.title))


@settings(deadline=None)
@given(ITEMS)
def test_a_title_with_a_word_keeps_one_and_grows_only_by_spaces_before_units(item):
    refined = refined_title(item)
    assert bool(words_of(refined)) == bool(words_of(item.title))
    if refined != item.title:
        assert len(refined.replace(" ", "")) <= len(normalise(item.title).replace(" ", "")) + refined.count(",")
