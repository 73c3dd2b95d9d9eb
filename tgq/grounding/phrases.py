"""What a detector looks for in an item's picture: a phrase for its category."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tgq.encoder.text import normalise
from tgq.errors import ConfigError
from tgq.settings.load import need_small

EXAMPLE = "write lines such as `Women > Tops: a woman's top`"


@dataclass(frozen=True)
class Phrases:
    """Phrases by category.

    Attributes:
        known: phrase by category, its levels in lower case; None: the phrase is the last level of the category. An empty phrase says that
            pictures of the category are kept whole.
    """

    known: Mapping[tuple[str, ...], str] | None = None

    @classmethod
    def read(cls, path: str | None) -> Phrases:
        """Read a mapping file, YAML with a phrase for each category; without one the phrase is the last level of the category.

        Raises:
            ConfigError: it cannot be read, or maps anything but categories to phrases.
        """
        if path is None:
            return cls()
        shown = f"enrich.grounding.phrases {path}"
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
            need_small(yaml.compose(text, yaml.SafeLoader), shown)
            found = yaml.safe_load(text)
        except OSError as error:
            raise ConfigError(f"{shown} cannot be read ({error.strerror})", "name a YAML file") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes that are not UTF-8
            raise ConfigError(f"{shown} is no YAML ({' '.join(str(error).split())[:160]})", EXAMPLE) from None
        if not isinstance(found, dict):
            raise ConfigError(f"{shown} holds a {type(found).__name__}", EXAMPLE)
        for category, phrase in found.items():
            if not isinstance(category, str) or not isinstance(phrase, str | None):
                raise ConfigError(f"{shown}: {str(category)[:80]!r} has {str(phrase)[:80]!r}, which is no phrase", EXAMPLE)
        return cls({_levels(category): normalise(phrase) for category, phrase in found.items()})

    def of(self, category: str | None) -> str | None:
        """The phrase of a category 'a > b > c': of itself, else of the nearest category above it that has one; None without one."""
        levels = _levels(category or "")
        if self.known is None:
            return normalise((category or "").rpartition(">")[2]) or None
        for n in range(len(levels), 0, -1):
            if levels[:n] in self.known:
                return self.known[levels[:n]] or None
        return None


def _levels(category: str) -> tuple[str, ...]:
    """The levels of a category, so that spelling them in another case or with other spaces makes no difference."""
    return tuple(level for part in category.split(">") if (level := normalise(part).casefold()))
