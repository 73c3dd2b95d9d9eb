"""May a candidate become the champion? A pure judgement over paired differences: it must not be worse.

Worse in a slice: the paired interval of the difference lies wholly below zero. Overall that is not enough, for few queries make
every interval wide: there the difference itself must not fall below -margin either, or by more than one query where that is
more: of 100 queries a hit rate moves by 0.01 or not at all. To ask of every slice that its interval be
narrow would refuse an equal on any catalog with small slices.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tgq.retrieval.gate import Verdict
from tgq.retrieval.metrics import ALL

ROUNDING = 1e-9  # a difference of means of one query is 1 / n up to this


@dataclass(frozen=True)
class Difference:
    """A metric of both on the same queries of a slice, and the paired interval of candidate less champion."""

    slice: str
    metric: str  # with its cutoff: hit_rate@10
    candidate: float
    champion: float
    ci_low: float
    ci_high: float
    n_queries: int  # behind coverage: items

    @property
    def value(self) -> float:
        return self.candidate - self.champion

    def worse(self, margin: float) -> str | None:
        """How the candidate is worse, or None; what is no number is."""
        if not self.ci_high >= 0:
            return "the interval lies below 0"
        if self.slice == ALL and self.metric != "coverage":
            margin = max(margin, 1 / self.n_queries)
        if self.slice == ALL and not self.value >= -margin - ROUNDING:
            return f"it may fall by {margin:.4f}"
        return None

    def __str__(self) -> str:
        where = "" if self.slice == ALL else f" in {self.slice}"
        counted = "items" if self.metric == "coverage" else "queries"
        return (
            f"{self.metric}{where} is {self.candidate:.4f}, the champion's {self.champion:.4f}: difference {self.value:+.4f} "
            f"(interval {self.ci_low:+.4f} to {self.ci_high:+.4f}, {self.n_queries} {counted})"
        )


def judge(differences: Iterable[Difference], margin: float) -> Verdict:
    """Each difference by which the candidate is worse is a reason against it."""
    reasons = tuple(f"{difference}: {how}" for difference in differences if (how := difference.worse(margin)))
    return Verdict(not reasons, reasons, ())
