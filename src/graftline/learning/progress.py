"""Progress of long work: what is done, how fast, how long it still takes."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 5.0
_REDRAW_SECONDS = 0.1


class Progress:
    """A live bar on a terminal; elsewhere a line every few seconds, so that logs stay short."""

    def __init__(self, name: str, total: int, unit: str, *, done: int = 0) -> None:
        """Start to show `name`; `done` of `total` steps were made by an earlier run. `unit` is what the rate counts."""
        self._name, self._total, self._unit = name, total, unit
        self._first, self._done = done, done
        self._began = self._shown = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty():
            self._start_bar()

    def _start_bar(self) -> None:
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"))
        self._bar = Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True), refresh_per_second=5)
        self._task = self._bar.add_task(self._name, total=self._total, completed=self._done, facts="")
        self._bar.start()

    def due(self) -> bool:
        """Return whether it is time to show again: computing what is shown may cost."""
        return time.monotonic() - self._shown >= (_REDRAW_SECONDS if self._bar else LINE_SECONDS)

    def count(self, done: int) -> None:
        """Show that `done` steps are done, if it is time or that is all."""
        if self.due() or done == self._total:
            self.show(done)

    def show(self, done: int, per_step: float = 1.0, **facts: float) -> None:
        """Show that `done` steps are done, each of `per_step` units, with figures such as the loss."""
        now = time.monotonic()
        self._shown, self._done = now, done
        rate = (done - self._first) / max(now - self._began, 1e-9)
        figures = "  ".join(f"{key} {value:.4f}" for key, value in facts.items())
        speed = rate * per_step
        text = f"{speed:,.{0 if speed >= 10 else 1}f} {self._unit}/s  {figures}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, facts=text)
        else:
            left = (self._total - done) / rate if rate else 0.0
            print(f"{self._name}: {done}/{self._total}  {text}  {left:.0f} s left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Stop showing, leaving the last state on the screen."""
        if self._bar is not None:
            self._bar.stop()
