"""Seconds that the model loop waits and works."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Seconds that the model loop waited for its input, and seconds in the model, since last told."""

    def __init__(self):
        self.wait = self.model = 0.0

    def timed(self, name: str, act: Callable, *args):
        began = time.perf_counter()
        try:
            return act(*args)
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def tell(self) -> tuple[float, float]:
        told = self.wait, self.model
        self.wait = self.model = 0.0
        return told
