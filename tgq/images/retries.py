"""Retries of calls to remote sources."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tgq.images.permitted import Transient

MAX_PAUSE_S = 20.0

T = TypeVar("T")


def with_retries(attempt: Callable[[], T], retries: int) -> T:
    """Retry on Transient errors with exponential backoff and full jitter, so that many tasks do not retry at the same time.

    Raises:
        ImageError: that of the last attempt, or one that no retry would change.
    """
    for retry in range(retries + 1):
        try:
            return attempt()
        except Transient as failure:
            if retry == retries:
                raise failure.error from None
            pause = random.uniform(0, min(0.25 * 2**retry, MAX_PAUSE_S))
            time.sleep(min(max(pause, failure.pause_s), MAX_PAUSE_S))
    raise AssertionError("unreachable")
