"""Queries by rules: what holds of any catalog, and that the rules make what shoppers type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgq.query_training.data.generate import Generated, Item, generated_queries
from tgq.query_training.data.words import leaf_of, values_of, words_of

SHIRT = Item("Acme Slim Fit Oxford Button-Down Shirt with Long Sleeves, Breathable", "Acme", "Men > Clothing > Shirts",
             {"color": "Red", "material": "Cotton", "gender": "Men", "in stock": "yes", "SKU": "81723",
              "care": "Machine wash cold, do not bleach or iron"})  # fmt: skip
WORDS = st.text(alphabet="abcdefgH ÄßİéЖ猫靴ไทยक्षि|0%>,&-\u0301\u200d\t", max_size=80)
ITEMS = st.builds(Item, WORDS, WORDS, WORDS, st.dictionaries(WORDS, WORDS, max_size=4))


@given(st.lists(ITEMS, max_size=4), st.integers(0, 6), st.integers())
def test_any_items_give_short_different_queries_in_their_order(items, per_item, seed):
    found = generated_queries(items, per_item, seed)
    assert [query.item for query in found] == sorted(query.item for query in found)
    for index, item in enumerate(items):
        own = [query.text for query in found if query.item == index]
        assert len(own) == len(set(own)) <= per_item
        has_words = any(words_of(text) for text in (item.title, item.brand, item.category)) or bool(values_of(item.attributes))
        assert bool(own) == (has_words and per_item > 0)
        for text in own:
            assert any(c.isalnum() for c in text) and text == " ".join(text.split())
            assert len(text.split()) <= 8 and len(text) <= 61


@given(ITEMS, ITEMS, st.integers(1, 5), st.integers(0, 9))
def test_queries_depend_on_the_item_and_the_seed_alone(item, other, per_item, seed):
    alone = [query.text for query in generated_queries([item], per_item, seed)]
    assert [query.text for query in generated_queries([other, item], per_item, seed) if query.item == 1] == alone
    turned = Item(item.title, item.brand, item.category, dict(reversed(item.attributes.items())))
    assert [query.text for query in generated_queries([turned], per_item, seed)] == alone
    assert [query.text for query in generated_queries([item], per_item + 3, seed)][: len(alone)] == alone


@given(st.lists(st.sampled_from("abcdefghijklmnop"), min_size=6, max_size=30), st.integers())
def test_a_title_alone_is_enough_and_is_never_repeated_whole(letters, seed):
    words = [f"{letter}{number}x" for number, letter in enumerate(letters)]
    found = generated_queries([Item(" ".join(words))], 5, seed)
    assert len(found) == 5
    for query in found:
        assert len(query.text.split()) in range(2, 6)


def spread(item, n=400):
    return [query.text for seed in range(n) for query in generated_queries([item], 1, seed)]


def test_the_rules_make_what_shoppers_type():
    found = spread(SHIRT)
    assert len(found) == 400
    texts = {text.lower() for text in found}
    for wanted in ("red shirt", "red shirts", "cotton shirt", "acme shirt", "shirt men", "red cotton shirt men"):
        assert any(set(wanted.split()) <= set(text.split()) for text in texts), wanted
    assert any(text.split()[-1] == "red" for text in texts) and any(text.split()[0] == "red" for text in texts)
    assert 0.75 < sum(text == text.lower() for text in found) / 400 < 0.98
    known = {word.lower() for word in words_of(SHIRT.title)} | {"acme", "shirt", "shirts", "red", "cotton", "men"}
    mistyped = sum(not set(text.lower().split()) <= known for text in found) / 400
    assert 0.06 < mistyped < 0.25
    assert not any({"machine", "yes", "81723"} & set(text.split()) for text in texts), "sentences, flags and numbers are no attributes"
    title = [word.lower() for word in words_of(SHIRT.title)]
    whole = [text.lower().split() for text in found if set(text.lower().split()) <= set(title) and len(text.split()) > 2]
    ordered = [words == sorted(words, key=title.index) for words in whole]
    assert 0.4 < sum(ordered) / len(ordered) < 0.98, "mostly in the title's order"
    brands = sum("acme" in text.split() for text in texts) / len(texts)
    assert 0.1 < brands < 0.6


def test_what_shoppers_ask_for_is_named_more_often():
    item = Item("", "", "Lamps", {"color": "Green", "voltage": "lowvolt", "bulb": "edison", "dimmer": "rotary", "cord": "braided"})
    found = [text for text in spread(item, 60)]
    named = {value: sum(value in text.lower().split() for text in found) for value in ("green", "lowvolt", "edison", "rotary", "braided")}
    assert named.pop("green") > 1.3 * max(named.values()) > 0


@pytest.mark.parametrize("item, words", [
    (Item("耐克 Nike 运动鞋男款轻便透气跑步鞋"), {"耐克", "nike", "运动鞋"}),
    (Item("เสื้อเชิ้ตผู้ชายแขนยาวสีแดงผ้าฝ้าย"), set()),
    (Item("", "", "Одежда > Рубашки", {"цвет": "Красный"}), {"красный", "рубашки"}),
    (Item("", "", "ملابس > قمصان", {"اللون": "أحمر"}), {"أحمر", "قمصان"}),
    (Item(brand="Bosch"), {"bosch"}), (Item(attributes={"colour": "Blue"}), {"blue"}), (Item("Mug"), {"mug"}),
])  # fmt: skip
def test_other_languages_and_lone_fields_give_queries(item, words):
    found = {word for text in spread(item, 40) for word in text.lower().split()}
    assert found and words <= found


def test_items_without_words_give_none():
    assert generated_queries([Item(), Item("  |", "--", " > ", {"a": "yes", "b": "12"}), Item("500")], 1, 0) == [Generated("500", 2)]


@pytest.mark.parametrize("category, names", [
    ("Men > Shirts & Tops", ["Shirts", "Tops"]), ("Home > Kitchen > ", ["Kitchen"]), ("a > T-Shirts", ["T-Shirts"]), (" > ", []),
    ("Sofas and Chairs", ["Sofas", "Chairs"]),
])  # fmt: skip
def test_a_leaf_may_have_several_names(category, names):
    assert leaf_of(category) == names


def test_words_are_cut_where_a_script_has_no_spaces_and_never_before_a_mark():
    assert words_of("“Red” (cotton) – 100% shirt!") == ["Red", "cotton", "100", "shirt"]
    assert words_of("红色连衣裙 XL") == ["红色连", "衣裙", "XL"]
    pieces = words_of("เสื้อเชิ้ตผู้ชาย")
    assert len(pieces) > 2 and "".join(pieces) == "เสื้อเชิ้ตผู้ชาย"
    assert values_of({"b": "Dark Red / Blue", "a": "no", "color": "12"}) == [("Dark Red", False)]
