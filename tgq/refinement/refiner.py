"""What a refiner is given, what it gives back, and the interface of all refiners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

# refined: there is another title; kept: the title stays, because the refiner has nothing to change
# refused: the answer failed a check, so the title stays; failed: there is no answer, so the title stays and a later run asks again
# waiting: the item was not asked about, because the run's limit of tokens is reached
Verdict = Literal["refined", "kept", "refused", "failed", "waiting"]


@dataclass(frozen=True)
class ItemText:
    """The texts of an item, as far as the encoder may read them, and its picture for a language model that sees it."""

    title: str
    brand: str = ""
    category: str = ""  # path, levels joined by ' > '
    attributes: Mapping[str, str] = field(default_factory=dict)
    picture: bytes | None = field(default=None, repr=False)  # as `tgq.refinement.picture.shown` gives it

    @property
    def whole(self) -> str:
        """All texts, in one."""
        pairs = (part for pair in self.attributes.items() for part in pair)
        return " ".join(part for part in (self.title, self.brand, self.category, *pairs) if part)


@dataclass(frozen=True)
class Refinement:
    """A refiner's result for one item. `title` is given for the verdict `refined` and for no other."""

    verdict: Verdict
    title: str | None = None
    reason: str | None = None  # a name that is counted, of the verdicts refused, failed and waiting
    detail: str | None = None  # one line that explains the reason
    rounds: int = 0  # titles that a language model proposed
    tokens: int = 0  # that a language model read and wrote

    @classmethod
    def of(cls, before: str, after: str, rounds: int = 0, tokens: int = 0) -> Refinement:
        """`refined` if the titles differ, otherwise `kept`."""
        if after == before:
            return cls("kept", rounds=rounds, tokens=tokens)
        return cls("refined", after, rounds=rounds, tokens=tokens)


class Refiner(Protocol):
    """Refines titles. The same item has the same result under the same `version`."""

    @property
    def version(self) -> str:
        """Changes if the results may change."""
        ...

    def refine(self, items: Sequence[ItemText]) -> list[Refinement]:
        """A result for each item, in order. Raises nothing because of an item."""
        ...
