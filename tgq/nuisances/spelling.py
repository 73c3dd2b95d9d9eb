"""How shoppers spell: nouns in the singular or the plural, and slips of the keyboard."""

from __future__ import annotations

import random
from collections.abc import Sequence

SLIPS = ("left out", "doubled", "changed", "replaced")
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
BESIDE = {letter: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _ROWS for i, letter in enumerate(row)}  # keys left and right of a letter


def plural_of(noun: str) -> str:
    """The English plural of a noun's last word; one that ends in s is taken for a plural."""
    if noun.endswith("ss") or noun.endswith(("x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("s"):
        return noun
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def singular_of(noun: str) -> str:
    """The English singular of a noun's last word; one that is no plural is returned unchanged."""
    if len(noun) < 4 or not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("sses", "xes", "ches", "shes")):
        return noun[:-2]
    return noun[:-1]


def mistyped(r: random.Random, text: str, slips: Sequence[str] = SLIPS) -> str:
    """One letter inside a word left out, doubled, changed with its neighbour, or replaced by the key beside it.

    A text without a word of three letters is returned unchanged.
    """
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    i, slip = r.choice(places), r.choice(slips)
    if slip == "replaced" and text[i] in BESIDE:
        return text[:i] + r.choice(BESIDE[text[i]]) + text[i + 1 :]
    if slip in ("left out", "replaced"):  # a letter of another alphabet has no key beside it that we know
        return text[:i] + text[i + 1 :]
    if slip == "doubled" or text[i] == text[i + 1]:
        return text[:i] + text[i] + text[i:]
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
