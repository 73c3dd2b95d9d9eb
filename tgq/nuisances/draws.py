"""Random draws that do not depend on order: a generator is a function of its key."""

from __future__ import annotations

import hashlib
import random


def seeded(*key: object) -> random.Random:
    """A generator that is a pure function of `key`: the same in every process, on every run."""
    return random.Random(hashlib.sha256(repr(key).encode()).digest())
