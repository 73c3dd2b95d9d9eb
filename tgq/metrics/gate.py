"""The quality gate: it decides from a run's metrics, and from how far its catalog changed, whether the run may be published. Pure functions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tgq.settings.sections import CatalogChangeSettings

RELEVANCE = ("hit_rate", "mrr", "ndcg", "map", "recall", "in_category_hit_rate")  # metrics that need relevance pairs
OF_QUERIES = ("hit_rate", "mrr", "ndcg", "judged_ndcg", "map", "recall")  # metrics that need search queries with judged items


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
        accepted: reasons against publishing that the operator accepted beforehand; they do not count.
    """

    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatalogChange:
    """How a run's catalog differs from that of the last published run. Items are active items, rows are rows of the source.

    Attributes:
        published: items of the last published run.
        vanished: those of them that are not active any more.
        changed: those that are still active, with another content.
        rows, quarantined: rows of this run's source, and those that no item came from.
        last_rows, last_quarantined: the same of the last published run; 0 rows if they are not known.
    """

    published: int
    vanished: int
    changed: int
    rows: int
    quarantined: int
    last_rows: int
    last_quarantined: int

    @property
    def vanished_share(self) -> float:
        """Share of the published items that vanished."""
        return _share(self.vanished, self.published)

    @property
    def changed_share(self) -> float:
        """Share of the remaining items whose content changed."""
        return _share(self.changed, self.published - self.vanished)

    @property
    def quarantined_share(self) -> float:
        """Share of this run's rows that are quarantined."""
        return _share(self.quarantined, self.rows)

    @property
    def last_quarantined_share(self) -> float:
        """Share of the last published run's rows that were quarantined."""
        return _share(self.last_quarantined, self.last_rows)


def judge(
    current: Mapping[str, MetricValue],
    last_published: Mapping[str, MetricValue] | None,
    floors: Mapping[str, float],
    max_drop: Mapping[str, float],
    absent: Mapping[str, str] | None = None,
) -> Verdict:
    """Judge a run by absolute floors and by the drop of its metrics since the last published run.

    A metric is named as in the configuration: "hit_rate@10", "mrr", "coverage", "ann_recall@10", "query_ndcg@10".

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


def judge_change(change: CatalogChange, limits: CatalogChangeSettings) -> Verdict:
    """Judge how far the catalog changed since the last published run. A share that equals its limit passes; a limit of None is not judged.

    The quarantined share counts as its rise, so a catalog with a constant share of bad rows is published. A changed share above
    its limit is only noted, because new content is embedded and measured like any other.
    """
    found, notes = [], []
    if limits.max_vanished is not None and change.vanished_share > limits.max_vanished:
        found.append(
            f"{change.vanished} of the {change.published} published items vanished from the catalog ({change.vanished_share:.1%}); "
            f"the limit is {limits.max_vanished:.1%}"
        )
    rise = change.quarantined_share - change.last_quarantined_share
    if limits.max_quarantined is not None and change.last_rows and rise > limits.max_quarantined:
        found.append(
            f"{change.quarantined} of {change.rows} rows are quarantined ({change.quarantined_share:.1%}), after "
            f"{change.last_quarantined_share:.1%} in the last published run; the limit of the rise is {limits.max_quarantined:.1%}"
        )
    if limits.warn_changed is not None and change.changed_share > limits.warn_changed:
        notes.append(
            f"{change.changed} of the {change.published - change.vanished} remaining items have another content "
            f"({change.changed_share:.1%}); above {limits.warn_changed:.1%} this is noted"
        )
    if limits.accept:
        return Verdict(True, (), tuple(notes), tuple(found))
    return Verdict(not found, tuple(found), tuple(notes))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
