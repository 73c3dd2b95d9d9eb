"""One variant: what is drawn depends on item, number and seed, the truth about it is true, and shares are reached."""

import io
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tgq.errors import UsageError
from tgq.images.decode import ImageError, ImageLimits
from tgq.multiply.options import Options
from tgq.multiply.picture import PLAIN, picture_of
from tgq.multiply.plan import partners_of, plan_of
from tgq.multiply.product import Product, cut
from tgq.multiply.row import ROW, row_of

SIDE = 96
CLEAN = Options(rows=1, scenes=0, wrong_titles=0, banners=0, backgrounds=0, missing=0, size=SIDE)
SCENE = replace(CLEAN, scenes=1)
RED, BLUE = (210, 20, 30), (30, 60, 190)


def photo(colour, width=160, height=120, oval=(60, 30, 140, 70), page="white"):
    """JPEG of an oval away from the middle of its page."""
    image, data = Image.new("RGB", (width, height), page), io.BytesIO()
    ImageDraw.Draw(image).ellipse(oval, fill=colour)
    image.save(data, "JPEG", quality=95)
    return data.getvalue()


def product(item_id, category="Shoes", group=None, title=None, colour=BLUE, **photographed):
    picture, mask = cut(photo(colour, **photographed), ImageLimits(), SIDE)
    attributes = {"colour": "red", "size": "40", "material": "leather"}
    return Product(item_id, group or item_id, picture, mask, f"shoe {item_id}" if title is None else title, "acme", category, attributes)


ITEM = product("item", colour=RED)
NEAR = [product(f"near{n}") for n in range(4)]
FAR = [product(f"far{n}", "Bags") for n in range(4)]
PARTNERS = partners_of(ITEM, [*NEAR, *FAR])


def is_red(image):
    pixels = np.asarray(image).astype(int)
    return pixels[..., 0] - pixels[..., 1:].max(axis=2) > 70


def bounds(found):
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def test_a_variant_follows_from_item_number_and_seed_and_not_from_the_order_of_the_others():
    options = replace(SCENE, banners=0.5, backgrounds=0.5, wrong_titles=0.5, missing=0.5, same_category=0.5)
    mixed = [*FAR, ITEM, *NEAR, NEAR[0]]
    rows = {}
    for number in range(12):
        random.Random(number).shuffle(mixed)
        again = partners_of(ITEM, mixed)
        rows[number] = row_of(options, plan_of(options, ITEM, PARTNERS, number))
        assert row_of(options, plan_of(options, ITEM, again, number)) == rows[number]
        assert set(rows[number]) == set(ROW.names) and rows[number]["item_id"] == f"item#{number}" and rows[number]["parent_id"] == "item"
    assert len({row["image_bytes"] for row in rows.values()}) == 12
    other_seed = replace(options, seed=1)
    assert all(row_of(other_seed, plan_of(other_seed, ITEM, PARTNERS, n))["image_bytes"] != row["image_bytes"] for n, row in rows.items())


def test_another_share_of_one_nuisance_leaves_the_others_where_they_are():
    for number in range(20):
        before, after = (plan_of(options, ITEM, PARTNERS, number) for options in (SCENE, replace(SCENE, banners=1, backgrounds=1, wrong_titles=1)))
        assert before.others == after.others and (before.banner, after.banner, before.surface, after.surface) == (False, True, False, True)
        assert before.told.title == ITEM.title != after.told.title and before.told.attributes == after.told.attributes
        assert picture_of(SCENE, before).box == picture_of(SCENE, after).box


@pytest.mark.parametrize("options, sizes", [(CLEAN, CLEAN.item_size), (SCENE, SCENE.scene_size), (replace(CLEAN, item_size=(0.3, 0.3)), (0.3, 0.3))])
def test_the_box_is_the_item_and_its_size_is_in_the_range(options, sizes):
    for number in range(25):
        plan = plan_of(options, ITEM, PARTNERS, number)
        picture = picture_of(options, plan)
        assert picture.image.size == (SIDE, SIDE) and picture.background == PLAIN
        x0, y0, x1, y1 = (round(v * SIDE) for v in picture.box)
        assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= SIDE
        found = is_red(picture.image)
        assert found.sum() > 100
        left, top, right, bottom = bounds(found)
        assert x0 <= left and y0 <= top and right <= x1 and bottom <= y1, "nothing of the item is outside"
        if not plan.others:
            assert max(left - x0, top - y0, x1 - right, y1 - bottom) <= 4, "the box has none of the page around the product"
        assert sizes[0] - 0.02 <= (x1 - x0) / SIDE <= sizes[1] + 0.02, "the oval is wider than high"


def test_products_of_a_scene_are_all_seen_and_none_is_singled_out():
    firsts, boxes = [], []
    for number in range(40):
        plan = plan_of(replace(SCENE, same_category=0), ITEM, PARTNERS, number)
        picture = picture_of(SCENE, plan)
        red, blue = is_red(picture.image), is_red(Image.fromarray(np.asarray(picture.image)[..., ::-1].copy()))
        assert 1 <= len(plan.others) <= 3
        assert blue.sum() > 0.4 * red.sum() * len(plan.others)
        firsts.append((picture.box[0] < 0.25, picture.box[1] < 0.25))
        boxes.append(picture.box)
    assert len(set(firsts)) == 4, "the item stands in every corner"
    assert len(set(boxes)) > 30


