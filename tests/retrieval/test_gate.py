"""The gate: what passes, what does not, and whether it says why in numbers."""

import math

import pytest

from tgq.retrieval.gate import RELEVANCE, MetricValue, judge

NAN = math.nan


def value(x, half=0.02, n=500):
    return MetricValue(x, x - half, x + half, n)


GOOD = {"hit_rate@10": value(0.80), "coverage": MetricValue(0.999), "ann_recall@10": MetricValue(0.97)}
FLOORS = {"hit_rate@10": 0.5, "coverage": 0.98, "ann_recall@10": 0.95}
DROPS = {"hit_rate@10": 0.02}
NO_PAIRS = dict.fromkeys(RELEVANCE, "the catalog has no relevance pairs")


def test_a_good_night_passes():
    verdict = judge(GOOD, GOOD, FLOORS, DROPS)
    assert verdict.passed and verdict.reasons == () and verdict.notes == ()


def test_a_better_night_passes():
    assert judge({**GOOD, "hit_rate@10": value(0.99)}, GOOD, FLOORS, DROPS).passed


@pytest.mark.parametrize("name", FLOORS)
def test_each_floor_holds_and_is_named(name):
    verdict = judge({**GOOD, name: MetricValue(0.4, 0.3, 0.6, 31)}, None, FLOORS, {})
    assert not verdict.passed
    (reason,) = verdict.reasons
    assert (
        reason == f"{name} is 0.4000 (interval 0.3000 to 0.6000, 31 queries), "
        f"under its floor of {FLOORS[name]:.4f}"
    )
    assert judge(
        {**GOOD, name: MetricValue(FLOORS[name])}, None, FLOORS, {}
    ).passed  # the floor itself is enough


@pytest.mark.parametrize(
    ("now", "half", "passed", "noted"),
    [
        (0.79, 0.001, True, False),  # 1.25 %: tolerated
        (0.78, 0.001, False, False),  # 2.5 %, and the interval ends far below the last value
        (0.78, 0.03, True, True),  # 2.5 %, and the draw of queries can explain it
        (0.76, 0.10, False, False),  # 5 %: over twice the tolerance, whatever the interval
        (0.78, NAN, False, False),  # no interval, no excuse
    ],
)
def test_a_fall_is_judged_by_tolerance_and_interval(now, half, passed, noted):
    verdict = judge({"hit_rate@10": value(now, half)}, {"hit_rate@10": value(0.80)}, {}, DROPS)
    assert verdict.passed is passed and bool(verdict.notes) is noted
    if not passed:
        assert "from 0.8000 to" in verdict.reasons[0] and "the tolerance is 2.0%" in verdict.reasons[0]


def test_a_first_run_has_floors_only():
    verdict = judge(GOOD, None, FLOORS, DROPS)
    assert verdict.passed and "no published run" in verdict.notes[0]
    assert judge(GOOD, {"hit_rate@10": MetricValue(0.0)}, FLOORS, DROPS).passed


@pytest.mark.parametrize("current", [{}, {"hit_rate@10": MetricValue(NAN)}])
def test_a_missing_metric_fails_unless_there_are_no_pairs(current):
    current = {**current, "coverage": MetricValue(1.0), "ann_recall@10": MetricValue(1.0)}
    verdict = judge(current, GOOD, FLOORS, DROPS)
    assert (
        not verdict.passed
        and verdict.reasons[0] == "hit_rate@10 is missing from this run, so it cannot be judged"
    )
    verdict = judge(current, GOOD, FLOORS, DROPS, absent=NO_PAIRS)
    assert verdict.passed and "no relevance pairs" in verdict.notes[0]


def test_coverage_and_ann_recall_are_needed_even_without_pairs():
    verdict = judge({}, None, FLOORS, DROPS, absent=NO_PAIRS)
    assert [reason.split()[0] for reason in verdict.reasons] == ["ann_recall@10", "coverage"]


def test_every_reason_is_given():
    bad = {"hit_rate@10": value(0.1), "coverage": MetricValue(0.1), "ann_recall@10": MetricValue(0.1)}
    assert len(judge(bad, GOOD, FLOORS, DROPS).reasons) == 4
