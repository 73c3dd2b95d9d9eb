"""MkDocs hooks: pages that are made from the code or copied from the top folder while the site is built."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP), str(TOP / "docs")]

import generate  # noqa: E402

MADE: dict[str, Callable[[], str]] = {
    "reference/cli.md": generate.cli,
    "reference/configuration.md": generate.configuration,
    "reference/tables.md": generate.tables,
}
COPIED = {"project/architecture.md": "ARCHITECTURE.md", "project/contributing.md": "CONTRIBUTING.md", "project/changelog.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for page, make in MADE.items():
        files.append(File.generated(config, page, content=make()))
    for page, source in COPIED.items():
        files.append(File.generated(config, page, content=_relinked((TOP / source).read_text())))
    return files


def _relinked(text: str) -> str:
    """Links between files of the top folder as links between their pages."""
    for page, source in COPIED.items():
        text = text.replace(f"]({source})", f"]({Path(page).name})")
    return text.replace("](docs/", "](../").replace("](README.md)", "](../index.md)")
