"""The part of a picture that is embedded, for any box, score, threshold and margin."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tgq.grounding.box import BAD_BOX, LOW_SCORE, NO_BOX, SMALLEST, WHOLE, cropped, ground, overlap, pixels

numbers = st.floats(-2, 3)
boxes = st.tuples(numbers, numbers, numbers, numbers)
margins = st.floats(0, 1)


def inside(box):
    x0, y0, x1, y1 = box
    return 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1


@given(boxes, st.floats(0, 1), st.floats(0, 1), margins, st.integers(1, 900), st.integers(1, 900))
def test_a_crop_is_inside_the_picture_and_never_empty(box, score, threshold, margin, width, height):
    done = ground(box, score, threshold, margin)
    assert inside(done.crop)
    left, top, right, bottom = pixels(done.crop, width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert done.kept_whole == (done.reason is not None)
    if done.kept_whole:
        assert done.crop == WHOLE


@given(boxes, margins, margins)
def test_a_larger_margin_shows_as_much_or_more(box, one, other):
    small, large = (ground(box, 1.0, 0.5, margin) for margin in sorted((one, other)))
    assert small.reason == large.reason
    assert all(a >= b for a, b in zip(small.crop[:2], large.crop[:2], strict=True))
    assert all(a <= b for a, b in zip(small.crop[2:], large.crop[2:], strict=True))


@given(boxes, st.floats(0, 1), st.floats(0, 1))
def test_without_a_margin_the_crop_is_the_part_of_the_box_in_the_picture(box, score, threshold):
    done = ground(box, score, threshold, 0.0)
    within = tuple(min(max(v, 0.0), 1.0) for v in box)
    usable = within[2] - within[0] >= SMALLEST and within[3] - within[1] >= SMALLEST
    assert done.reason == (BAD_BOX if not usable else LOW_SCORE if score < threshold else None)
    assert done.crop == (within if done.reason is None else WHOLE)


def test_a_picture_is_kept_whole_for_a_reason():
    assert ground(None, 0.9, 0.3, 0.1).reason == NO_BOX
    low = ground((0.2, 0.2, 0.5, 0.5), 0.29, 0.3, 0.1)
    assert (low.reason, low.found.score) == (LOW_SCORE, 0.29), "what was found is kept, to choose a threshold by"
    assert ground((0.2, 0.2, 0.5, 0.5), 0.3, 0.3, 0.1).reason is None, "the threshold itself is enough"
    for box in ((1.2, 0.1, 1.5, 0.9), (0.5, 0.5, 0.505, 0.9), (0.8, 0.1, 0.2, 0.9), (math.nan, 0, 1, 1), (0, 0, math.inf, 1)):
        assert ground(box, 0.9, 0.3, 0.1).reason == BAD_BOX
    assert ground((0, 0, 1, 1), math.nan, 0.3, 0.1).reason == BAD_BOX


def test_the_margin_is_a_share_of_the_box():
    assert ground((0.4, 0.2, 0.6, 0.6), 1.0, 0.5, 0.1).crop == pytest.approx((0.38, 0.16, 0.62, 0.64))
    assert ground((0.0, 0.2, 0.5, 1.0), 1.0, 0.5, 0.1).crop == pytest.approx((0.0, 0.12, 0.55, 1.0)), "the picture ends there"


def test_a_crop_goes_outward_to_whole_pixels():
    picture = Image.new("RGB", (10, 20))
    assert cropped(picture, (0.11, 0.26, 0.49, 0.51)).size == (4, 6)
    assert cropped(picture, WHOLE) is picture
    assert cropped(Image.new("RGB", (1, 1)), (0.4, 0.4, 0.6, 0.6)).size == (1, 1)


def test_overlap_is_intersection_over_union():
    assert overlap((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert overlap((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)) == 0
