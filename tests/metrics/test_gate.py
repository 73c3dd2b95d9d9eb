"""The gate: what passes, what does not, and whether it says why in numbers."""

import math

import pytest

from tgq.metrics.gate import RELEVANCE, CatalogChange, MetricValue, judge, judge_change
from tgq.settings.sections import CatalogChangeSettings

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


def change(vanished=0, changed=0, quarantined=0, last_quarantined=0, published=100, rows=100, last_rows=100):
    return CatalogChange(published, vanished, changed, rows, quarantined, last_rows, last_quarantined)


@pytest.mark.parametrize(
    ("found", "passed", "said"),
    [
        (change(), True, None),
        (change(vanished=20), True, None),  # the limit itself passes
        (change(vanished=21), False, "21 of the 100 published items vanished from the catalog (21.0%); the limit is 20.0%"),
        (change(quarantined=10), True, None),
        (change(quarantined=11), False, "11 of 100 rows are quarantined (11.0%), after 0.0% in the last published run"),
        (change(quarantined=40, last_quarantined=35), True, None),  # bad as ever: only a rise counts
        (change(quarantined=40, last_quarantined=29), False, "40 of 100 rows are quarantined (40.0%), after 29.0%"),
        (change(quarantined=0, last_quarantined=90), True, None),
        (change(quarantined=90, last_rows=0), True, None),  # the last run's rows are not known
        (change(published=0), True, None),
    ],
)
def test_vanished_items_and_a_rise_of_quarantined_rows_are_limited(found, passed, said):
    verdict = judge_change(found, CatalogChangeSettings())
    assert verdict.passed is passed and verdict.accepted == verdict.notes == ()
    assert (said is None and verdict.reasons == ()) or said in verdict.reasons[0]


def test_changed_content_is_a_share_of_what_remains_and_only_noted():
    verdict = judge_change(change(vanished=10, changed=45), CatalogChangeSettings())
    assert verdict.passed and verdict.notes == ()
    verdict = judge_change(change(vanished=10, changed=46), CatalogChangeSettings())
    assert verdict.passed and "46 of the 90 remaining items have another content (51.1%)" in verdict.notes[0]


def test_an_accepted_change_passes_and_is_recorded_as_such():
    big = change(vanished=90, quarantined=50)
    verdict = judge_change(big, CatalogChangeSettings(accept=True))
    assert verdict.passed and verdict.reasons == () and verdict.accepted == judge_change(big, CatalogChangeSettings()).reasons
    assert judge_change(change(vanished=1), CatalogChangeSettings(accept=True)).accepted == (), "nothing was there to accept"


def test_a_limit_of_null_is_not_judged():
    limits = CatalogChangeSettings(max_vanished=None, max_quarantined=None, warn_changed=None)
    verdict = judge_change(change(vanished=99, changed=1, quarantined=100), limits)
    assert verdict.passed and verdict.notes == ()
