"""What a log shows of long work."""

import io
import re

import pytest
from rich.console import Console

from tgq.cli import console
from tgq.cli.console import ConsoleProgress, pace


@pytest.mark.parametrize(("done", "seconds", "told"), [(300, 2.0, "150.0/s"), (3, 3.0, "1.0/s"), (2, 90.0, "45.0 s each"), (0, 9.0, ""), (1, 0.0, "")])
def test_a_pace_is_per_second_or_seconds_for_each(done, seconds, told):
    assert pace(done, seconds) == told


def test_a_log_gets_a_line_with_pace_and_what_is_left(monkeypatch):
    out = io.StringIO()
    progress = ConsoleProgress(Console(file=out, width=200))
    progress.start("rows", 10)
    progress.update(4, "too soon for a line")
    monkeypatch.setattr(console, "LOG_EVERY_S", 0.0)
    progress.update(0)
    progress.update(4, "and a note")
    progress.finish()
    assert re.fullmatch(r"  rows: 4/10, [\d.]+/s, \d+ s left, and a note\n", out.getvalue())
