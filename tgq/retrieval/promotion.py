"""May a candidate become the champion? A pure judgement over paired differences: it must not be worse.

"Not worse" is non-inferiority: the interval of the difference ends above -margin. A difference that is merely not significant
proves nothing, since few queries make every interval wide; here few queries speak against the candidate.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tgq.retrieval.gate import Verdict

ALL = "all"  # the slice of every query


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

    def not_worse(self, margin: float) -> bool:
        """Whether the interval ends at or above -margin; an interval that is no number proves nothing."""
        return self.ci_low >= -margin

    def __str__(self) -> str:
        where = "" if self.slice == ALL else f" in {self.slice}"
        counted = "items" if self.metric == "coverage" else "queries"
        return (
            f"{self.metric}{where} is {self.candidate:.4f}, the champion's {self.champion:.4f}: difference {self.value:+.4f} "
            f"(interval {self.ci_low:+.4f} to {self.ci_high:+.4f}, {self.n_queries} {counted})"
        )


def margin_of(slice: str, margin: float, slice_margin: float) -> float:
    """How far below the champion the interval may reach in this slice."""
    return margin if slice == ALL else slice_margin


def judge(differences: Iterable[Difference], margin: float, slice_margin: float) -> Verdict:
    """Each difference that is not shown to be within its margin is a reason against the candidate."""
    reasons = []
    for difference in differences:
        allowed = margin_of(difference.slice, margin, slice_margin)
        if not difference.not_worse(allowed):
            reasons.append(f"{difference}, and may reach {-allowed:+.4f}")
    return Verdict(not reasons, tuple(reasons), ())
