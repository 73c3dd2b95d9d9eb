"""The words of an item's texts that a shopper might type."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from tgq.encoder.text import normalise

LONGEST = 24  # characters of a word; the rest of a longer one is cut off
VALUE_WORDS = 3  # words of an attribute's value; longer ones are sentences
EMPTY = {"yes", "no", "true", "false", "none", "null", "nan", "n/a", "na", "unknown", "other", "others"}  # values that say nothing on their own
SOUGHT = ("colo", "material", "fabric", "pattern", "gender", "style", "shape", "finish", "type", "theme", "flavo", "scent")  # in names of attributes

# scripts that put no space between words: Thai, Lao, Burmese, Khmer, kana, Chinese characters
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_PIECE = 3  # characters of such a run that stand for a word; two and four are as common


def words_of(text: str) -> list[str]:
    """The words of a text in their order, without punctuation around them; each has a letter or a digit.

    Where a script has no spaces, a run of characters is cut into pieces, never before a mark that belongs to the character before it.
    """
    found = [_bare(run) for word in normalise(text).split() for run in _RUNS.findall(word)]
    pieces = [piece for word in found for piece in (_pieces(word) if re.match(f"[{_UNSPACED}]", word) else [word[:LONGEST]])]
    return [word for word in map(_bare, pieces) if any(c.isalnum() for c in word)]


def leaf_of(category: str) -> list[str]:
    """What the last level of a category path `a > b > c` may be called: `Shirts & Tops` is called shirts, and tops."""
    levels = [level for level in category.split(">") if words_of(level)]
    if not levels:
        return []
    names = (" ".join(words_of(name)[:VALUE_WORDS]) for name in re.split(r"\s+(?:and|&|\+)\s+|[,/|;&()]", levels[-1]))
    return [name for name in names if name]


def values_of(attributes: Mapping[str, str]) -> list[tuple[str, bool]]:
    """The values of attributes that a shopper may name, sorted by attribute, and whether shoppers usually ask for that attribute.

    A list of values counts by its first. Sentences (a part of more than three words), numbers and values such as `yes` are left out.
    """
    found = []
    for name, value in sorted((normalise(name), normalise(value)) for name, value in attributes.items()):
        listed = [words for part in re.split(r"[,;/|]", value) if (words := words_of(part))]
        if not listed or max(map(len, listed)) > VALUE_WORDS:
            continue
        text = " ".join(listed[0])
        if text.casefold() in EMPTY or not any(c.isalpha() for c in text) or (len(text) == 1 and text.isascii()):
            continue
        found.append((text, any(stem in name.casefold() for stem in SOUGHT)))
    return found


def without_repeats(words: Sequence[str]) -> list[str]:
    """The words, each once, where it stands first; case does not count."""
    first: dict[str, str] = {}
    for word in words:
        first.setdefault(word.casefold(), word)
    return list(first.values())


def _bare(word: str) -> str:
    """The word without punctuation at its ends: what is no letter, mark, digit or plus."""
    kept = [i for i, c in enumerate(word) if unicodedata.category(c)[0] in "LMN" or c == "+"]
    return word[kept[0] : kept[-1] + 1] if kept else ""


def _pieces(run: str) -> list[str]:
    pieces: list[str] = []
    for c in run:
        if pieces and (len(pieces[-1]) < _PIECE or unicodedata.category(c)[0] == "M"):
            pieces[-1] += c
        else:
            pieces.append(c)
    return [piece[:LONGEST] for piece in pieces]
