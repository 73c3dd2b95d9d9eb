"""Near hashes by bands are exactly those that comparing all with all finds, each once, however skewed the bits are."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.duplicates.bands import MOST, bands, belongs, links, near_pairs, useful_width


def bits(a: int, b: int) -> int:
    return ((int(a) ^ int(b)) & (2**64 - 1)).bit_count()


def brute(hashes: np.ndarray, most: int) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in combinations(np.sort(hashes), 2) if bits(a, b) <= most}


@st.composite
def skewed(draw) -> np.ndarray:
    """Distinct hashes: some at random, and others a few bits away from one of these; most bits may be equal everywhere."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    fixed = int(rng.integers(0, 2**63)) if draw(st.booleans()) else 0
    seeds = rng.integers(0, 2**64, draw(st.integers(1, 12)), dtype=np.uint64) & np.uint64(~fixed & (2**64 - 1))
    found = set(seeds.tolist())
    for _ in range(draw(st.integers(0, 60))):
        places = rng.choice(64, rng.integers(1, 12), replace=False)
        found.add(int(rng.choice(seeds)) ^ sum(1 << int(place) for place in places))
    return np.array(sorted(found), np.uint64).view(np.int64)


def pairs_by_bands(hashes: np.ndarray, most: int, width: int, large: int) -> list[tuple[int, int]]:
    """As the Spark step cuts hashes into buckets, and larger ones again."""
    masks, found = bands(most, width=width), []
    for place, mask in enumerate(masks):
        for value in np.unique(hashes & mask):
            bucket = hashes[hashes & mask == value]
            levels, parts = [(masks, place)], [(None, bucket)]
            if len(bucket) > large:
                inner = bands(most, ~int(mask))
                parts = [((inner, at), bucket[bucket & cut == v]) for at, cut in enumerate(inner) for v in np.unique(bucket & cut)]
            for level, part in parts:
                for i, j in near_pairs(part, most):
                    for one in filter(None, (*levels, level)):
                        mine = belongs(part[i], part[j], *one)
                        i, j = i[mine], j[mine]
                    found += [(min(a, b), max(a, b)) for a, b in zip(part[i].tolist(), part[j].tolist(), strict=True)]
    return found


@settings(deadline=None, max_examples=150)
@given(skewed(), st.integers(0, 16), st.integers(1, 64), st.integers(1, 80))
def test_bands_find_the_pairs_of_brute_force_each_once(hashes, most, width, large):
    found = pairs_by_bands(hashes, most, width, large)
    assert len(found) == len(set(found)) and set(found) == brute(hashes, most)


@settings(deadline=None, max_examples=100)
@given(skewed(), st.integers(0, 32))
def test_links_are_near_pairs_that_connect_what_all_near_pairs_connect(hashes, most):
    one = np.array([0], np.int64)  # a mask without bits: everything is one bucket
    colours = (hashes & 3) * 0x000B00 + (hashes & 12) * 0x010000  # greens of 0 to 33, reds of 0 to 12
    found = {tuple(sorted((int(hashes[i]), int(hashes[j])))) for i, j in links(hashes, colours, (most, 11), (one, 0))}
    wanted = {(a, b) for a, b in brute(hashes, most) if abs((a & 3) - (b & 3)) <= 1 and abs((a & 12) - (b & 12)) <= 11}
    assert found <= wanted and components(hashes, found) == components(hashes, wanted)
    assert len(found) == len(hashes) - len(components(hashes, wanted)), "no link too many"


def components(hashes: np.ndarray, pairs: set[tuple[int, int]]) -> set[frozenset[int]]:
    of = {int(h): frozenset([int(h)]) for h in hashes}
    for a, b in pairs:
        whole = of[a] | of[b]
        of |= dict.fromkeys(whole, whole)
    return set(of.values())


def test_hashes_that_are_all_alike_give_few_links():
    ball = np.array(sorted({(1 << a) | (1 << b) for a in range(64) for b in range(a + 1)}), np.uint64).view(np.int64)
    grey = np.full(len(ball), 0x808080)
    assert len(links(ball, grey, (4, 0), (bands(4), 0))) < len(ball) == 2080, "of two million near pairs"


def test_bands_cover_all_bits_and_other_distances_are_errors():
    for most in (0, 6, MOST):
        masks = bands(most).view(np.uint64)
        assert len(masks) == most + 1 and int(np.bitwise_or.reduce(masks)) == sum(map(int, masks)) == 2**64 - 1
    assert [int(m).bit_count() for m in bands(3, width=2).view(np.uint64)] == [2] * 4
    for wrong in (-1, MOST + 1):
        with pytest.raises(ValueError, match="largest distance"):
            bands(wrong)
    assert [useful_width(n) for n in (0, 1000, 1_000_000)] == [1, 2, 12]
