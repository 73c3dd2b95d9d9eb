"""What a report shows, as plain values: everything a page needs, and nothing of where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ENCODER = "encoder"
LABELS = {
    ENCODER: "encoder", "frozen_image": "frozen image", "frozen_text": "frozen text", "frozen_concat": "frozen image + text",
}  # fmt: skip
STATUS = Literal["published", "refused", "failed", "not published"]
Mark = Literal["hit", "miss", ""]  # of a neighbour: relevant, not relevant, not judged


@dataclass(frozen=True)
class Figure:
    """A value with its interval, as shares (0.5 is 50 %)."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None  # queries


@dataclass(frozen=True)
class Step:
    """One step of the night."""

    name: str
    status: str
    seconds: float
    rows_in: int | None = None
    embedded: int | None = None
    unchanged: int | None = None
    quarantined: int | None = None
    inactive: int | None = None


@dataclass(frozen=True)
class Night:
    """One night of the trend."""

    run_id: str
    when: datetime
    published: bool
    figures: Mapping[str, Figure]  # by series


@dataclass(frozen=True)
class SliceRow:
    """One value of a slice column, for every system."""

    value: str
    n: int
    figures: Mapping[str, Figure]  # by system


@dataclass(frozen=True)
class Histogram:
    """Counts between `low` and `high`, in equally wide bins."""

    title: str
    note: str
    low: float
    high: float
    counts: Sequence[int]


@dataclass(frozen=True)
class Card:
    """An item as a picture with a caption. `mark`: hit, miss, or none where nothing is judged."""

    item_id: str
    title: str = ""
    caption: str = ""
    picture: str | None = None  # data URI
    score: float | None = None
    mark: Mark = ""


@dataclass(frozen=True)
class Strip:
    """A query and its neighbours, nearest first."""

    query: Card
    neighbors: Sequence[Card]
    found: int | None = None  # relevant items among all K neighbours
    relevant: int | None = None


@dataclass(frozen=True)
class StripGroup:
    """Strips that were chosen the same way."""

    title: str
    note: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class Refused:
    """One quarantined input."""

    card: Card
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The whole page."""

    run_id: str
    started: datetime
    status: STATUS
    reasons: Sequence[str] = ()
    notes: Sequence[str] = ()
    rows: Mapping[str, int | None] | None = None  # in, embedded, unchanged, quarantined, inactive
    catalog_change: Mapping[str, Any] | None = None  # as the gate's verdict records it; None where no published night precedes
    steps: Sequence[Step] = ()
    items_per_s: float | None = None
    wait_share: float | None = None
    coverage: float | None = None
    headline: str = "hit_rate@10"
    level: float = 0.95  # of the intervals
    systems: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)  # system -> metric -> figure
    differences: Mapping[str, Figure] = field(default_factory=dict)  # baseline -> encoder minus baseline, of the headline
    trend: Sequence[Night] = ()
    slices: Mapping[str, Sequence[SliceRow]] = field(default_factory=dict)  # column -> rows, of the headline
    histograms: Sequence[Histogram] = ()
    shards: Sequence[Mapping[str, Any]] = ()
    shards_left_out: int = 0
    strips: Sequence[StripGroup] = ()
    refused_counts: Sequence[tuple[str, str, int]] = ()  # stage, reason, rows
    refused: Sequence[Refused] = ()
    versions: Sequence[tuple[str, int | None, int | None]] = ()  # table, read, written
    facts: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str, str]] = ()  # key, value, default

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def best_baseline(self) -> str | None:
        """The strongest baseline by the headline metric."""
        rivals = {s: f[self.headline].value for s, f in self.systems.items() if s != ENCODER and self.headline in f}
        return max(rivals, key=rivals.__getitem__, default=None)
