"""How long a table keeps the files of old versions, so that the versions of kept generations can be read.

Delta forgets for good that a file was removed once that is longer ago than the table's `deletedFileRetentionDuration`, and VACUUM takes
any file that it does not know. (It ignores `RETAIN`, apart from 0.) So the duration must never have been shorter than the age of the
oldest kept generation.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

PROPERTY = "delta.deletedFileRetentionDuration"
DELTA_HOURS = 168  # without the property
AHEAD_HOURS = 168  # by which a generation may have grown older at the next maintenance
_INTERVAL = re.compile(r"interval (\d+) (hour|day|week)s?", re.IGNORECASE)
_HOURS = {"hour": 1, "day": 24, "week": 168}


def needed_hours(since: datetime | None, margin: float, now: datetime) -> float:
    """Hours back to the first removed file that a kept generation may need; 0 without any. `margin` is for clocks that differ.

    A generation began before its tables had their versions, so its age is enough.
    """
    return (now - since).total_seconds() / 3600 + margin if since else 0.0


def kept_hours(properties: dict[str, str]) -> int | None:
    """The duration among a table's properties. None: it is written in a way that is not understood."""
    if PROPERTY not in properties:
        return DELTA_HOURS
    found = _INTERVAL.fullmatch(properties[PROPERTY].strip())
    return int(found[1]) * _HOURS[found[2].lower()] if found else None


def next_hours(kept: int | None, needed: float, least: float) -> int | None:
    """The duration for a VACUUM now, in whole days: at least `least`, and enough until the next maintenance.

    None: files may already be forgotten that a kept generation needs, so no VACUUM can be run. The duration must then stay as it is, so
    that this is seen again until newer generations take the place of the old one.
    """
    if kept is None or needed > kept:
        return None
    return 24 * math.ceil(max(least, needed + AHEAD_HOURS) / 24)
