"""The refiner by rules: it takes noise out of a title and puts what matters first. It adds no word.

Rules: what is written as HTML is read, decorations and promotional phrases are removed, immediate repetitions and parts that say nothing new
are dropped, units have one spelling, a title in capitals gets normal case, and of the parts between dashes or bars those that name the kind
of product come first and bare sizes last. The rules are repeated until they change nothing, so refining a refined title changes nothing.

Cost: some ten regular expressions over each title.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from tgq.encoder.text import normalise
from tgq.refinement.refiner import ItemText, Refinement
from tgq.refinement.words import EDGES, WORD, folded, has_case, words_of

FORMAT = 1  # to be raised when a title gets another result
MOST_PASSES = 100  # each pass shortens the title or brings it closer to its final form; a title needs two or three
LONGEST_REPEAT = 6  # words of a repetition
SHOUTED = 4  # letters from which on a word in capitals is no abbreviation

_PROMOTIONS = (
    r"free (?:shipping|delivery|returns?|gift)", r"fast (?:shipping|delivery)", r"(?:best|lowest|great|low|special) (?:price|deal|offer)s?",
    r"limited(?: time)? offer", r"(?:hot|flash|mega|super|big|final|clearance|summer|winter|spring|holiday) sale",
    r"hot (?:deal|item|seller)s?", r"on sale(?: now)?", r"sale", r"clearance",
    r"\d+(?:[.,]\d+)* ?% off", r"(?:up to|save) \d+(?:[.,]\d+)* ?%(?: off)?", r"buy \d+,? get \d+(?: free)?",
    r"new arrivals?", r"best ?-?sell(?:er|ers|ing)", r"top ?-?rated", r"top seller", r"must ?-?haves?", r"(?:order|shop|buy) (?:now|today)",
    r"100 ?% (?:satisfaction|quality|money[ -]back)(?: guaranteed?)?",
    r"money[ -]back guarantee", r"satisfaction guaranteed?", r"while (?:stocks?|supplies) lasts?",
    r"in stock(?: now)?", r"as seen on tv", r"trending(?: now)?", r"gratis ?versand", r"kostenloser versand", r"sonderangebot", r"nur heute", r"jetzt kaufen",
)  # fmt: skip
PROMOTION = re.compile(rf"(?<!\d[.,])(?<![\w'’-])(?:{'|'.join(_PROMOTIONS)})(?![\w'’-])!*", re.IGNORECASE)
DECORATION = re.compile(r"[★☆✓✔❤♥🔥‼❗⭐✨💥👍®™©]\ufe0f?|[!*~_=#]{2,}|(?<=[\w%])!(?=\s|$)")
# number, then a spelling of the unit; spellings of one letter only as they stand, because 5G and size L are no amounts
_UNITS = {
    "g": "gr|grs|gm|gms|grams?|grammes?", "kg": "kgs?|kilos?|kilograms?|kilogrammes?", "mg": "mgs?|milligrams?", "ml": "mls?|millilit(?:er|re)s?",
    "cl": "cls?|centilit(?:er|re)s?", "l": "lt|ltrs?|lit(?:er|re)s?", "cm": "cms?|centimet(?:er|re)s?", "mm": "mms?|millimet(?:er|re)s?",
    "m": "mtrs?|met(?:er|re)s?", "oz": "ozs?|ounces?", "lb": "lbs?|pounds?", "ft": "ft|foot|feet", "inch": "inch|inches", "pcs": "pcs|pieces",
    "GB": "gbs?|gigabytes?", "TB": "tbs?|terabytes?",
}  # fmt: skip
UNITS = [
    (unit, re.compile(rf"(?<![\w.,'’])(\d+(?:[.,]\d+)*) ?(?:(?i:{spellings}){f'|{unit}' if len(unit) == 1 else ''})(?!\w)"))
    for unit, spellings in _UNITS.items()
]  # fmt: skip
AMOUNT = {*_UNITS, "x", "in"}  # words of a part that is nothing but a size
DASH = r"[-–—]"
PART = re.compile(rf"(?<!\d) {DASH} (?!\d)| ?[|•] ?")  # beside a number a dash may belong to a range or a size
ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);")
CLEAN_UP = (
    (re.compile(r"\(\s*\)|\[\s*\]|\{\s*\}"), " "),
    (re.compile(r"\s+"), " "),
    (re.compile(r" ([,;!?])"), r"\1"),
    (re.compile(r"([,;|•:])(?: ?[,;|•:])+"), r"\1"),
    (re.compile(rf"(?: {DASH})+(?= {DASH}(?: |$))"), ""),
    (re.compile(rf"^(?:[,;|•:! ]|{DASH}+ )+|(?:[,;|•: ]| {DASH}+)+$"), ""),
)


class RuleRefiner:
    """Refines by the rules of this module."""

    version = f"rules-{FORMAT}"

    def refine(self, items: Sequence[ItemText]) -> list[Refinement]:
        """A result for each item, in order: `refined` or `kept`."""
        return [Refinement.of(item.title, refined_title(item)) for item in items]


def refined_title(item: ItemText) -> str:
    """The item's title after the rules; the title as it is where they would leave no letter or number of it."""
    title = normalise(item.title)
    for _ in range(MOST_PASSES):
        before, title = title, _once(title, item)
        if title == before:
            break
    # a title that is settled but for spaces and the form of its characters is no other title
    return title if words_of(title) and title != normalise(item.title) else item.title


