"""Progress bars in the terminal; where there is none a line per bar when it is full."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn

from tracker.console.output import print_line, readable_bytes, readable_rate, readable_time

RATE_PERIOD = 3600.0
"""Seconds over which a rate is averaged: one checkpoint may take minutes."""
SILENCE = 600.0
"""Seconds without a line after which one says how far it is, where there is no terminal."""
WIDE = 110
"""Columns from which a bar also has room for its note."""


class Listener(Protocol):
    """Whoever follows the bars from outside the process."""

    def begin(self, doing: str) -> None:
        """Start what is done now; earlier bars go."""
        ...

    def moved(self, name: str, done: int, total: int, pace: str = "", note: str = "") -> None:
        """Report one bar."""
        ...


class Bars:
    """Progress bars in a terminal; without one a line per bar when it is full, and one every ten minutes.

    One bar per name, with its rate and the time left as rich estimates them: from the steps behind the first
    one, which also pays for starting up.

    Args:
        console: where to.
        title: what is being done, as in ``measuring``.
        listener: gets the same reports.
        get_time: the clock, in seconds.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        listener: Listener | None = None,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._listener = console, title, listener
        if listener is not None:
            listener.begin(title)
        self._tasks: dict[str, TaskID] = {}
        self._clock, self._said, self._begun = get_time, get_time(), dict[str, float]()
        wide = console.width >= WIDE
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if wide else 8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False, style="progress.remaining"),
        ]
        if wide:
            columns.append(TextColumn("{task.fields[note]}", markup=False, style="dim"))
        self._bars = Progress(
            *columns,
            console=console,
            speed_estimate_period=RATE_PERIOD,
            get_time=get_time,
            disable=not console.is_terminal,
        )

    def add(self, name: str, total: int) -> None:
        """Add a bar for ``name`` with ``total`` steps."""
        self._tasks[name] = self._bars.add_task(f"{self._title} {name}", total=total, note="", pace="")
        if self._listener is not None:
            self._listener.moved(name, 0, total)

    def advance_to(self, name: str, done: int, note: str = "", fetched: float | None = None) -> None:
        """Move a bar.

        Args:
            name: of the bar.
            done: how many of its steps are done.
            note: text shown after it.
            fetched: bytes fetched for it so far, None where unknown.
        """
        self._bars.update(self._tasks[name], completed=done, note=note)
        task = next(each for each in self._bars.tasks if each.id == self._tasks[name])
        pace, total = _pace(task, fetched), int(task.total or 0)
        self._bars.update(task.id, pace=pace)
        if self._listener is not None:
            self._listener.moved(name, done, total, pace, note)
        if not self._console.is_terminal:
            self._say(task, name, pace, note)

    def _say(self, task: Task, name: str, pace: str, note: str) -> None:
        """Print a line where a bar is full, with its rate over all, and where none was printed for long."""
        now, done, total = self._clock(), int(task.completed), int(task.total or 0)
        begun = self._begun.setdefault(name, self._said)
        if done == total:
            over_all = readable_rate(done / (now - begun)) if now > begun else ""
            fetched = next((part for part in pace.split(", ") if part.endswith("fetched")), "")
            parts = f"{done}/{total} in {readable_time(now - begun)}", over_all, fetched, note
        elif now - self._said >= SILENCE:
            parts = f"{done}/{total}", pace, note
        else:
            return
        self._said = now
        print_line(self._console, f"{self._title} {name}: {', '.join(part for part in parts if part)}")

    def show(self, name: str, done: int, total: int) -> None:
        """Move a bar, and add it where there is none yet."""
        if name not in self._tasks:
            self.add(name, total)
        self.advance_to(name, done)

    @contextmanager
    def running(self) -> Iterator["Bars"]:
        """Show the bars for the length of a block."""
        with self._bars:
            yield self


def _pace(task: Task, fetched: float | None) -> str:
    """Rate, time left and bytes fetched, as far as they are known."""
    parts = []
    if task.speed:
        parts.append(readable_rate(task.speed))
        if task.remaining:
            parts.append(f"{readable_time(task.remaining / task.speed)} left")
    if fetched:
        parts.append(f"{readable_bytes(fetched)} fetched")
    return ", ".join(parts)
