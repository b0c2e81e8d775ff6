"""What people see in the terminal: progress while it runs, tables, and words at the end."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from tracker.checkpoints.audit.file import RepoAudit
from tracker.checkpoints.audit.findings import FAULTS, Finding
from tracker.planning.plan import Plan
from tracker.records import Outcome, PlannedUnit
from tracker.store.progress import Telling

if TYPE_CHECKING:
    from tracker.analysis.comparison import Column, Sample

SHOWN_HOLES = 8
SHOWN_ALERTS = 5
PLAIN_WIDTH = 120
"""Columns of a table where no terminal tells its own."""
FIRST_TOLD = 20
"""The first move of a bar tells a rate where it is at least one in so many of the total."""
DONE, SOME_FAILED = 0, 1
"""Exit codes of verbs that ran to their end."""
WIDE = 110
"""Columns from which a bar also has room for its note."""


def make_console() -> Console:
    """The console of a command; where output goes to a file it is wide enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def say(console: Console, text: str) -> None:
    """One line of text as it is: names from outside are never read as markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


class Bars:
    """Progress bars in a terminal; where there is none, a plain line now and then.

    One bar per name, with its rate and the time left; ``advance_to`` moves it, and ``note`` stands behind it.
    ``told`` tells whoever looks on from outside the same.
    """

    def __init__(self, console: Console, title: str, told: Telling | None = None) -> None:
        self._console, self._title, self._told = console, title, told
        if told is not None:
            told.begin(title)
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}
        self._begun: dict[str, tuple[int, float]] = {}
        self._last_move = time.monotonic()
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if console.width >= WIDE else 8),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", markup=False, style="progress.remaining"),
        ]
        if console.width >= WIDE:
            columns.append(TextColumn("{task.fields[note]}", markup=False, style="dim"))
        self._bars = Progress(*columns, console=console, disable=not console.is_terminal)

    def add(self, name: str, total: int) -> None:
        """A bar for ``name`` with ``total`` steps."""
        self._tasks[name] = self._bars.add_task(f"{self._title} {name}", total=total, note="", pace="")
        if self._told is not None:
            self._told.moved(name, 0, total)

    def advance_to(self, name: str, done: int, note: str = "", fetched: float | None = None) -> None:
        """Moves a bar; without a terminal a line is printed at every tenth of the way.

        Args:
            name: of the bar.
            done: how many of its steps are done.
            note: stands behind it.
            fetched: bytes fetched for it so far, None where nothing is known of them.
        """
        task = self._bars.tasks[self._tasks[name]]
        total = int(task.total or 0)
        pace = self._pace(name, done, total, fetched)
        self._bars.update(self._tasks[name], completed=done, note=note, pace=pace)
        if self._told is not None:
            self._told.moved(name, done, total, pace, note)
        tenth = 10 * done // max(total, 1)
        if not self._console.is_terminal and tenth != self._shown.get(name):
            self._shown[name] = tenth
            told = ", ".join(part for part in (f"{done}/{total}", pace, note) if part)
            say(self._console, f"{self._title} {name}: {told}")

    def _pace(self, name: str, done: int, total: int, fetched: float | None) -> str:
        """Rate, time left and bytes fetched, as far as they are known.

        The first step also pays for starting up, so the rate is that of the steps behind it, once there
        are any, and until then it is told only where it stands for a good part of the whole; and a bar's
        clock starts when its turn comes, not with the first bar.
        """
        parts = []
        before, self._last_move = self._last_move, time.monotonic()
        first, begun = self._begun.setdefault(name, (done, self._last_move))
        steps, elapsed = (done - first, self._last_move - begun) if done > first else (done, begun - before)
        telling = done > first or FIRST_TOLD * done >= total
        if telling and steps > 0 and elapsed > 0:
            parts.append(readable_rate(steps / elapsed))
            if done < total:
                parts.append(f"{readable_time(elapsed / steps * (total - done))} left")
        if fetched:
            parts.append(f"{readable_bytes(fetched)} fetched")
        return ", ".join(parts)

    def show(self, name: str, done: int, total: int) -> None:
        """Moves a bar, and adds it where there is none yet."""
        if name not in self._tasks:
            self.add(name, total)
        self.advance_to(name, done)

    @contextmanager
    def running(self) -> Iterator["Bars"]:
        """Shows the bars for the length of a block."""
        self._last_move = time.monotonic()
        with self._bars:
            yield self


def plan_table(plan: Plan, rows: dict[str, tuple[str, str, str, str]]) -> Table:
    """The plan by model: how many units are in each state, how it is run, bytes
    to fetch and expected time.

    Args:
        plan: the units.
        rows: per ``model seed s`` four texts: how many are suspect, how it is run, bytes to fetch,
            expected time.
    """
    table = Table(box=None, pad_edge=False)
    for heading in (
        "model",
        "steps",
        "units",
        "done",
        "to do",
        "failed",
        "missing",
        "suspect",
        "run",
        "to fetch",
        "expected",
    ):
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("model", "steps") else "right")
    for name, units in by_model(plan.units).items():
        part = Plan(tuple(units))
        steps = [planned.unit.checkpoint.step for planned in units]
        cells = [
            f"{min(steps)} to {max(steps)}",
            len(units),
            part.count("done"),
            part.count("to do"),
            part.count("retry"),
            part.count("missing", "known missing"),
            *rows.get(name, ("", "", "", "")),
        ]
        table.add_row(name, *map(str, cells))
    return table


def audit_table(entries: Sequence[RepoAudit]) -> Table:
    """What an audit found, a row per repository or folder: how many steps have each fault.

    Args:
        entries: ``repos`` of audit.json.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("repository", "checked", *FAULTS):
        left = heading == "repository"
        title = heading if left else heading.replace("-", "\n", 1)
        table.add_column(
            title, overflow="fold", min_width=24 if left else None, justify="left" if left else "right"
        )
    for entry in entries:
        counts = Counter(finding.fault for finding in entry.findings)
        table.add_row(
            Text(entry.repo), str(len(entry.checked)), *(str(counts[each]) for each in FAULTS)
        )
    return table


