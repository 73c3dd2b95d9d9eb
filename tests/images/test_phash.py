"""Perceptual hashes: what they survive, what tells pictures apart, and the formula against scipy's transform."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from tgq.images.phash import PLAIN, distance, perceptual_hash


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
    code = perceptual_hash(image)
    copies = [saved(image, format="JPEG", quality=50), saved(image, format="WEBP", quality=60), saved(image, format="PNG"), image.resize((130, 130)),
              image.convert("RGBA"), image.point(lambda level: level * 0.8)]  # fmt: skip
    assert max(distance(code, perceptual_hash(copy)) for copy in copies) <= 4
    assert distance(code, perceptual_hash(saved(image, format="PNG"))) == 0
    assert min(distance(code, perceptual_hash(picture(other))) for other in range(5, 30)) > 12


def test_a_picture_without_structure_has_the_hash_that_is_like_no_other():
    grain = np.random.default_rng(0).integers(250, 256, (300, 300), dtype=np.uint8)
    for plain in (Image.new("RGB", (500, 500), "red"), Image.new("L", (1, 1)), Image.fromarray(grain)):
        assert perceptual_hash(plain) == PLAIN
    assert perceptual_hash(picture(0)) != PLAIN


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 2), min_size=1, max_size=20))
def test_the_distance_counts_differing_bits_of_signed_numbers(pairs):
    a, b = np.array(pairs, np.int64).T
    assert distance(a, b).tolist() == [((x ^ y) & (2**64 - 1)).bit_count() for x, y in pairs]
    assert distance(a[0], b).tolist() == [((pairs[0][0] ^ y) & (2**64 - 1)).bit_count() for _, y in pairs]