def _once(title: str, item: ItemText) -> str:
    title = ENTITY.sub(lambda found: html.unescape(found[0]), title)
    title = _tidied(DECORATION.sub(" ", title))
    title = _tidied(_without_promotions(title, item))
    title = _without_repetitions(title, item)
    for unit, pattern in UNITS:
        title = pattern.sub(rf"\1 {unit}", title)
    title = _in_normal_case(title, item)
    return normalise(_tidied(_ordered(title, item)))


def _tidied(title: str) -> str:
    for pattern, replacement in CLEAN_UP:
        title = pattern.sub(replacement, title)
    return title


def _without_promotions(title: str, item: ItemText) -> str:
    """Without phrases that praise or sell; one that stands in the brand, the category or an attribute says what the item is."""
    own = folded(" ".join((item.brand, item.category, *item.attributes.values())))
    return PROMOTION.sub(lambda found: found[0] if folded(found[0].rstrip("!")) in own else " ", title)


def _without_repetitions(title: str, item: ItemText) -> str:
    """Without words that repeat those right before them; names such as Bora Bora stay where the item's other texts have them."""
    own = f" {' '.join(folded(text) for text in (item.brand, item.category, *item.attributes.values()))} "
    words = title.split(" ")
    keys = [folded(word.strip(EDGES)) for word in words]
    plain = [bool(key) and key == folded(word.rstrip(EDGES)) for word, key in zip(words, keys, strict=True)]
    at = 0
    while at < len(words):
        for n in range(min(LONGEST_REPEAT, (len(words) - at) // 2), 0, -1):
            first, second = keys[at : at + n], keys[at + n : at + 2 * n]
            # a size that stands twice may be two sizes
            is_text = any(sum(c.isalpha() for c in key) >= 3 for key in first) and not any(c.isdecimal() for key in first for c in key)
            if first == second and is_text and all(plain[at + n : at + 2 * n]) and f" {' '.join(first + second)} " not in own:
                last = words[at + 2 * n - 1]
                words[at + n - 1] = words[at + n - 1].rstrip(EDGES) + last[len(last.rstrip(EDGES)) :]
                for kept in (words, keys, plain):
                    del kept[at + n : at + 2 * n]
                break
        else:
            at += 1
    return " ".join(words)


def _in_normal_case(title: str, item: ItemText) -> str:
    """A title whose longer words are mostly in capitals, with these words capitalised; the brand is spelled as in its own field."""
    brand = {folded(word): word for word in words_of(item.brand)}
    long = [word for word in words_of(title) if sum(c.isalpha() for c in word) >= SHOUTED and has_case(word) and folded(word) not in brand]
    if 2 * sum(_is_shouted(word) for word in long) <= len(long):
        return title

    def spelled(found: re.Match[str]) -> str:
        word = found[0]
        if folded(word) in brand:
            return brand[folded(word)]
        return word[:1] + word[1:].lower() if _is_shouted(word) else word

    return WORD.sub(spelled, title)


def _is_shouted(word: str) -> bool:
    """Whether a word of letters alone is in capitals and too long for an abbreviation; digits are of models, which keep their capitals.

    A capital that becomes two characters, as the Turkish İ does, stays."""
    letters = re.sub("['’]", "", word)
    return letters.isalpha() and len(letters) >= SHOUTED and word == word.upper() != word.lower() and len(word.lower()) == len(word)


def _ordered(title: str, item: ItemText) -> str:
    """The parts of a title in the order of what they tell, without those that tell nothing new. Unchanged if they are in order."""
    parts = [part for part in PART.split(title) if part]
    kind = {_stem(word) for word in words_of(item.category.rpartition(">")[2])}
    kept: list[str] = []
    known: list[set[str]] = []
    for part in parts:
        words = {folded(word) for word in words_of(part)}
        if not words or not any(words <= earlier for earlier in known):
            kept.append(part)
            known.append(words)

    def rank(part: str) -> int:
        words = words_of(part)
        if kind & {_stem(word) for word in words}:
            return 0
        return 2 if all(any(c.isdecimal() for c in word) or word in AMOUNT for word in words) else 1

    ordered = sorted(kept, key=rank)
    return title if ordered == parts else ", ".join(ordered)


def _stem(word: str) -> str:
    """The word without case and the ending of its plural."""
    word = folded(word)
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
