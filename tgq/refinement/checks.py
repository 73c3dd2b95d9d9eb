"""Checks of a title that a language model wrote. A title that fails one is not used."""

from __future__ import annotations

from dataclasses import dataclass

from tgq.refinement.refiner import ItemText
from tgq.refinement.words import folded, has_case, numbers_of, scripts_of, words_of

OWN_WORDS = 0.6  # share of the words of a title that must stand in the item's texts; a translation has fewer
ENDING = 3  # letters by which two forms of a word may differ at their ends
STEM = 4  # letters that they must have in common
# join words and name nothing, with a capital or without
FUNCTION_WORDS = frozenset(
    "a an and at by for from in of on or the to with without aus das der die ein eine für mit ohne und von au avec de des du en et la le les "
    "pour sans con del el las los para por sin un una y".split()
)


@dataclass(frozen=True)
class Flaw:
    """Why a title is not used: a name that is counted, and a line that explains it, which the language model is told too."""

    reason: str
    detail: str


def flaw_of(title: str, item: ItemText, longest: int) -> Flaw | None:
    """The first flaw of a proposed title, or None. It must not be empty or longer than `longest` characters, must have the scripts of the
    item's texts and mostly their words, and every number and everything that looks like a brand must stand in these texts."""
    words = words_of(title)
    if not words:
        return Flaw("empty", "the title has no word")
    if len(title) > longest:
        return Flaw("too_long", f"the title has {len(title)} characters, above the limit of {longest}")
    if other := scripts_of(title) - scripts_of(item.whole):
        return Flaw("other_script", f"the title has letters of another script ({', '.join(sorted(other)).lower()})")
    if invented := numbers_of(title) - numbers_of(item.whole):
        return Flaw("invented_number", f"the number {min(invented)} is not in the item's texts")
    own, words = Vocabulary(item.whole), [word for word in words if word.lower() not in FUNCTION_WORDS]
    if brand := next((word for word in words if looks_like_a_brand(word) and word not in own), None):
        return Flaw("invented_brand", f"the name {brand} is not in the item's texts")
    text = [word for word in words if not word.isdecimal()]
    known = sum(word in own for word in text)
    if known < OWN_WORDS * len(text):
        return Flaw("other_words", f"only {known} of the {len(text)} words are in the item's texts")
    return None


class Vocabulary:
    """The words of a text. A word is in it if the text has it in any case and form: without accents, in the plural, with another ending."""

    def __init__(self, text: str):
        self._text, self._words = folded(text), {folded(word) for word in words_of(text)}
        self._stems: dict[str, list[str]] = {}
        for word in self._words:
            self._stems.setdefault(word[:STEM], []).append(word)

    def __contains__(self, word: str) -> bool:
        word = folded(word)
        if word in self._words:
            return True
        if not has_case(word):  # many of these scripts put no spaces between words
            return word in self._text
        if not word.isalpha():  # a model or a size has one spelling
            return False
        return any(_same_but_for_ending(word, known) for known in self._stems.get(word[:STEM], ()) if len(word) >= STEM)


def _same_but_for_ending(one: str, other: str) -> bool:
    shared = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return shared >= STEM and max(len(one), len(other)) - shared <= ENDING


def looks_like_a_brand(word: str) -> bool:
    """Whether a word may be a name: it has a capital, or both letters and digits, or its script has no capitals that would tell."""
    return any(c.isupper() for c in word) or (any(c.isalpha() for c in word) and any(c.isdecimal() for c in word)) or not (has_case(word) or word.isdecimal())
