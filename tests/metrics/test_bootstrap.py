"""Intervals: do they cover, do they depend on partitioning, do they agree with the plain bootstrap?"""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from tgq.metrics.bootstrap import difference_interval, interval, partial, poisson_weights, total


def hashed(n, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, n).astype(np.uint64)


@pytest.mark.parametrize("keys", [np.arange(2000, dtype=np.uint64), hashed(2000)], ids=["counters", "hashes"])
def test_weights_are_independent_poisson_ones(keys):
    weights = poisson_weights(keys, 500, seed=3)
    counts = np.bincount(weights.ravel(), minlength=8)[:8] / weights.size
    np.testing.assert_allclose(counts, scipy.stats.poisson.pmf(np.arange(8), 1), atol=1.5e-3)
    spread = 5 / np.sqrt(500)  # five standard errors of a correlation between unrelated rows
    rows = np.corrcoef(weights[:200].astype(float))
    columns = np.corrcoef(weights[:500, :200].T.astype(float))
    assert np.abs(rows - np.eye(200)).max() < spread
    assert np.abs(columns - np.eye(200)).max() < spread
    assert (poisson_weights(keys, 500, seed=4) != weights).mean() > 0.5


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_partitions_and_order_do_not_change_the_sums(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n = data.draw(st.integers(1, 60))
    values = rng.integers(0, 2, (n, 3)).astype(float)  # sums of small integers are exact
    values[rng.random((n, 3)) < 0.2] = np.nan
    keys = rng.integers(0, 10, n).astype(np.uint64)
    whole = partial(values, keys, 50, seed=1)
    order = rng.permutation(n)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    parts = total(partial(values[rows], keys[rows], 50, seed=1) for rows in np.split(order, cuts))
    np.testing.assert_array_equal(parts.values, whole.values)
    np.testing.assert_array_equal(parts.weights, whole.weights)


def test_the_interval_agrees_with_the_plain_bootstrap():
    values = np.random.default_rng(0).beta(0.5, 2, 800)
    low, high = interval(partial(values[:, None], hashed(800), 4000, seed=0))
    plain = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    width = plain.high - plain.low
    assert low[0] == pytest.approx(plain.low, abs=0.05 * width)
    assert high[0] == pytest.approx(plain.high, abs=0.05 * width)


def coverage_of(clusters, size, keyed_by_cluster, trials=300):
    """Share of simulated nights whose interval holds the true hit rate of 0.6, when a group's queries succeed
    together."""
    rng, covered = np.random.default_rng(11), 0
    for trial in range(trials):
        rate = rng.beta(1.2, 0.8, clusters)  # mean 0.6
        hits = (rng.random((clusters, size)) < rate[:, None]).astype(float)
        keys = hashed(clusters, trial).repeat(size) if keyed_by_cluster else hashed(clusters * size, trial)
        low, high = interval(partial(hits.reshape(-1, 1), keys, 300, seed=trial))
        covered += low[0] <= 0.6 <= high[0]
    return covered / trials


def test_intervals_cover_the_truth_19_times_in_20():
    assert 0.91 <= coverage_of(clusters=80, size=5, keyed_by_cluster=True) <= 0.98


def test_drawing_queries_of_a_group_one_by_one_would_be_overconfident():
    assert coverage_of(clusters=80, size=5, keyed_by_cluster=False) < 0.88


def test_pairing_narrows_a_difference():
    rng = np.random.default_rng(5)
    hard = rng.random((1000, 1))
    keys = hashed(1000)
    first = partial((hard < 0.62).astype(float), keys, 1000, seed=0)
    second = partial((hard < 0.60).astype(float), keys, 1000, seed=0)
    unpaired = partial((hard < 0.60).astype(float), keys, 1000, seed=1)
    low, high = difference_interval(first, second)
    assert 0 < low[0] < 0.02 < high[0]
    wide = np.diff(np.stack(difference_interval(first, unpaired)), axis=0)
    assert (high - low) < wide / 2


def test_nothing_known_has_no_interval():
    values = np.array([[1.0, np.nan], [0.0, np.nan]])
    low, high = interval(partial(values, hashed(2), 100))
    assert 0 <= low[0] <= high[0] <= 1
    assert np.isnan(low[1]) and np.isnan(high[1])
    with pytest.raises(ValueError, match="no partial sums"):
        total([])
