"""The content of a report, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

ENCODER = "encoder"
LABELS = {
    ENCODER: "encoder", "frozen_image": "frozen image", "frozen_text": "frozen text", "frozen_concat": "frozen image + text", "bm25": "BM25",
}  # fmt: skip
STATUS = Literal["published", "refused", "failed", "not published"]
Mark = Literal["hit", "miss", ""]  # of a neighbour: relevant, not relevant, not judged


@dataclass(frozen=True)
class Figure:
    """A value with its interval, as fractions (0.5 is 50 %)."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None  # queries


@dataclass(frozen=True)
class Step:
    """A step of the run."""

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
    """A run in the trend."""

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
    """An item as a picture with a caption. `mark` is empty if the item is not judged."""

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
    """A section of strips: best, worst or random queries."""

    title: str
    note: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class Search:
    """Search queries. Metrics are named without the `query_` that settings put before them."""

    systems: Mapping[str, Mapping[str, Figure]]  # system -> metric -> figure
    headline: str = "ndcg@10"
    differences: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)  # baseline -> metric -> encoder minus baseline
    slices: Mapping[str, Sequence[SliceRow]] = field(default_factory=dict)  # column -> rows, of the headline
    strips: Sequence[StripGroup] = ()  # the card of a query shows its best judged item


@dataclass(frozen=True)
class Crops:
    """What became of the pictures of embedded items."""

    detector: str  # in words
    cropped: int
    kept_whole: Mapping[str, int]  # by reason
    pairs: Sequence[tuple[Card, Card]] = ()  # pictures and their crops; the score of a crop is the detector's


@dataclass(frozen=True)
class Quarantined:
    """A quarantined input."""

    card: Card
    stage: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Report:
    """The content of the page."""

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
    search: Search | None = None
    crops: Crops | None = None
    histograms: Sequence[Histogram] = ()
    shards: Sequence[Mapping[str, Any]] = ()
    shards_left_out: int = 0
    strips: Sequence[StripGroup] = ()
    quarantine_counts: Sequence[tuple[str, str, int]] = ()  # stage, reason, rows
    quarantined: Sequence[Quarantined] = ()  # examples
    versions: Sequence[tuple[str, int | None, int | None]] = ()  # table, read, written
    facts: Sequence[tuple[str, str]] = ()
    settings: Sequence[tuple[str, str, str]] = ()  # key, value, default

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def best_baseline(self) -> str | None:
        """The baseline with the highest headline metric."""
        baselines = {s: f[self.headline].value for s, f in self.systems.items() if s != ENCODER and self.headline in f}
        return max(baselines, key=baselines.__getitem__, default=None)
