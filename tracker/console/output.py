"""Lines of text in the terminal, amounts as people read them, and exit codes."""

from collections.abc import Sequence

from rich.console import Console

from tracker.checkpoints.audit.findings import Finding
from tracker.errors import printable
from tracker.records import Outcome, PlannedUnit
from tracker.store import DamagedRecord

DONE, SOME_FAILED = 0, 1
"""Exit codes of commands that ran to their end."""
SHOWN_LINES = 8
SHOWN_ALERTS = 5
PLAIN_WIDTH = 120
"""Columns of a table where no terminal gives its own."""


def make_console() -> Console:
    """Make the console of a command; where output goes to a file it is wide enough for a table."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def print_line(console: Console, text: str) -> None:
    """Print one line of text: names from outside are never read as markup, or obeyed by the terminal."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=not console.is_terminal)


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
    lines = []
    for hole in holes:
        label, reason = hole.unit.checkpoint.label, str(hole.reason or "no reason recorded")
        lines.append(f"  {reason if reason.startswith(label) else f'{label}: {reason}'}")
    more = "  ... and {} more; `tracker plan` and the dashboard list them"
    _print_some(console, lines, SHOWN_LINES, more)


def print_alerts(console: Console, sentences: Sequence[str]) -> None:
    """Print the results that contradict the paper's mechanisms; many are cut short."""
    lines = [f"Alert: {sentence}" for sentence in sentences]
    _print_some(console, lines, SHOWN_ALERTS, "and {} more: tracker validate")


def print_damaged(console: Console, damaged: Sequence[DamagedRecord]) -> None:
    """Print the path of every record that is left out because its files are not those that were written."""
    for each in damaged:
        print_line(console, f"Damaged: {each}")


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
