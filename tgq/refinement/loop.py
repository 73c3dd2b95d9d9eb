"""The refiner by a language model: Summarizer, Evaluator and Refiner in turns, as in VL-CLIP (arXiv 2507.17080, section 3.2).

The summarizer proposes a title. The evaluator answers `<STOP>` or a critique, by which the refiner proposes another title, and so on. Beyond the
paper each title is checked by `flaw_of`: what a title with a flaw must not say is the critique of the next round, without asking the
evaluator, and only titles without a flaw are used.

Cost: one answer of the model for a title that is accepted at once and its evaluation, two more for each further round. Items go through the
rounds together, so that the model answers in batches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from tgq.refinement import picture, prompts
from tgq.refinement.answers import AnswerError, critique_of, title_of
from tgq.refinement.checks import Flaw, flaw_of
from tgq.refinement.generators.generator import TOKEN_LIMIT, Chat, Generator, Reply
from tgq.refinement.refiner import ItemText, Refinement, Verdict

FORMAT = 1  # to be raised when the same answers give other titles
NO_JSON = "no_json"


@dataclass
class _Course:
    """An item on its way through the rounds."""

    item: ItemText
    proposed: str = ""  # the last title, or the last answer that was none
    usable: str | None = None  # the last title without a flaw
    flaw: Flaw | None = None  # of the last answer
    critique: str | None = None  # for the next round
    rounds: int = 0
    tokens: int = 0
    failure: Reply | None = None
    described: str = field(init=False)

    def __post_init__(self) -> None:
        self.described = prompts.described(self.item)

    def result(self) -> Refinement:
        if self.failure:
            verdict: Verdict = "waiting" if self.failure.reason == TOKEN_LIMIT else "failed"
            return Refinement(verdict, None, self.failure.reason, self.failure.detail, self.rounds, self.tokens)
        if self.usable is not None:
            return Refinement.of(self.item.title, self.usable, self.rounds, self.tokens)
        assert self.flaw is not None  # of the only answers that it had
        return Refinement("refused", None, self.flaw.reason, self.flaw.detail, self.rounds, self.tokens)


class ModelRefiner:
    """Refines titles by a language model.

    Args:
        rounds: titles that may be proposed for an item.
        longest: characters of a title.
        sees_pictures: items may have a picture, which the model is shown with each prompt.
    """

    def __init__(self, generator: Generator, rounds: int, longest: int, sees_pictures: bool = False):
        self.generator, self.rounds, self.longest, self.sees_pictures = generator, rounds, longest, sees_pictures

    @property
    def version(self) -> str:
        """A hash of the prompts, the generator and the limits, and of how pictures are shown if they are."""
        parts = [FORMAT, prompts.version(), self.generator.version, self.rounds, self.longest]
        if self.sees_pictures:
            parts += [prompts.prompt("picture"), picture.SIDE, picture.QUALITY]
        return f"model-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    def refine(self, items: Sequence[ItemText]) -> list[Refinement]:
        """A result for each item, in order. A title in the last round is used if it has no flaw, even if the evaluator was not content."""
        courses = [_Course(item) for item in items]
        self._propose(courses, "summarizer")
        criticised = courses
        for _ in range(self.rounds - 1):
            criticised = self._criticised(criticised)
            self._propose(criticised, "refiner")
        return [one.result() for one in courses]

    def _propose(self, courses: Sequence[_Course], name: str) -> None:
        """Let the summarizer or the refiner propose a title for each."""
        asked = [
            prompts.prompt(name, item=one.described, longest=self.longest, title=one.proposed or "(none)", critique=one.critique or "")
            for one in courses
        ]  # fmt: skip
        for one, reply in zip(courses, self._answers(courses, asked, True), strict=True):
            one.tokens += reply.tokens
            if reply.reason is not None:
                one.failure = reply
                continue
            one.rounds += 1
            try:
                one.proposed = title_of(reply.text)
                one.flaw = flaw_of(one.proposed, one.item, self.longest)
            except AnswerError as error:
                one.proposed, one.flaw = "", Flaw(NO_JSON, str(error))
            if one.flaw is None:
                one.usable = one.proposed

    def _criticised(self, courses: Sequence[_Course]) -> list[_Course]:
        """Those for which another title is to be proposed, with a critique."""
        answered = [one for one in courses if one.failure is None]
        judged = [one for one in answered if one.flaw is None]
        asked = [prompts.prompt("evaluator", item=one.described, title=one.proposed) for one in judged]
        for one, reply in zip(judged, self._answers(judged, asked, False), strict=True):
            one.tokens += reply.tokens
            one.failure, one.critique = (reply, None) if reply.reason is not None else (None, critique_of(reply.text))
        for one in answered:
            if one.flaw is not None:
                one.critique = one.flaw.detail
        return [one for one in answered if one.critique is not None]

    def _answers(self, courses: Sequence[_Course], asked: Sequence[str], json: bool) -> list[Reply]:
        return self.generator.answers([_chat(one.item, text) for one, text in zip(courses, asked, strict=True)], json) if asked else []


def _chat(item: ItemText, text: str) -> Chat:
    """A prompt about an item, with its picture and what the picture means if there is one."""
    said = text if item.picture is None else f"{prompts.prompt('picture')}\n\n{text}"
    return Chat(prompts.prompt("system"), said, item.picture)
