"""Which keys and values are learned, and which keys an item is asked for."""

import pytest

from tgq.attributes.vocabulary import Labelled, Vocabulary, VocabularyOptions
from tgq.errors import SourceError

FEW = VocabularyOptions(min_items=2, min_groups=2, max_values=3, min_share=0.5, min_category=4)


def items_of(*rows):
    return [Labelled(f"g{n}", category, attributes) for n, (category, attributes) in enumerate(rows)]


SHOP = items_of(
    *[("Home > Mugs", {"colour": colour, "volume": "0.3 l"}) for colour in ("Red", "red", "RED", "Blue", "blue", "Grün")],
    *[("Home > Lamps", {"colour": colour, "bulb": bulb}) for colour, bulb in (("Red", "E14"), ("Blue", "E27"), ("Red", "E14"), ("Blue", "E27"))],
    ("Garden > Tools", {"colour": " "}),
)


def test_values_are_counted_without_case_under_their_most_frequent_spelling():
    found = Vocabulary.of(SHOP, FEW)
    assert found.values == {"bulb": ("E14", "E27"), "colour": ("Red", "Blue")}, "a value of one group is left out, and a key with one value"
    assert found.places()["colour"] == {"red": 0, "blue": 1}


def test_a_value_that_one_product_has_is_left_out_however_often():
    shop = items_of(*[("", {"colour": c}) for c in ("red", "red", "blue", "blue")]) + [Labelled("same", "", {"colour": "pink"})] * 9
    assert Vocabulary.of(shop, FEW).values["colour"] == ("blue", "red")


def test_a_category_has_the_keys_of_most_of_its_items_and_a_small_one_those_above_it():
    found = Vocabulary.of(SHOP, FEW)
    assert found.schemas == {"": ("colour",), "Home": ("colour",), "Home > Lamps": ("bulb", "colour"), "Home > Mugs": ("colour",)}
    assert found.schema("Home > Lamps") == found.schema("Home > Lamps > Desk") == ("bulb", "colour")
    assert found.schema("Home > Clocks") == ("colour",) and found.schema("Garden > Tools") == ("colour",) and found.schema("") == ("colour",)


def test_only_keys_without_a_value_are_asked_for_and_only_those_that_may_be_read():
    found = Vocabulary.of(SHOP, FEW)
    assert found.missing("Home > Lamps", {"colour": "pink", "bulb": "  "}) == ("bulb",)
    assert found.missing("Home > Lamps", {}, ("colour",)) == ("colour",) and found.missing("Home > Lamps", {}, ()) == ()


def test_the_most_frequent_values_are_kept():
    shop = items_of(*[("", {"size": s}) for s in "aaaabbbccdd"])
    assert Vocabulary.of(shop, FEW).values["size"] == ("a", "b", "c")


def test_nothing_frequent_is_an_error_in_one_line():
    with pytest.raises(SourceError, match="no attribute of 1 items has two values that 10 items of 3 groups state: name more in metadata.attributes"):
        Vocabulary.of(SHOP[:1], VocabularyOptions())


def test_it_is_read_as_it_was_written():
    found = Vocabulary.of(SHOP, FEW)
    assert Vocabulary.from_json(found.as_json()) == found
