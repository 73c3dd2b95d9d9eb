"""How long the model loop waits for its input, and how long the model works."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal


class Clock:
    """Two stopwatches of the model loop, in seconds: `wait` for its input, `model` for the encoder's work."""

    def __init__(self):
        self.wait = self.model = 0.0

    def timed(self, name: Literal["wait", "model"], function: Callable, *args):
        """Call `function(*args)`, add its duration to the stopwatch `name` and return its result."""
        began = time.perf_counter()
        try:
            return function(*args)
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def read_and_reset(self) -> tuple[float, float]:
        """Seconds (wait, model) since the last call; both stopwatches start again at zero."""
        elapsed = self.wait, self.model
        self.wait = self.model = 0.0
        return elapsed