def test_a_picture_that_is_no_cut_out_is_shown_whole():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 200, (80, 120, 3), np.uint8))
    data = io.BytesIO()
    noise.save(data, "PNG")
    picture, mask = cut(data.getvalue(), ImageLimits(), SIDE)
    assert mask is None
    x0, y0, x1, y1 = picture_of(CLEAN, plan_of(CLEAN, Product("noise", "noise", picture), PARTNERS, 0)).box
    assert (x1 - x0) / (y1 - y0) == pytest.approx(1.5, abs=0.05)


def test_what_is_stored_of_a_picture_is_the_product_alone():
    picture, mask = cut(photo(RED, 1600, 1200, (600, 300, 1400, 700)), ImageLimits(), SIDE)
    image, soft = Image.open(io.BytesIO(picture)), Image.open(io.BytesIO(mask))
    assert image.size == soft.size and abs(image.width - SIDE) <= 1 and abs(image.height - SIDE / 2) <= 2
    centre, corner = soft.getpixel((SIDE // 2, SIDE // 4)), soft.getpixel((0, 0))
    assert centre > 250 and corner < 30
    with pytest.raises(ImageError, match="not_an_image"):
        cut(b"<html>", ImageLimits(), SIDE)


def test_other_products_are_of_another_group_and_title():
    same_group, same_title = product("twin", group="item"), product("double", title="SHOE item")
    unknown, untitled = product("unknown", category=""), product("untitled", title="")
    partners = partners_of(ITEM, [same_group, same_title, ITEM, *NEAR, unknown, untitled, *FAR])
    assert {other.item_id for other in partners.near} == {*(other.item_id for other in NEAR), "untitled"}
    assert {other.item_id for other in partners.far} == {*(other.item_id for other in FAR), "unknown"}
    nameless = partners_of(product("bare", category="", title=""), [*NEAR, unknown, untitled])
    assert nameless.near == () and {other.item_id for other in nameless.far} == {*(other.item_id for other in NEAR), "unknown", "untitled"}


def test_shares_are_reached():
    options = Options(rows=1, scenes=0.6, same_category=0.3, wrong_titles=0.1, banners=0.35, backgrounds=0.4, missing=0.2)
    plans = [plan_of(options, ITEM, PARTNERS, number) for number in range(3000)]
    scenes = [plan for plan in plans if plan.others]

    def share(of, what):
        return sum(map(what, of)) / len(of)

    assert len(scenes) / len(plans) == pytest.approx(0.6, abs=0.03)
    assert share(scenes, lambda plan: plan.same_category) == pytest.approx(0.3, abs=0.03)
    assert share(plans, lambda plan: plan.banner) == pytest.approx(0.35, abs=0.03)
    assert share(plans, lambda plan: plan.surface) == pytest.approx(0.4, abs=0.03)
    assert share(plans, lambda plan: plan.told.title != ITEM.title) == pytest.approx(0.1, abs=0.02)
    assert share(plans, lambda plan: not plan.told.brand) == pytest.approx(0.2, abs=0.03)
    assert sum(len(plan.told.attributes) for plan in plans) / 3 / len(plans) == pytest.approx(0.8, abs=0.03)
    for plan in scenes:
        assert len({other.item_id for other in plan.others}) == len(plan.others) <= 3 and ITEM not in plan.others
        assert plan.same_category == any(other in NEAR for other in plan.others)
    assert {len(plan.others) for plan in scenes} == {1, 2, 3}


def test_where_the_wanted_partners_lack_others_stand_in_and_without_any_the_item_is_alone():
    options = replace(SCENE, same_category=1)
    assert all(plan_of(options, ITEM, partners_of(ITEM, FAR), n).others for n in range(9))
    assert not any(plan_of(options, ITEM, partners_of(ITEM, FAR), n).same_category for n in range(9))
    assert all(plan_of(replace(SCENE, same_category=0), ITEM, partners_of(ITEM, NEAR), n).same_category for n in range(9))
    alone = replace(options, wrong_titles=1)
    row = row_of(alone, plan_of(alone, ITEM, partners_of(ITEM, []), 0))
    assert (row["distractors"], row["same_category"], row["title"]) == (0, False, ITEM.title)


def test_the_truth_is_beside_what_is_told():
    options = replace(SCENE, same_category=1, wrong_titles=1, missing=1, banners=1, backgrounds=1, seed=7)
    row = row_of(options, plan_of(options, ITEM, PARTNERS, 3))
    assert row["true_title"] == "shoe item" != row["title"] and row["brand"] is None and row["attributes"] == [] and row["category"] == "Shoes"
    assert row["overlay"] and row["same_category"] and row["background"] in ("gradient", "stripes", "clouds") and row["seed"] == 7
    assert Image.open(io.BytesIO(row["image_bytes"])).format == "JPEG" and len(row["box"]) == 4


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"rows": 0}, "rows is 0: give 1 or more"),
        ({"scenes": 1.5}, "scenes is 1.5: give a share between 0 and 1"),
        ({"banners": -0.1}, "banners is -0.1"),
        ({"size": 8}, "size is 8: give 32 to 2048 pixels"),
        ({"item_size": (0.9, 0.5)}, "item_size is 0.9 to 0.5: give two shares"),
        ({"scene_size": (0.5, 0.9)}, "scene_size is 0.5 to 0.9.*to 0.7"),
    ],
)
def test_an_impossible_option_is_told(wrong, said):
    with pytest.raises(UsageError, match=said):
        Options(**{"rows": 5} | wrong)
