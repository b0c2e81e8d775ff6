"""Lines of text in the terminal, amounts as people read them, and exit codes."""

import io
from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from tracker.checkpoints.audit.findings import Finding
from tracker.errors import printable
from tracker.records import Outcome, PlannedUnit
from tracker.store import DamagedRecord, UnlikeRecord

DONE, SOME_FAILED = 0, 1
"""Exit codes of commands that ran to their end."""
SHOWN_LINES = 8
SHOWN_ALERTS = 5
PLAIN_WIDTH = 120
"""Columns of a table where no terminal gives its own."""


class _Output(Console):
    """A console on which no text from outside is obeyed, in whatever it is printed: table, bar or line."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed, with control characters of texts made visible."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def on_broken_pipe(self) -> None:
        """Leave it to the command line how a command ends when nobody reads on."""
        raise BrokenPipeError


def make_console() -> Console:
    """Make the console of a command; where output goes to a file it is wide enough for a table."""
    console = _Output()
    return console if console.is_terminal else _Output(width=PLAIN_WIDTH)


def print_line(console: Console, text: str) -> None:
    """Print one line of text: names from outside are never read as markup."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=not console.is_terminal)


def print_table(console: Console, table: Table) -> None:
    """Print a table; where there is no terminal without the blanks that fill its lines."""
    if console.is_terminal:
        console.print(table)
        return
    plain = _Output(file=io.StringIO(), width=max(console.width, PLAIN_WIDTH), color_system=None)
    plain.print(table)
    assert isinstance(plain.file, io.StringIO)
    for line in plain.file.getvalue().splitlines():
        console.print(line.rstrip(), markup=False, highlight=False, soft_wrap=True)


def print_findings(console: Console, findings: Sequence[Finding], most: int | None = SHOWN_LINES) -> None:
    """Print the findings of an audit, with the source where one was reported before; at most so many."""
    lines = []
    for finding in findings:
        known = f" (reported in {finding.known})" if finding.known else ""
        lines.append(f"  {finding.fault}: {finding.sentence}{known}")
    more = "  ... and {} more; `tracker audit` and the dashboard list them"
    _print_some(console, lines, len(lines) if most is None else most, more)


def print_holes(console: Console, holes: Sequence[Outcome | PlannedUnit]) -> None:
    """Print every unit that was not measured, with its reason; many are cut short."""
    for line in hole_lines(holes):
        print_line(console, f"  {line}")


def hole_lines(holes: Sequence[Outcome | PlannedUnit], most: int = SHOWN_LINES) -> list[str]:
    """Return a line for every unit that was not measured, with its reason; many are cut short."""
    lines = []
    for hole in holes[:most]:
        label, reason = hole.unit.checkpoint.label, str(hole.reason or "no reason recorded")
        lines.append(reason if reason.startswith(label) else f"{label}: {reason}")
    if len(holes) > most:
        lines.append(f"... and {len(holes) - most} more; `tracker plan` and the dashboard list them")
    return lines


def print_alerts(console: Console, sentences: Sequence[str]) -> None:
    """Print the results that contradict the paper's mechanisms; many are cut short."""
    lines = [f"Alert: {sentence}" for sentence in sentences]
    _print_some(console, lines, SHOWN_ALERTS, "and {} more: tracker validate")


def print_damaged(console: Console, damaged: Sequence[DamagedRecord]) -> None:
    """Print the path of every record that is left out, and why."""
    for each in damaged:
        print_line(console, f"{'Unlike' if isinstance(each, UnlikeRecord) else 'Damaged'}: {each}")


def _print_some(console: Console, lines: Sequence[str], most: int, more: str) -> None:
    for line in lines[:most]:
        print_line(console, line)
    if len(lines) > most:
        print_line(console, more.format(len(lines) - most))


def readable_bytes(count: float) -> str:
    """Return a number of bytes for people: ``1.4 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def readable_rate(per_second: float) -> str:
    """Return a rate in the unit in which people count: ``12/min``."""
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        rate = per_second * seconds
        if rate >= 1:
            return f"{rate:.3g}/{unit}" if rate < 1000 else f"{rate:.0f}/{unit}"
    return f"{per_second * 86400:.3g}/d"


def readable_time(seconds: float) -> str:
    """Return a span of time for people: ``2 min``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"
