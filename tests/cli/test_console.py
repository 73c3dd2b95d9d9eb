"""Progress as lines of a log."""

import io
import re

import pytest
from rich.console import Console

from tgq.cli import console
from tgq.cli.console import ConsoleProgress, pace


@pytest.mark.parametrize(("done", "seconds", "text"), [(300, 2.0, "150.0/s"), (3, 3.0, "1.0/s"), (2, 90.0, "45.0 s each"), (0, 9.0, ""), (1, 0.0, "")])
def test_pace_is_items_per_second_or_seconds_per_item(done, seconds, text):
    assert pace(done, seconds) == text


def test_a_log_line_holds_pace_and_time_left(monkeypatch):
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=200))
    progress.start("rows", 10)
    progress.update(4, "too soon for a line")
    monkeypatch.setattr(console, "LOG_EVERY_S", 0.0)
    progress.update(0)
    progress.update(4, "and a note")
    progress.finish()
    assert re.fullmatch(r"  rows: 4/10, [\d.]+/s, \d+ s left, and a note\n", out.getvalue())
