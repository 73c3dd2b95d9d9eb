"""What a language model may not write, and how its answers are read."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.refinement.answers import AnswerError, critique_of, title_of
from tgq.refinement.checks import flaw_of
from tgq.refinement.refiner import ItemText
from tgq.refinement.words import numbers_of

SHOE = ItemText("running shoe blue 42", "Acme", "Shoes > Running", {"material": "mesh", "weight": "1,250 g"})


@pytest.mark.parametrize(
    "title, reason",
    [
        ("Acme Running Shoes, blue mesh, 42", None),
        ("Blue Acme shoe of 1250 g", None),
        ("running shoe", None),
        ("The Running Shoe With Mesh", None),
        ("", "empty"),
        ("!!!", "empty"),
        ("running " * 30, "too_long"),
        ("Acme Laufschuh running синий", "other_script"),
        ("Acme running shoe 43", "invented_number"),
        ("Acme running shoe 42½", "invented_number"),
        ("Nike running shoe", "invented_brand"),
        ("running shoe X200", "invented_number"),
        ("running shoe A42", "invented_brand"),
        ("chaussure de course bleue en maille", "other_words"),
        ("Comfortable running shoe", "invented_brand"),
    ],
)
def test_a_title_with_a_flaw_is_found(title, reason):
    flaw = flaw_of(title, SHOE, 100)
    assert (flaw and flaw.reason) == reason


def test_words_of_a_script_without_spaces_must_stand_in_the_texts():
    item = ItemText("新款 白色棉质T恤 男", "", "服装 > T恤")
    assert flaw_of("白色棉质T恤", item, 50) is None
    assert flaw_of("白色丝绸T恤", item, 50).reason == "invented_brand"


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_title_made_of_the_items_own_words_has_no_invented_part(title, brand):
    flaw = flaw_of(f"{title} {brand}", ItemText(f"{title} {brand}"), 1000)
    assert flaw is None or flaw.reason == "empty"


@pytest.mark.parametrize("text, numbers", [("1,000 and 007", {"1000", "1.000", "7"}), ("٣ kg", {"3"}), ("no", set()), ("½ l", {"½"}), ("3.50", {"3.50"})])
def test_numbers_have_one_spelling(text, numbers):
    assert numbers_of(text) == numbers


@pytest.mark.parametrize("answer", ['{"title": "a  mug"}', ' ```json\n{"title": "a mug"}\n``` ', '```\n{"title":"a mug"}```'])
def test_a_title_is_read_from_json_alone_or_in_a_block(answer):
    assert title_of(answer) == "a mug"


@pytest.mark.parametrize("answer", [
    "a mug", 'Sure: {"title": "a mug"}', '{"title": "a mug"} Enjoy!', '{"title": 3}', '{"title": "a", "brand": "b"}', '["a"]', "{}", "", "[" * 10_000,
])  # fmt: skip
def test_any_other_answer_is_none(answer):
    with pytest.raises(AnswerError):
        title_of(answer)


@pytest.mark.parametrize("answer, critique", [("<STOP>", None), (" <stop> ", None), ("", None), ("Name the\ncolour.", "Name the colour.")])
def test_a_critique_or_the_end(answer, critique):
    assert critique_of(answer) == critique
