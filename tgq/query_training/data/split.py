"""Which training queries validate: they choose weights in training and compare encoders in promotion, and are never trained on."""

from __future__ import annotations

import hashlib

from tgq.query_tower.text import normalised_text

SALT = "query-validation:"


def is_validation(text: str, share: float) -> bool:
    """Whether a query of the train split validates, by a hash of its normalised text: about `share` of all texts do.

    Texts with the same normal form are on the same side, whenever they come and under whatever id.
    """
    digest = hashlib.sha256((SALT + normalised_text(text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
