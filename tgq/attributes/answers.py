"""What a source says about an attribute, and the checks of what a language model says."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tgq.attributes.vocabulary import Vocabulary
from tgq.encoder.text import normalise
from tgq.messages import presentable
from tgq.refinement.answers import AnswerError, object_of
from tgq.refinement.checks import Vocabulary as Words
from tgq.refinement.checks import looks_like_a_brand
from tgq.refinement.refiner import ItemText
from tgq.refinement.words import folded, numbers_of, scripts_of, words_of

LONGEST = 60  # characters of a value
UNKNOWN = "(unknown)"  # the key of names that were not asked for
BRANDS = frozenset(("brand", "manufacturer", "vendor", "maker", "marke", "hersteller", "marque", "marca"))  # keys whose values are names

# said: the value is used; silent: the source is not sure enough; refused: the answer failed a check; failed: there is no answer, a later run asks again;
# waiting: the item was not asked about
Verdict = Literal["said", "silent", "refused", "failed", "waiting"]


@dataclass(frozen=True)
class Answer:
    """What a source says about one attribute of one item."""

    key: str
    verdict: Verdict
    value: str | None = None
    score: float | None = None  # calibrated probability that the value is right; None: the source knows none
    reason: str | None = None  # a name that is counted, of the verdicts refused, failed and waiting
    detail: str | None = None  # one line that explains the reason
    tokens: int = 0  # that a language model read and wrote, on the first answer of an item


def checked(text: str, item: ItemText, keys: Sequence[str], vocabulary: Vocabulary) -> list[Answer]:
    """The answers of a language model about an item, one per asked key, and one more if it names attributes that were not asked for.

    A value must be a short text. Its numbers must stand in the item's texts. Every word that looks like a name must stand there or in a known value of
    the key, and so must the whole value of a key that names a brand. A known value gets its known spelling.
    """
    try:
        found: dict[str, Any] = object_of(text)
    except AnswerError as error:
        return [Answer(key, "refused", reason="no_json", detail=str(error)) for key in keys]
    said = {normalise(name): value for name, value in found.items()}
    answers = [_checked(key, said.get(key), item, vocabulary.values.get(key, ())) for key in keys]
    if others := sorted(set(said) - set(keys)):
        detail = presentable(f"not asked for: {', '.join(others)}")[:200]
        answers.append(Answer(UNKNOWN, "refused", reason="unknown_key", detail=detail))
    return answers


def _checked(key: str, value: Any, item: ItemText, known: Sequence[str]) -> Answer:
    if value is None:
        return Answer(key, "silent")
    if isinstance(value, bool) or not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        return Answer(key, "refused", reason="not_text", detail=f"the value is {presentable(json.dumps(value))[:80]}, which is no text")
    value = normalise(value)
    reason, detail = _flaw(key, value, item, known)
    if reason:
        return Answer(key, "refused", reason=reason, detail=presentable(detail)[:200])
    spelled = {folded(one): one for one in known}
    return Answer(key, "said", spelled.get(folded(value), value))


def _flaw(key: str, value: str, item: ItemText, known: Sequence[str]) -> tuple[str, str]:
    words, own = words_of(value), Words(item.whole)
    if not words:
        return "empty", "the value has no word"
    if len(value) > LONGEST:
        return "too_long", f"the value has {len(value)} characters, above the limit of {LONGEST}"
    if invented := numbers_of(value) - numbers_of(item.whole):
        return "invented_number", f"the number {min(invented)} is not in the item's texts"
    is_known = folded(value) in {folded(one) for one in known}
    if folded(key) in BRANDS and (missing := next((word for word in words if word not in own), None)):
        return "invented_brand", f"the name {missing} is not in the item's texts"
    if is_known:
        return "", ""
    whole = " ".join((item.whole, *known))
    if other := scripts_of(value) - scripts_of(whole):
        return "other_script", f"the value has letters of another script ({', '.join(sorted(other)).lower()})"
    learned = Words(whole)
    if brand := next((word for word in words if looks_like_a_brand(word) and word not in learned), None):
        return "invented_brand", f"the name {brand} is neither in the item's texts nor in a known value of {key}"
    return "", ""
