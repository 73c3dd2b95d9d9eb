"""Words, numbers and scripts of a text, for comparison."""

from __future__ import annotations

import re
import unicodedata

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
THOUSANDS = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
EDGES = ".,;:!?"  # punctuation at the edges of a word


def folded(text: str) -> str:
    """The text without case and accents: words that differ in nothing else are equal."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def words_of(text: str) -> list[str]:
    """The words of a text as they are written, without punctuation; numbers are words too."""
    return WORD.findall(text)


def numbers_of(text: str) -> set[str]:
    """The numbers of a text in one spelling: Western digits, a point before decimals, no separators of thousands, no leading zeros.

    `1,000` may be a thousand or one, so it counts as both. Other characters that mean a number, such as `½`, count as they are.
    """
    found: set[str] = set()
    for match in NUMBER.findall(text):
        digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in match)
        if THOUSANDS.fullmatch(digits):
            found.add(_plain(re.sub("[.,]", "", digits)))
        found.add(_plain(digits.replace(",", ".")))
    return found | {c for c in text if unicodedata.category(c) in ("No", "Nl")}


def _plain(digits: str) -> str:
    return re.sub(r"^0+(?=\d)", "", digits)


def scripts_of(text: str) -> set[str]:
    """The scripts of a text's letters, by the first word of their Unicode names: LATIN, CYRILLIC, CJK, ..."""
    return {unicodedata.name(c, "UNKNOWN").split()[0] for c in text if c.isalpha()} - {"MODIFIER", "FEMININE", "MASCULINE"}


def has_case(word: str) -> bool:
    """Whether the word has letters that come in two cases."""
    return word.lower() != word.upper()
