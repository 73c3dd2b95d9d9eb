"""Every product type draws whatever its parameters and size, and its styles differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tgq.demo.drawing.canvas import MARKS, Brand, Canvas, Look
from tgq.demo.drawing.draws import Shape, unit_of
from tgq.demo.drawing.surface import PATTERNS, TEXTURES
from tgq.demo.photograph.scene import cut_out, photograph
from tgq.demo.styles import brands, style
from tgq.demo.types import products
from tgq.nuisances.draws import seeded

TYPES = {p.name: p for p in products()}
BRAND = Brand("Velmora", "star", (200, 40, 40))


def draw(kind, unit, px=96, pattern="solid", material="cotton", brand=BRAND):
    shape = Shape(unit)
    canvas = Canvas(px, Look((40, 90, 180), (240, 200, 60), pattern, material, brand), shape)
    TYPES[kind].draw(canvas, shape)
    return canvas, shape


def test_the_tree_is_wide_and_its_leaves_are_told_apart():
    paths = [p.path for p in TYPES.values()]
    assert len(TYPES) >= 50 and len(set(paths)) == len(paths)
    assert len({p.department for p in TYPES.values()}) >= 10
    for p in TYPES.values():
        assert p.path.count(" > ") == 2 and len(p.nouns) >= 3 and p.price[0] < p.price[1]
        assert p.stance in ("stands", "lies", "worn") and set(p.patterns) <= set(PATTERNS)


@pytest.mark.parametrize("kind", sorted(TYPES))
@pytest.mark.parametrize("end", [0.0, 0.5, 1.0])
def test_draws_at_the_ends_of_every_parameter(kind, end):
    canvas, shape = draw(kind, lambda name: end)
    box = canvas.alpha.getbbox()
    covered = np.asarray(canvas.alpha).mean() / 255
    assert box and max(box[2] - box[0], box[3] - box[1]) > 0.3 * 96, "no product is a speck"
    assert 0.02 < covered < 0.9
    assert all(isinstance(v, str) for v in shape.traits.values())


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(TYPES)),
    key=st.integers(0, 10**9),
    px=st.integers(16, 300),
    pattern=st.sampled_from(PATTERNS),
    material=st.sampled_from(sorted(TEXTURES)),
    mark=st.sampled_from(MARKS),
)
def test_draws_with_any_parameters_at_any_size(kind, key, px, pattern, material, mark):
    canvas, _ = draw(kind, unit_of(key), px, pattern, material, Brand("Velmora", mark, (200, 40, 40)))
    assert canvas.alpha.getbbox() is not None
    again, _ = draw(kind, unit_of(key), px, pattern, material, Brand("Velmora", mark, (200, 40, 40)))
    assert (
        canvas.colour.tobytes() == again.colour.tobytes() and canvas.alpha.tobytes() == again.alpha.tobytes()
    )


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_styles_of_a_type_differ_visibly(kind):
    """In the same colours, material and brand, two styles differ by their shape parameters alone."""
    pictures = []
    for k in range(5):
        canvas, _ = draw(kind, unit_of("styles", k))
        seen = Image.composite(canvas.colour, Image.new("RGB", canvas.colour.size, "white"), canvas.alpha)
        pictures.append(np.asarray(seen, dtype=np.float32))
    apart = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(apart) > 2.0, f"two styles of {kind} look alike: {min(apart):.2f} grey values apart"


def test_a_size_gives_the_same_product_larger():
    sheets = [draw("Mugs", unit_of("any"), px)[0].alpha for px in (128, 512)]
    small, large = (np.asarray(s.resize((64, 64), Image.Resampling.BOX), float) for s in sheets)
    assert np.abs(small - large).mean() < 4


def test_variants_of_a_style_share_their_shape_and_differ_in_colour():
    for k in range(40):
        own = style(11, k)
        assert 2 <= len(own.variants) <= 6
        assert len({v.name for v in own.variants}) == len(own.variants)
        first, second = (cut_out(own, v, 60)[0] for v in own.variants[:2])
        assert first.mask.tobytes() == second.mask.tobytes()
        if own.variants[0].size is None:
            assert own.variants[0].colour != own.variants[1].colour
            assert first.colour.tobytes() != second.colour.tobytes()


def test_styles_are_a_function_of_seed_and_index():
    style.cache_clear()
    before = [style(5, k) for k in (3, 1, 2)]
    style.cache_clear()
    assert [style(5, k) for k in (3, 1, 2)] == before
    assert style(6, 3) != style(5, 3)


def test_brands_are_shared_by_styles_and_departments():
    assert len({b.name for b in brands()}) == len(brands()) >= 20
    seen = {}
    for k in range(1500):
        own = style(0, k)
        seen.setdefault((own.product.name, own.brand.name), set()).add(k)
    assert np.mean([len(v) for v in seen.values()]) > 3, "a brand must not give its style away"


def test_the_box_contains_the_item():
    """Photographed twice from the same draws, in two colours: all that differs lies in the box."""
    tried = 0
    for k in range(60):
        own = style(21, k)
        a, b = own.variants[:2]
        if a.size is not None or own.product.name in ("Wine glasses", "Bicycles"):
            continue
        first, second = (photograph(seeded("photo", k), own, v, [], 128)[0] for v in (a, b))
        if first.prop != "none" or first.overlay != "none":
            continue
        assert first.box == second.box
        far = np.abs(np.asarray(first.image, int) - np.asarray(second.image, int)).max(2) > 40
        x0, y0, x1, y1 = (round(128 * e) for e in first.box)
        inside = np.zeros_like(far)
        inside[max(0, y0 - 2) : y1 + 2, max(0, x0 - 2) : x1 + 2] = True
        assert not (far & ~inside).any()
        tried += 1
    assert tried > 12


def test_several_products_in_a_frame_are_alike_in_size():
    own, others = style(8, 0), [style(8, k) for k in range(1, 4)]
    areas = []
    for k in range(30):
        photo, _ = photograph(seeded(k), own, own.variants[0], [(s, s.variants[0]) for s in others], 96)
        assert photo.distractors == 3 and photo.view == "front"
        areas.append(max(photo.box[2] - photo.box[0], photo.box[3] - photo.box[1]))
    assert 0.3 < min(areas) and max(areas) < 0.55
