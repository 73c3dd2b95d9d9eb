"""The quality gate: may this night be published? A pure judgement over figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

RELEVANCE = ("hit_rate", "mrr", "ndcg", "map", "recall", "in_category_hit_rate")  # metrics that need pairs


@dataclass(frozen=True)
class MetricValue:
    """A figure with its confidence interval (NaN where none was computed) and the number of queries behind
    it."""

    value: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    n_queries: int = 0

    def __str__(self) -> str:
        if math.isnan(self.ci_low) or math.isnan(self.ci_high):
            return f"{self.value:.4f}"
        interval = f"interval {self.ci_low:.4f} to {self.ci_high:.4f}"
        return f"{self.value:.4f} ({interval}, {self.n_queries} queries)"


@dataclass(frozen=True)
class Verdict:
    """passed, the reasons against publishing (none when it passed), and notes on what could not be judged."""

    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]


def judge(
    current: Mapping[str, MetricValue],
    last_published: Mapping[str, MetricValue] | None,
    floors: Mapping[str, float],
    max_drop: Mapping[str, float],
    absent: Mapping[str, str] | None = None,
) -> Verdict:
    """Judges a night by absolute floors and by its fall since the last published one.

    A metric is named as in the configuration: "hit_rate@10", "mrr", "coverage", "ann_recall@10".

    Floors: the value must reach the floor. The interval does not help: half of an interval's values are worse
    than the estimate.
    Drops: fall = (last - current) / last. Up to max_drop it passes; over twice max_drop it fails. In between
    it fails unless the last value lies inside the current interval, that is, unless so small a fall can be
    the draw of the queries; then it is noted. The bound of two tolerances keeps a small catalog, whose
    intervals are wide, from sliding a little every night. A metric that is missing or NaN fails, but one of
    `absent` (metric without its cutoff: why the catalog cannot have it) is noted.
    """
    reasons, notes = [], []
    for name in sorted(set(floors) | set(max_drop)):
        now = current.get(name)
        if now is None or math.isnan(now.value):
            if why := (absent or {}).get(name.partition("@")[0]):
                notes.append(f"{name} was not judged: {why}")
            else:
                reasons.append(f"{name} is missing from this run, so it cannot be judged")
            continue
        if name in floors and now.value < floors[name]:
            reasons.append(f"{name} is {now}, under its floor of {floors[name]:.4f}")
        if name not in max_drop:
            continue
        last = (last_published or {}).get(name)
        if last is None or math.isnan(last.value):
            notes.append(f"{name} is {now}; no published run to compare it with")
            continue
        fall = (last.value - now.value) / last.value if last.value > 0 else 0.0
        sentence = (
            f"{name} fell by {fall:.1%} since the last published run, from {last.value:.4f} to {now}; "
            f"the tolerance is {max_drop[name]:.1%}"
        )
        if fall > 2 * max_drop[name] or (fall > max_drop[name] and not last.value <= now.ci_high):
            reasons.append(sentence)
        elif fall > max_drop[name]:
            notes.append(f"{sentence}, and the last value lies within the interval")
    return Verdict(not reasons, tuple(reasons), tuple(notes))
