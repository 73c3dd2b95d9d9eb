"""The interface of language models, and how a fleet of tasks shares a run's limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Chat:
    """A conversation to be continued: one message of the system and one of the user."""

    system: str
    user: str
    picture: bytes | None = field(default=None, repr=False)  # a JPEG that the user shows before the text

    @property
    def messages(self) -> list[dict[str, Any]]:
        """As chat templates and endpoints take it, without the picture. An empty text of the system is no message."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, {"role": "user", "content": self.user}]

    @property
    def merged(self) -> Chat:
        """The same with the system's text before the user's, for models that know no message of the system."""
        return Chat("", f"{self.system}\n\n{self.user}", self.picture)


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
