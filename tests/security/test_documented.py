"""The page about unfriendly input says how many cases there are, and names reasons and errors that exist."""

import re

import tgq.errors
from tests.docs.blocks import TOP

PAGE = TOP / "docs" / "concepts" / "unfriendly-input.md"


def test_the_page_says_how_many_cases_there_are(collected):
    said = {name: int(count) for name, count in re.findall(r"^\| .* \| `(test_\w+\.py)` \| (\d+) \|$", PAGE.read_text(), re.MULTILINE)}
    assert said and {name: collected[name] for name in said if collected[name]} == {name: count for name, count in said.items() if collected[name]}
    files = {file.name for file in (TOP / "tests" / "security").glob("test_*.py")} - {"test_documented.py"}
    assert set(said) == files and f"{sum(said.values())} cases" in PAGE.read_text()


def test_the_errors_on_the_page_exist():
    named = set(re.findall(r"`(\w+Error)`", PAGE.read_text())) - {"ImageError"}
    assert named and all(issubclass(getattr(tgq.errors, name), tgq.errors.TgqError) for name in named)
