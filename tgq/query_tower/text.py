"""The form of a query's text that decides its split."""

from __future__ import annotations

import unicodedata


def normalised_text(text: str | None) -> str:
    """The text in NFC, case folded, with single spaces and none at either end; '' for None.

    Texts that differ only in case, in blanks or in how accents are coded have the same form (canonical caseless matching, Unicode 3.13).
    The form of a form is itself.
    """
    folded = unicodedata.normalize("NFD", text or "").casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())
