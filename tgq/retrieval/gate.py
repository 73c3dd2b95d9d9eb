"""The quality gate: it decides from a run's metrics whether the run may be published. A pure function."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

RELEVANCE = ("hit_rate", "mrr", "ndcg", "map", "recall", "in_category_hit_rate")  # metrics that need relevance pairs


@dataclass(frozen=True)
class MetricValue:
    """A metric's value, its confidence interval (NaN if none was computed) and the number of queries that it is a mean of."""

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
    """The gate's decision.

    Attributes:
        passed: whether the run may be published.
        reasons: the reasons against publishing; empty if passed.
        notes: remarks, for example on metrics that were not judged.
    """

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
    """Judge a run by absolute floors and by the drop of its metrics since the last published run.

    A metric is named as in the configuration: "hit_rate@10", "mrr", "coverage", "ann_recall@10".

    Floors: the value must reach the floor. The confidence interval is not used, because half of it is below the estimate.

    Drops: drop = (last - current) / last. A drop up to max_drop passes, and a drop above twice max_drop fails. A drop in between
    fails unless the last value is inside the current interval, which means that sampling of the queries may explain so small a
    drop; it is then noted. The limit of twice max_drop prevents a small catalog with wide intervals from losing a little in
    every run.

    Args:
        current: the run's metrics by name.
        last_published: those of the last published run, if there is one.
        floors: minimum values by name.
        max_drop: largest relative drop by name.
        absent: reasons why the catalog cannot have a metric, by name without the cutoff. Such a metric is noted. Any other
            metric that is missing or NaN fails.
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
