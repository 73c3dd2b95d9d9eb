"""Not worse, shown: what the judgement on a candidate follows from, and nothing else."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tgq.retrieval.promotion import ALL, Difference, judge, margin_of

MARGINS = st.floats(0, 1)
FIGURES = st.floats(-1, 1) | st.just(math.nan)
DIFFERENCES = st.lists(
    st.builds(Difference, st.sampled_from([ALL, "category=Bags", "popularity=tail"]), st.sampled_from(["mrr", "hit_rate@10"]),
              st.floats(0, 1), st.floats(0, 1), FIGURES, FIGURES, st.integers(1, 10_000)),
    max_size=8,
)  # fmt: skip


def difference(low, slice=ALL):
    return Difference(slice, "mrr", 0.41, 0.42, low, low + 0.1, 40)


def test_an_interval_that_ends_at_the_margin_is_enough_and_below_it_is_not():
    assert judge([difference(-0.005), difference(-0.03, "category=Bags")], 0.005, 0.03).passed
    for one in (difference(-0.0051), difference(-0.031, "category=Bags")):
        verdict = judge([difference(0.0), one], 0.005, 0.03)
        assert not verdict.passed and len(verdict.reasons) == 1


def test_a_reason_names_metric_slice_difference_interval_and_what_was_allowed():
    [reason] = judge([difference(-0.08, "category=Bags")], 0.005, 0.03).reasons
    assert reason == (
        "mrr in category=Bags is 0.4100, the champion's 0.4200: difference -0.0100 (interval -0.0800 to +0.0200, 40 queries), and may reach -0.0300"
    )
    [reason] = judge([Difference(ALL, "coverage", 0.9, 1.0, -0.1, -0.1, 200)], 0.005, 0.03).reasons
    assert reason.startswith("coverage is 0.9000") and "200 items" in reason


@given(DIFFERENCES, MARGINS, MARGINS)
def test_there_is_a_reason_for_each_failing_difference_and_no_other(differences, margin, slice_margin):
    verdict = judge(differences, margin, slice_margin)
    failing = [d for d in differences if not d.ci_low >= -margin_of(d.slice, margin, slice_margin)]
    assert verdict.passed == (not failing) and len(verdict.reasons) == len(failing)
    assert all(str(d) in reason for d, reason in zip(failing, verdict.reasons, strict=True))


@given(DIFFERENCES, MARGINS, MARGINS, st.floats(0, 1))
def test_a_wider_margin_never_refuses_what_a_narrower_one_let_pass(differences, margin, slice_margin, more):
    narrow, wide = judge(differences, margin, slice_margin), judge(differences, margin + more, slice_margin + more)
    assert wide.passed >= narrow.passed and len(wide.reasons) <= len(narrow.reasons)


@given(DIFFERENCES, MARGINS, MARGINS)
def test_what_is_no_number_proves_nothing(differences, margin, slice_margin):
    assert not judge([*differences, difference(math.nan)], margin, slice_margin).passed


@given(st.lists(st.sampled_from([ALL, "category=Bags"])), MARGINS)
def test_an_equal_is_never_refused(slices, margin):
    assert judge([Difference(name, "mrr", 0.5, 0.5, 0.0, 0.0, 3) for name in slices], margin, margin).passed
