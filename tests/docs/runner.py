"""A process that runs examples in one folder, one after the other: Python and Spark start once, not once an example."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SHELL = set("|<>$;&`(")
OUTPUT = "output.txt"


class Runner:
    """Runs examples in `folder`. The Python examples of a page share their names, as the cells of a notebook do."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        context = get_context("spawn")
        self.folder = folder
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, str(folder), environment))  # no daemon: examples start processes of their own
        self._process.start()
        theirs.close()

    def run(self, language: str, text: str, page: str = "") -> str:
        """What the example printed.

        Raises:
            AssertionError: it failed; with all that it printed.
        """
        self._connection.send((language, text, page))
        try:
            error = self._connection.recv()
        except EOFError:
            error = "the process ended"
        printed = (self.folder / OUTPUT).read_text(errors="replace")
        assert error is None, f"{error}\n{printed[-4000:]}"
        return printed

    def close(self) -> None:
        """End the process, and Java with it."""
        self._connection.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.terminate()


def simple_commands(text: str) -> list[list[str]] | None:
    """The words of each command if all of a shell example are plain calls of tgq, else None."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote that another line closes
            return None
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        if words and (words[0] != "tgq" or any(set(token) <= SHELL for token in lexer if token) or "$" in line):
            return None
        commands += [words[1:]] if words else []
    return commands


def _serve(connection: Connection, folder: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    # under `python -m pytest` the main module of a spawned process has no file, from which pyspark concludes that it runs its own doctests
    vars(sys.modules["__main__"]).setdefault("__file__", __file__)
    pages: dict[str, dict[str, Any]] = {}
    while True:
        try:
            language, text, page = connection.recv()
        except EOFError:
            return
        file = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
        try:
            _run(language, text, pages.setdefault(page, {"__name__": "__main__"}))
            error = None
        except BaseException:
            error = traceback.format_exc()
        sys.stdout.flush()
        connection.send(error)


def _run(language: str, text: str, names: dict[str, Any]) -> None:
    if language == "python":
        exec(compile(text, "<example>", "exec"), names)
    elif language == "sql":
        Path("example.sql").write_text(text)
        _tgq(["tables", "--file", "example.sql"])
    elif language == "yaml":
        from tgq.settings.load import load_settings

        Path("example.yaml").write_text(text)
        load_settings(["example.yaml"])
    elif (commands := simple_commands(text)) is not None:
        for command in commands:
            _tgq(command)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)


def _tgq(arguments: list[str]) -> None:
    from tgq.cli.app import main

    try:
        main(arguments)
    except SystemExit as ended:
        if ended.code:
            raise AssertionError(f"tgq {shlex.join(arguments)}: exit code {ended.code}") from None
