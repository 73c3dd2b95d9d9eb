"""The rule that assigns product groups to training or to evaluation."""

from __future__ import annotations

import hashlib


def split_of(group_id: str, test_share: float = 0.5) -> str:
    """`'train'` or `'test'`, decided by a hash of the group id.

    The result depends on the group id and the share alone. It is the same on every machine, in every language with sha256 and
    for every content of the catalog. No group is therefore ever on both sides, even when the catalog grows.
    """
    draw = int.from_bytes(hashlib.sha256(f"{group_id}".encode()).digest()[:8], "big") / 2**64
    return "test" if draw < test_share else "train"
