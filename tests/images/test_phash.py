"""Perceptual hashes: what they survive, what tells pictures apart, and the formula against scipy's transform."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from tgq.images.phash import PLAIN, colour_difference, distance, fingerprint, perceptual_hash


def picture(seed: int, side: int = 400) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def saved(image: Image.Image, **options) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return Image.open(buffer)


def test_the_bits_are_those_of_the_named_formula():
    image = picture(0, side=32)
    levels = np.asarray(image.convert("L"), np.float64)
    wanted = dctn(levels, norm="ortho")[1:9, 1:9]
    bits = (wanted > np.median(wanted)).ravel()
    value = int("".join("1" if bit else "0" for bit in bits), 2)
    assert perceptual_hash(image) == (value - 2**64 if value >= 2**63 else value)


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_a_picture_are_near_and_other_pictures_are_far(seed):
    image = picture(seed)
    code, colour = fingerprint(image)
    copies = [saved(image, format="JPEG", quality=50), saved(image, format="WEBP", quality=60), saved(image, format="PNG"), image.resize((130, 130)),
              image.convert("RGBA")]  # fmt: skip
    assert max(distance(code, fingerprint(copy)[0]) for copy in copies) <= 4
    assert max(colour_difference(colour, fingerprint(copy)[1]) for copy in copies) <= 2
    assert fingerprint(saved(image, format="PNG")) == (code, colour)
    assert min(distance(code, fingerprint(picture(other))[0]) for other in range(5, 30)) > 12


def test_two_colours_of_one_product_have_one_hash_and_differ_in_colour():
    def shirt(*colour: int) -> Image.Image:
        image = Image.new("RGB", (400, 400), "white")
        image.paste(colour, (120, 80, 280, 340))
        image.paste(colour, (60, 80, 340, 150))
        return image

    (one, red), (other, blue), (again, dark) = (fingerprint(shirt(*colour)) for colour in ((200, 30, 40), (30, 40, 200), (190, 30, 40)))
    assert distance(one, other) <= 2 and distance(one, again) == 0
    assert colour_difference(red, blue) > 100 and 5 < colour_difference(red, dark) <= 10
    assert colour_difference(red, 200 << 16 | 30 << 8 | 40) <= 40, "the mean is of the shirt and not of the white around it"


def test_a_picture_without_structure_has_the_hash_that_is_like_no_other():
    grain = np.random.default_rng(0).integers(250, 256, (300, 300), dtype=np.uint8)
    for plain in (Image.new("RGB", (500, 500), "red"), Image.new("L", (1, 1)), Image.fromarray(grain)):
        assert fingerprint(plain)[0] == PLAIN
    assert fingerprint(picture(0))[0] != PLAIN


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2), min_size=1, max_size=20))
def test_the_distance_counts_differing_bits_of_signed_numbers(pairs):
    a, b = np.array(pairs, np.int64).T
    assert distance(a, b).tolist() == [((x ^ y) & (2**64 - 1)).bit_count() for x, y in pairs]
    assert distance(a[0], b).tolist() == [((pairs[0][0] ^ y) & (2**64 - 1)).bit_count() for _, y in pairs]
