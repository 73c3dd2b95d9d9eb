"""Not worse, shown: what the judgement on a candidate follows from, and nothing else."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tgq.metrics.comparison import Difference, judge
from tgq.metrics.metrics import ALL

MARGINS = st.floats(0, 1)
FIGURES = st.floats(-1, 1) | st.just(math.nan)
DIFFERENCES = st.lists(
    st.builds(Difference, st.sampled_from([ALL, "category=Bags", "popularity=tail"]), st.sampled_from(["mrr", "hit_rate@10"]),
              st.floats(0, 1), st.floats(0, 1), FIGURES, FIGURES, st.integers(1, 10_000)),
    max_size=8,
)  # fmt: skip


def difference(value, high, slice=ALL):
    return Difference(slice, "mrr", 0.42 + value, 0.42, value - 0.1, high, 400)


def test_an_interval_below_zero_is_worse_anywhere_and_a_fall_beyond_the_margin_overall():
    assert judge([difference(-0.004, 0.01), difference(-0.02, 0.0, "category=Bags")], 0.005).passed
    for one in (difference(-0.004, -0.001), difference(-0.006, 0.01), difference(-0.02, -0.001, "category=Bags")):
        verdict = judge([difference(0.0, 0.1), one], 0.005)
        assert not verdict.passed and len(verdict.reasons) == 1


def test_one_query_fewer_is_no_reason_and_two_are():
    def hits(fewer):
        return Difference(ALL, "hit_rate@10", (119 - fewer) / 121, 119 / 121, -0.02, 0.01, 121)

    assert judge([hits(1)], 0.005).passed and not judge([hits(2)], 0.005).passed
    assert judge([hits(2)], 0.02).passed
    lost = Difference(ALL, "coverage", 99 / 100, 1.0, -0.03, 0.0, 100)
    assert not judge([lost], 0.005).passed, "an item that is lost is no noise"


def test_a_reason_names_metric_slice_difference_interval_and_how():
    [reason] = judge([difference(-0.02, -0.01, "category=Bags")], 0.005).reasons
    assert reason == (
        "mrr in category=Bags is 0.4000, the champion's 0.4200: difference -0.0200 (interval -0.1200 to -0.0100, 400 queries): the interval lies below 0"
    )
    [reason] = judge([Difference(ALL, "coverage", 0.9, 1.0, -0.1, 0.0, 200)], 0.005).reasons
    assert reason.startswith("coverage is 0.9000") and "200 items" in reason and reason.endswith("it may fall by 0.0050")


@given(DIFFERENCES, MARGINS)
def test_there_is_a_reason_for_each_worse_difference_and_no_other(differences, margin):
    verdict = judge(differences, margin)
    worse = [d for d in differences if not d.ci_high >= 0 or (d.slice == ALL and d.candidate - d.champion < -max(margin, 1 / d.n_queries) - 1e-9)]
    assert verdict.passed == (not worse) and len(verdict.reasons) == len(worse)
    assert all(str(d) in reason for d, reason in zip(worse, verdict.reasons, strict=True))


@given(DIFFERENCES, MARGINS, st.floats(0, 1))
def test_a_wider_margin_never_refuses_what_a_narrower_one_let_pass(differences, margin, more):
    narrow, wide = judge(differences, margin), judge(differences, margin + more)
    assert wide.passed >= narrow.passed and len(wide.reasons) <= len(narrow.reasons)


@given(DIFFERENCES, MARGINS)
def test_what_is_no_number_proves_nothing(differences, margin):
    assert not judge([*differences, Difference(ALL, "mrr", math.nan, 0.4, math.nan, math.nan, 3)], margin).passed


@given(st.lists(st.sampled_from([ALL, "category=Bags"])), MARGINS)
def test_an_equal_is_never_refused(slices, margin):
    assert judge([Difference(name, "mrr", 0.5, 0.5, 0.0, 0.0, 3) for name in slices], margin).passed
