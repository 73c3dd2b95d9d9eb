"""The interface of language models, and how a fleet of tasks shares a run's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Chat:
    """A conversation to be continued: one message of the system and one of the user."""

    system: str
    user: str

    @property
    def messages(self) -> list[dict[str, str]]:
        """As chat templates and endpoints take it."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


@dataclass(frozen=True)
class Reply:
    """An answer, or the reason why there is none."""

    text: str = ""
    tokens: int = 0  # read and written
    written: int = 0  # of these, where they are counted
    reason: str | None = None  # a name that is counted; `token_limit` if the run may spend no more
    detail: str | None = None


TOKEN_LIMIT = "token_limit"


class Generator(Protocol):
    """Continues conversations. It gives the most likely answer, so the same prompt has the same answer, as far as the model's arithmetic goes."""

    @property
    def version(self) -> str:
        """Changes if the answers may change."""
        ...

    def answers(self, chats: Sequence[Chat], json: bool) -> list[Reply]:
        """An answer for each conversation, in order. Raises nothing because of a single one.

        Args:
            json: the answers are to be JSON objects; a generator that can enforces it.
        """
        ...
