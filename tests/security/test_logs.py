"""Ids, titles and names of files that hold newlines, escape sequences and overrides: what is printed and logged is one line and steers nothing."""

import io
import json
import pickle
import sys

import pytest

from tgq.cli import app as cli
from tgq.cli.console import ConsoleProgress, PlainConsole
from tgq.cli.tables import table
from tgq.errors import TgqError
from tgq.images.decode import ImageError
from tgq.images.fetch import Fetcher
from tgq.images.permitted import FetchOptions
from tgq.messages import json_line, presentable, printable
from tgq.run.records import error_line

INJECTIONS = {
    "newline": ("a\n  publish: done", r"a\n  publish: done"), "carriage-return": ("a\rtgq: ok", r"a\rtgq: ok"), "crlf": ("a\r\nb", r"a\r\nb"),
    "tab": ("a\tb", r"a\tb"), "zero": ("a\0b", r"a\x00b"), "bell": ("a\ab", r"a\x07b"), "backspace": ("ab\b\bok", r"ab\x08\x08ok"),
    "ansi-colour": ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"), "ansi-clear-screen": ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
    "ansi-title": ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"), "ansi-link": ("\x1b]8;;http://evil\x1b\\x", r"\x1b]8;;http://evil\x1b\x"),
    "ansi-clipboard": ("\x1b]52;c;cm0gLXJm\x07", r"\x1b]52;c;cm0gLXJm\x07"), "c1-csi": ("\x9b31m", r"\x9b31m"), "c1-osc": ("\x9d0;x\x9c", r"\x9d0;x\x9c"),
    "delete": ("a\x7fb", r"a\x7fb"), "next-line": ("a\x85b", r"a\x85b"), "line-separator": ("a\u2028b", r"a\u2028b"),
    "paragraph-separator": ("a\u2029b", r"a\u2029b"), "bidi-override": ("gpj\u202eexe", r"gpj\u202eexe"), "bidi-isolate": ("a\u2066b\u2069", r"a\u2066b\u2069"),
    "bidi-mark": ("a\u200fb", r"a\u200fb"), "invisible-tag": ("a\U000e0041b", r"a\U000e0041b"), "half-a-character": ("a\ud800b", r"a\ud800b"),
}  # fmt: skip
MARKUP = {
    "colour": "[red]x[/red]", "link": "[link=http://evil.example]click[/link]", "closing-tag": "[/]", "other-closing-tag": "[/bold]",
    "emoji-name": ":x: :warning:",
}  # fmt: skip


def printed(act) -> str:
    """What is printed on a console of 200 characters, without the line's own end."""
    sink = io.StringIO()
    act(PlainConsole(file=sink, width=200))
    return sink.getvalue()


@pytest.mark.parametrize(("text", "shown"), INJECTIONS.values(), ids=INJECTIONS)
def test_an_id_or_title_on_the_console_is_one_line(text, shown):
    assert printed(lambda console: console.print(f"item {text}!", soft_wrap=True)) == f"item {shown}!\n"
    assert printed(lambda console: ConsoleProgress(console).say(f"note {text}!")) == f"  note {shown}!\n"
    cells = printed(lambda console: console.print(table(f"Hits {text}", ["item", f"column {text}"], [[text, "red"]])))
    assert cells.count("\n") == 6 and shown in cells and (printable(cells.replace("\n", " ")) == cells.replace("\n", " "))


@pytest.mark.parametrize("text", MARKUP.values(), ids=MARKUP)
def test_markup_of_the_console_in_a_title_is_text(text):
    assert printed(lambda console: console.print(text)) == f"{text}\n"
    assert text in printed(lambda console: console.print(table("Hits", ["title"], [[text]])))


@pytest.mark.parametrize(("text", "shown"), INJECTIONS.values(), ids=INJECTIONS)
def test_errors_and_rows_of_runs_are_one_line(text, shown):
    error = TgqError(f"no column {text}!", f"name {text}!")
    assert str(error) == f"no column {shown}!: name {shown}!" and error_line(error) == str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert error_line(ValueError(f"{text}!")) == f"ValueError: {shown}!"
    picture = ImageError("not_found", f"{text}!")
    assert picture.detail == f"{shown}!" == pickle.loads(pickle.dumps(picture)).detail


@pytest.mark.parametrize(("text", "shown"), INJECTIONS.values(), ids=INJECTIONS)
def test_search_hits_as_json_are_one_line_of_plain_text_and_still_the_title(text, shown):
    line = json_line({"title": text, "brand": "Größe 明"})
    assert printable(line) == line and json.loads(line)["title"] == text and "Größe 明" in line


@pytest.mark.parametrize(("text", "shown"), INJECTIONS.values(), ids=INJECTIONS)
def test_a_picture_path_in_a_quarantine_detail(tmp_path, text, shown):
    fetcher = Fetcher(FetchOptions(allowed_roots=(str(tmp_path),)))
    with pytest.raises(ImageError) as caught:
        fetcher.read(f"{tmp_path}/../{text}.jpg")
    assert caught.value.reason in ("path_outside_catalog", "not_found") and printable(caught.value.detail) == caught.value.detail


@pytest.mark.parametrize(("text", "shown"), INJECTIONS.values(), ids=INJECTIONS)
def test_a_mistake_on_the_command_line_is_one_line(capsys, tmp_path, monkeypatch, text, shown):
    monkeypatch.chdir(tmp_path)
    if "\0" in text or "\ud800" in text:
        text = shown = ascii(text)  # no argument of a process can hold them
    text, shown = text.replace("://", ":"), shown.replace("://", ":")  # an address would be asked of Spark
    with pytest.raises(SystemExit):
        cli.main(["nightly", "--catalog", f"shop{text}"])
    said = capsys.readouterr().err
    assert said == f"tgq: the catalog shop{shown} does not exist: give --catalog an existing folder or table\n"


def test_a_message_has_an_end():
    assert len(str(TgqError("x" * 10**7))) <= 4000
    assert len(ImageError("not_found", "x" * 10**7).detail) < 1100
    assert presentable(presentable("x" * 5000)) == presentable("x" * 5000)


def test_characters_of_every_script_stay():
    text = "Größe 明るい مرحبا שלום हिन्दी 👟 ½ – “x”"
    assert presentable(text) == text and printed(lambda console: console.print(text, soft_wrap=True)) == f"{text}\n"
    assert sys.getdefaultencoding() == "utf-8"
