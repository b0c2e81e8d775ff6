"""Tables in the terminal: the plan and an audit."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tracker.checkpoints.audit.findings import FAULTS
from tracker.planning.plan import Plan
from tracker.records import PlannedUnit

if TYPE_CHECKING:
    from tracker.checkpoints.audit.file import RepoAudit

NOTHING = {"", "?", "0", "0 B", "0 s"}
"""Cells that say nothing."""


def by_model(units: Sequence[PlannedUnit]) -> dict[str, list[PlannedUnit]]:
    """Group planned units by model and seed, in plan order."""
    groups: dict[str, list[PlannedUnit]] = {}
    for planned in units:
        checkpoint = planned.unit.checkpoint
        groups.setdefault(f"{checkpoint.model} seed {checkpoint.seed}", []).append(planned)
    return groups


def plan_table(plan: Plan, rows: dict[str, tuple[str, str, str, str]]) -> Table:
    """Tabulate the plan by model: how many units are in each state, how it is run, bytes to fetch and time.

    A column that says nothing is left out: one that is zero for every model, and the number to do where that
    is all of them.

    Args:
        plan: the units.
        rows: per ``model seed s`` four texts: how many are suspect, how it is run, bytes to fetch,
            expected time.
    """
    columns: dict[str, list[str]] = {}
    for name, units in by_model(plan.units).items():
        for heading, cell in _plan_cells(name, units, rows.get(name, ("", "", "", ""))).items():
            columns.setdefault(heading, []).append(cell)
    if columns and columns["to do"] == columns["checkpoints"]:
        del columns["to do"]
    table = Table(box=None, pad_edge=False)
    shown = {heading: cells for heading, cells in columns.items() if not set(cells) <= NOTHING}
    for heading in shown:
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("model", "steps") else "right")
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _plan_cells(name: str, units: list[PlannedUnit], row: tuple[str, str, str, str]) -> dict[str, str]:
    part = Plan(tuple(units))
    steps = [planned.unit.checkpoint.step for planned in units]
    suspect, run, fetch, expected = row
    return {
        "model": name,
        "steps": f"{min(steps)} to {max(steps)}",
        "checkpoints": str(len(units)),
        "done": str(part.count("done")),
        "to do": str(part.count("to do")),
        "failed": str(part.count("retry")),
        "missing": str(part.count("missing", "known missing")),
        "suspect": suspect,
        "run": run if part.pending else "",
        "to fetch": "" if fetch in NOTHING - {"?"} else fetch,
        "expected": "" if expected in NOTHING - {"?"} else expected,
    }


def audit_table(entries: "Sequence[RepoAudit]") -> Table:
    """Tabulate the faults of an audit, a row per repository or folder that has one.

    Args:
        entries: ``repos`` of audit.json.
    """
    found = {entry.repo: Counter(finding.fault for finding in entry.findings) for entry in entries}
    faults = [fault for fault in FAULTS if any(counts[fault] for counts in found.values())]
    table = Table(box=None, pad_edge=False)
    table.add_column("repository", overflow="fold", min_width=24)
    for heading in ("checked", *faults):
        table.add_column(heading, overflow="fold", justify="right")
    for entry in entries:
        counts = found[entry.repo]
        if counts:
            cells = (str(counts[fault] or "") for fault in faults)
            table.add_row(Text(entry.repo), str(len(entry.checked)), *cells)
    return table
