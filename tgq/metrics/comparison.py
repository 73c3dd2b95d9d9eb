"""Comparison of a candidate encoder with the champion: the candidate must not be worse. A pure function of paired differences.

In a slice, the candidate is worse if the paired interval of the difference is entirely below zero. Overall this is not enough,
because with few queries every interval is wide. The overall difference itself must therefore not be below -margin. With few
queries the limit is the change that one query makes instead: of 100 queries, a hit rate changes in steps of 0.01. The intervals
of slices need not be narrow, because that would reject an equal candidate on any catalog with small slices.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tgq.metrics.gate import Verdict
from tgq.metrics.metrics import ALL

ROUNDING = 1e-9  # tolerance for the rounding of 1 / n, the change that one query makes


@dataclass(frozen=True)
class Difference:
    """One metric of both encoders on the same queries of a slice, and the paired interval of candidate minus champion."""

    slice: str
    metric: str  # with its cutoff, for example hit_rate@10
    candidate: float
    champion: float
    ci_low: float
    ci_high: float
    n_queries: int  # for coverage: the number of items

    @property
    def value(self) -> float:
        """Candidate minus champion."""
        return self.candidate - self.champion

    def worse(self, margin: float) -> str | None:
        """In which way the candidate is worse, or None. A difference that is NaN is worse."""
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
    """The verdict on a candidate. Each difference by which it is worse is a reason against it."""
    reasons = tuple(f"{difference}: {how}" for difference in differences if (how := difference.worse(margin)))
    return Verdict(not reasons, reasons, ())
