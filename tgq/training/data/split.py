"""The one rule that says which groups are for training and which are for measuring."""

from __future__ import annotations

import hashlib


def split_of(group_id: str, test_share: float = 0.5) -> str:
    """`'train'` or `'test'`, by a hash of the group alone.

    The same group falls on the same side on every machine, in every language that has sha256, and whatever else is
    in the catalog; so no group is ever on both sides, also when the catalog grows.
    """
    draw = int.from_bytes(hashlib.sha256(f"{group_id}".encode()).digest()[:8], "big") / 2**64
    return "test" if draw < test_share else "train"
