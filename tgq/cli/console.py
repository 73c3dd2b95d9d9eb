"""The console: text that comes from outside cannot steer it. Progress is a bar on a terminal, a line every 15 s in a log."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tgq.messages import presentable

LOG_EVERY_S = 15.0


class PlainConsole(Console):
    """A console that prints every text as it stands, in one line: no markup, no emoji names, no control characters, no passwords.

    Its options are those of rich's console. A text with markup of our own is printed with `markup=True`, and holds nothing from outside.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"highlight": False, "markup": False, "emoji": False, **options})

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts, or rich's tables, whose cells `tgq.cli.tables.table` makes safe."""
        super().print(*(presentable(one) if isinstance(one, str) else one for one in objects), **options)


class ConsoleProgress:
    """Implements `tgq.run.progress.Progress` on a console."""

    def __init__(self, console: Console):
        self.console = console
        self.bar: Progress | None = None

    def start(self, label: str, total: int) -> None:
        self.label, self.total, self.begun, self.logged = label, total, time.monotonic(), time.monotonic()
        if self.console.is_terminal and total:
            self.bar = Progress(
                TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
                console=self.console, transient=True,
            )  # fmt: skip
            self.bar.start()
            self.task = self.bar.add_task(label, total=total, rate="", note="")

    def update(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if self.bar:
            self.bar.update(self.task, completed=done, rate=pace(done, now - self.begun), note=note)
        elif now - self.logged >= LOG_EVERY_S and done:
            self.logged = now
            left = (self.total - done) * (now - self.begun) / done
            self.say(f"{self.label}: {done}/{self.total}, {pace(done, now - self.begun)}, {left:.0f} s left{', ' + note if note else ''}")

    def finish(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def say(self, line: str) -> None:
        self.console.print(f"  {presentable(line)}", highlight=False, markup=False)


def pace(done: int, seconds: float) -> str:
    """The rate as text: items per second, or seconds per item if there is less than one a second. Empty before the first item."""
    if not done or seconds <= 0:
        return ""
    return f"{done / seconds:.1f}/s" if done >= seconds else f"{seconds / done:.1f} s each"
