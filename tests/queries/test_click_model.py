"""The click model against logs whose truth is known, and its bounds for any log."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tgq.queries.click_model import attraction, examination, fit, rate_of

RANKS = 12
COUNTS = arrays(np.int64, (6, RANKS), elements=st.integers(0, 10**6))


def fit_table(impressions, clicks, prior_clicks=2.0, prior_impressions=100.0):
    """(examination, attraction of each pair) of a log that fits into memory: impressions and clicks, [pairs, ranks]."""

    def shown_under(examined, rate):
        weight = attraction(clicks.sum(1), rate * (impressions @ examined), prior_clicks) if rate else np.ones(len(clicks))
        return weight @ impressions

    examined, rate = fit(clicks.sum(0), shown_under, prior_impressions)
    return examined, attraction(clicks.sum(1), rate * (impressions @ examined), prior_clicks)


def simulated(disorder, seed=0, queries=30, searches=500):
    """A log of a position-based user: better items stand higher, by as much as `disorder` allows. (examination, attraction, log)."""
    rng = np.random.default_rng(seed)
    true = 1 / (1 + np.arange(RANKS)) ** 0.8
    attractions = rng.choice([0.02, 0.1, 0.3, 0.6], (queries, RANKS), p=[0.5, 0.25, 0.15, 0.1])
    impressions, clicks = np.zeros((2, queries * RANKS, RANKS))
    for q, own in enumerate(attractions):
        for _ in range(searches):
            order = np.argsort(-(np.log(own) + disorder * rng.standard_normal(RANKS)))
            impressions[q * RANKS + order, np.arange(RANKS)] += 1
            clicks[q * RANKS + order, np.arange(RANKS)] += rng.random(RANKS) < own[order] * true
    return true, attractions.ravel(), impressions, clicks


def test_the_truth_is_found_in_a_log_whose_ranking_varies():
    true, own, impressions, clicks = simulated(disorder=2.0)
    examined, found = fit_table(impressions, clicks)
    assert np.abs(examined - true).max() < 0.06
    assert np.corrcoef(np.log(found), np.log(own))[0, 1] > 0.95
    assert found[own == 0.6].min() > found[own == 0.02].max()


def test_an_item_low_on_the_page_is_not_punished_for_its_place():
    impressions, clicks = np.zeros((3, RANKS)), np.zeros((3, RANKS))
    impressions[0, 0] = impressions[1, RANKS - 1] = 10_000
    impressions[2, :] = 10_000  # an item that stands everywhere tells the ranks apart
    true = 1 / (1 + np.arange(RANKS))
    clicks[2] = 10_000 * 0.3 * true
    clicks[0, 0], clicks[1, RANKS - 1] = 10_000 * 0.3, 10_000 * 0.3 * true[-1]
    examined, found = fit_table(impressions, clicks)
    assert np.allclose(examined, true, atol=0.02)
    assert abs(found[0] - found[1]) < 0.1, "both are as attractive, though one has a twelfth of the other's clicks"


@settings(max_examples=60, deadline=None)
@given(impressions=COUNTS, share=arrays(np.float64, (6, RANKS), elements=st.floats(0, 1)), clicked=st.booleans())
def test_any_log_has_finite_estimates_in_their_bounds(impressions, share, clicked):
    clicks = np.floor(impressions * share) * clicked
    examined, found = fit_table(impressions, clicks)
    assert np.all((examined > 0) & (examined <= 1)) and examined.max() == 1
    assert np.all(np.isfinite(found)) and np.all(found > 0)


@settings(max_examples=60, deadline=None)
@given(clicks=st.integers(0, 1000), more=st.integers(1, 1000), expected=st.floats(0, 1e6), prior=st.floats(0.01, 100))
def test_more_clicks_attract_more_and_no_evidence_is_the_average(clicks, more, expected, prior):
    assert attraction(clicks + more, expected, prior) > attraction(clicks, expected, prior)
    assert attraction(0, 0, prior) == 1


def test_ranks_without_evidence_follow_the_prior():
    assert np.allclose(examination(np.zeros(4), np.zeros(4), 100), [1, 1 / 2, 1 / 3, 1 / 4])
    many = examination(np.array([1000, 800, 0, 0]), np.array([10_000, 10_000, 0, 0]), 100)
    assert abs(many[1] / many[0] - 0.8) < 0.02 and many[2] > many[3] > 0
    assert rate_of(np.zeros(2), np.zeros(2), np.ones(2)) == 0
