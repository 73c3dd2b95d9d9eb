"""What holds of every nuisance, and what each of them does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from tgq.errors import UsageError
from tgq.nuisances import NUISANCES, Item, apply, chosen
from tgq.nuisances.lettering import NAME_CHARACTERS, writable
from tgq.nuisances.scenery import plain_background

WORDS = st.text(alphabet="abcdefghij ÄéЖ猫|0%", max_size=60).map(str.strip)


@st.composite
def items(draw):
    """Any item: pictures of every shape, some plain, some none; fields that are empty or strange."""
    image = None
    if draw(st.integers(0, 5)):
        width, height = draw(st.integers(1, 70)), draw(st.integers(1, 70))
        pixels = np.full((height, width, 3), 255, np.uint8)
        if draw(st.booleans()):
            pixels[height // 4 : height - height // 4, width // 4 : width - width // 4] = draw(st.integers(0, 200))
        else:
            pixels[:] = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, pixels.shape)
        image = Image.fromarray(pixels)
    attributes = draw(st.dictionaries(st.sampled_from(["colour", "size", "material"]), WORDS.filter(bool), max_size=3))
    return Item(str(draw(st.uuids())), image, draw(WORDS), draw(WORDS), draw(WORDS), attributes)


def pixels(item):
    return None if item is None or item.image is None else np.asarray(item.image)


def words(item):
    return item.title, item.brand, item.category, dict(item.attributes)


def shoe(item_id="shoe", title="red shoe", side=64, colour=(180, 20, 30)):
    """A photo as shops take it: a product in the middle of a white page."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).ellipse((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=colour)
    return Item(item_id, image, title, "acme", "Footwear > Shoes", {"colour": "red", "material": "leather", "size": "40"})


BAG, MUG = shoe("bag", "green bag", colour=(20, 120, 40)), shoe("mug", "blue mug", colour=(30, 60, 160))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(NUISANCES)), items(), st.lists(items(), max_size=4, unique_by=lambda item: item.item_id), st.integers(0, 2**40), st.randoms())
def test_a_view_depends_on_id_name_and_seed_and_disturbs_one_side(name, item, others, seed, order):
    before = None if item.image is None else item.image.tobytes(), *words(item)
    view = apply(name, item, others, seed)
    mixed = [*others, item]
    order.shuffle(mixed)
    again = apply(name, item, mixed, seed)
    assert (None if item.image is None else item.image.tobytes(), *words(item)) == before, "nothing that is passed in is changed"
    assert (view is None) == (again is None)
    if view is None:
        return
    assert words(view) == words(again) and np.array_equal(pixels(view), pixels(again)), "the others' order is nothing, nor the item among them"
    assert view.item_id == item.item_id
    if NUISANCES[name].disturbs == "metadata":
        assert view.image is item.image and words(view) != words(item)
    else:
        assert words(view) == words(item) and view.image is not item.image
        if view.image is not None:
            assert view.image.mode == "RGB" and view.image.size == item.image.size
    assert view.image is not None or view.has_text


@pytest.mark.parametrize("name", sorted(NUISANCES))
def test_every_nuisance_has_a_line_and_does_something_to_a_shop_photo(name):
    view = apply(name, shoe(), [BAG, MUG], 0)
    assert view is not None and len(NUISANCES[name].text.splitlines()) == 1
    assert words(view) != words(shoe()) or not np.array_equal(pixels(view), pixels(shoe()))


def test_another_seed_and_another_item_give_another_picture():
    for name in ("typographic", "typographic_own", "banner", "background", "scene", "crop"):
        drawn = {pixels(apply(name, item, [BAG, MUG], seed)).tobytes() for seed in range(4) for item in (shoe("a"), shoe("b"))}
        assert len(drawn) >= 6, name


def test_the_background_goes_and_the_product_stays():
    view, (y, x) = pixels(apply("background", shoe(), [], 3)), np.mgrid[:64, :64] - 32
    inside = np.hypot(x, y) < 12
    assert np.array_equal(view[inside], pixels(shoe())[inside])
    assert (view[:3] < 236).any(axis=2).all(), "nothing of the white page is left at the border"


@pytest.mark.parametrize("side", [1, 2, 40])
def test_only_a_page_that_reaches_the_border_is_a_background(side):
    rng = np.random.default_rng(0)
    assert plain_background(Image.fromarray(rng.integers(0, 200, (side, side, 3), np.uint8))) is None
    assert plain_background(Image.new("RGB", (side, side), "white")) is None, "a blank page has no product"
    ring = Image.new("RGB", (90, 60), "white")
    ImageDraw.Draw(ring).ellipse((20, 5, 70, 55), outline=(0, 0, 0), width=4)
    plain = plain_background(ring)
    assert plain.shape == (60, 90) and plain[0, 0] and not plain[30, 45], "the hole of a ring is part of the product"
    maze = np.full((61, 61, 3), 255, np.uint8)
    maze[2::4, :-1] = maze[4::8, 1:] = 0
    assert plain_background(Image.fromarray(maze)) is not None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 24), st.integers(4, 24))
def test_the_background_is_what_a_flood_from_the_border_reaches(seed, height, width):
    white = np.random.default_rng(seed).random((height, width)) < 0.7
    flooded = Image.fromarray(np.pad(white, 1, constant_values=True).astype(np.uint8) * 255).copy()
    ImageDraw.floodfill(flooded, (0, 0), 128)
    reached = np.asarray(flooded)[1:-1, 1:-1] == 128
    found = plain_background(Image.fromarray(np.repeat(white[:, :, None] * np.uint8(255), 3, axis=2)))
    assert found is None if reached.mean() < 0.1 else np.array_equal(found, reached)


def test_a_scene_shows_the_item_and_one_to_three_others():
    others = [shoe(f"other-{n}", colour=(20, 120, 40 * n)) for n in range(5)]
    blues = {40 * n for n in range(5)}
    for seed in range(12):
        seen = pixels(apply("scene", shoe(side=128), others, seed))
        count = len({int(b) for b in blues if (np.abs(seen.astype(int) - (20, 120, b)).max(axis=2) < 4).sum() > 40})
        assert 1 <= count <= 3 and (np.abs(seen.astype(int) - (180, 20, 30)).max(axis=2) < 4).sum() > 100
    assert apply("scene", shoe(), [Item("words only", None, "mug")], 0) is None


def test_titles_come_from_others_and_values_change_places():
    assert apply("wrong_title", shoe(), [BAG, MUG], 5).title in ("green bag", "blue mug")
    assert apply("wrong_title", shoe(), [shoe("twin")], 5) is None
    mixed = apply("shuffled_attributes", shoe(), [], 1).attributes
    assert mixed != shoe().attributes and sorted(mixed.values()) == sorted(shoe().attributes.values())


def test_a_name_is_written_in_letters_that_the_typeface_has():
    assert writable("Café  crème") == "Cafe creme"
    assert writable("运动鞋 42") == "" and apply("typographic_own", shoe(title="运动鞋 42"), [], 0) is None
    assert len(writable("word " * 40)) <= NAME_CHARACTERS >= len(writable("x" * 300)) > 0


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(UsageError, match="no nuisance named 'blur'.*typographic, typographic_own"):
        chosen(["jpeg", "blur"])
    assert [n.name for n in chosen(["jpeg", "banner", "jpeg"])] == ["banner", "jpeg"] and len(chosen()) == len(NUISANCES) == len(chosen([]))


def test_a_picture_in_another_mode_is_refused():
    with pytest.raises(ValueError, match="mode L"):
        Item("grey", Image.new("L", (4, 4)))
