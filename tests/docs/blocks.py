"""The fenced examples of the documentation, and the comment above each that says how it is tested.

    <!-- slow -->               only `make test-docs` runs it
    <!-- not run: reason -->    it is not run, and the reason is shown
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
PAGES = sorted((TOP / "docs").rglob("*.md")) + [TOP / "README.md", TOP / "CONTRIBUTING.md"]
LANGUAGES = ("bash", "python", "sql", "yaml")
FENCE = re.compile(r"(?:^<!-- *([^\n]*?) *-->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One example. `reason` says why it is not run; None where it is."""

    page: str
    line: int
    language: str
    text: str
    slow: bool = False
    reason: str | None = None


def blocks_of(text: str, page: str) -> list[Block]:
    """The examples of a page in its order; other fences (diagrams, folder trees) are left out.

    Raises:
        ValueError: a comment above a fence is neither of the two that are known.
    """
    found = []
    for match in FENCE.finditer(text):
        comment, language, body = match.groups()
        line = text.count("\n", 0, match.start(2)) + 1
        if language not in LANGUAGES:
            continue
        slow, reason = comment == "slow", None
        if comment is not None and not slow:
            if not comment.startswith("not run: "):
                raise ValueError(f"{page}:{line}: the comment '{comment}' above an example is not known: write slow, or not run: reason")
            reason = comment.removeprefix("not run: ")
        found.append(Block(page, line, language, body, slow, reason))
    return found


def all_blocks() -> list[Block]:
    """The examples of all pages, a page after the other."""
    return [block for path in PAGES for block in blocks_of(path.read_text(), path.relative_to(TOP).as_posix())]