def tell_findings(
    console: Console, findings: Sequence[Finding], most: int | None = SHOWN_HOLES
) -> None:
    """Names the findings of an audit, what was reported before with its source; many are cut short."""
    for finding in findings[:most]:
        known = f" (reported in {finding.known})" if finding.known else ""
        say(console, f"  {finding.fault}: {finding.sentence}{known}")
    if most is not None and len(findings) > most:
        say(console, f"  ... and {len(findings) - most} more; `tracker audit` and the dashboard list them")


def comparison_table(found: "Sequence[Column]") -> Table:
    """Models as columns, metrics as rows: mean and half width of its 95 % interval."""
    table = Table(box=None, pad_edge=False)
    table.add_column("at its checkpoint", no_wrap=True)
    for column in found:
        seeds = f" ({len(column.seeds)} seeds)" if len(column.seeds) > 1 else ""
        table.add_column(Text(f"{column.model}{seeds}"), justify="right")
    table.add_row("step", *(str(column.step) for column in found))
    for name in dict.fromkeys(name for column in found for name in column.samples):
        table.add_row(name, *(_cell(column.samples.get(name)) for column in found))
    return table


def _cell(sample: "Sample | None") -> str:
    if sample is None:
        return ""
    return f"{sample.value:.3g}" + ("" if sample.half is None else f" ± {sample.half:.1g}")


def by_model(units: tuple[PlannedUnit, ...]) -> dict[str, list[PlannedUnit]]:
    """Planned units grouped by model and seed, in plan order."""
    groups: dict[str, list[PlannedUnit]] = {}
    for planned in units:
        checkpoint = planned.unit.checkpoint
        groups.setdefault(f"{checkpoint.model} seed {checkpoint.seed}", []).append(planned)
    return groups


def tell_holes(console: Console, holes: list[Outcome | PlannedUnit]) -> None:
    """Names every unit without a measurement, with its reason; many are cut short."""
    for hole in holes[:SHOWN_HOLES]:
        label, reason = hole.unit.checkpoint.label, str(hole.reason or "no reason recorded")
        say(console, f"  {reason if reason.startswith(label) else f'{label}: {reason}'}")
    if len(holes) > SHOWN_HOLES:
        say(console, f"  ... and {len(holes) - SHOWN_HOLES} more; `tracker plan` and the dashboard list them")


def tell_alerts(console: Console, sentences: list[str]) -> None:
    """Says where stored results break what the paper's mechanisms need; many are cut short."""
    for sentence in sentences[:SHOWN_ALERTS]:
        say(console, f"Alert: {sentence}")
    if len(sentences) > SHOWN_ALERTS:
        say(console, f"and {len(sentences) - SHOWN_ALERTS} more: tracker validate")


def readable_bytes(count: float) -> str:
    """A number of bytes for people: ``1.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def readable_rate(per_second: float) -> str:
    """How quickly something goes on, for people: ``12/min``."""
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if per_second * seconds >= 1:
            rate = per_second * seconds
            return f"{rate:.3g}/{unit}" if rate < 1000 else f"{rate:.0f}/{unit}"
    return f"{per_second * 86400:.3g}/d"


def readable_time(seconds: float) -> str:
    """A span of time for people: ``2 min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
