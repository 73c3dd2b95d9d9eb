import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tgq.encoder.text import metadata_text

words = st.text(max_size=20)


def test_the_order_is_fixed_and_attributes_are_sorted():
    text = metadata_text("Hoodie", "Luma", "Men > Tops", {"size": "M", "color": "red"})
    assert text == "Hoodie | Luma | Men > Tops | color: red, size: M"


def test_absent_fields_leave_no_separator_behind():
    assert metadata_text(None, " ", "Shoes", {"color": ""}) == "Shoes"
    assert metadata_text("", None, None, None) == ""


@given(words, words, words, st.dictionaries(words, words, max_size=4))
def test_the_text_is_normalised_and_blind_to_the_order_of_a_map(title, brand, category, attributes):
    text = metadata_text(title, brand, category, attributes)
    assert text == metadata_text(title, brand, category, dict(reversed(attributes.items())))
    assert text == " ".join(text.split())
    assert metadata_text(unicodedata.normalize("NFD", title), brand, category, attributes) == text
