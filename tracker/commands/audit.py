"""``tracker audit``: verify that checkpoint weights match their names; table and audit.json."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from tracker.checkpoints import Listed, look
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import REMARKS, SUSPICIOUS
from tracker.config import Config, PublishedSuite
from tracker.console.output import DONE, SOME_FAILED, print_findings, print_line, print_table
from tracker.console.progress import Bars
from tracker.console.tables import audit_table
from tracker.errors import RequestError, counted
from tracker.planning.resolve import available
from tracker.planning.schedule import select

if TYPE_CHECKING:
    from tracker.planning.resolve import ResolvedSweep

SHOWN = 3
"""Repositories or folders that one line names."""


def run(config: Config, console: Console) -> int:
    """Audit every chosen checkpoint; 1 where one is missing, is not what its name says or cannot be asked."""
    from tracker.checkpoints.audit.inspect import audit_all

    chosen = available(config)
    if not (isinstance(config.suite, PublishedSuite) and config.steps.name == "all"):
        chosen = select(chosen, config.steps)
    bars = Bars(console, "auditing")
    with bars.running():
        entries, refused = audit_all(config, chosen, bars.show)
    if refused and not entries:
        raise RequestError(str(refused[0])) from refused[0]
    for error in refused:
        print_line(console, f"not audited: {error}")
    bad = [each for entry in entries for each in entry.findings if each.fault not in REMARKS]
    if bad:
        print_table(console, audit_table(entries))
        print_findings(console, bad, most=None)
    else:
        checked = sum(len(entry.checked) for entry in entries)
        names = (
            ", ".join(entry.repo for entry in entries) if len(entries) <= SHOWN else f"{len(entries)} places"
        )
        print_line(console, f"{counted(checked, 'checkpoint')} of {names}: weights match their names")
        remarks = [each for entry in entries for each in entry.findings if each.fault == "unusual-start"]
        print_findings(console, remarks)
    for entry in entries:
        for each in entry.disagreements:
            print_line(
                console,
                f"{entry.repo} step {brief_steps(each.steps)}: reported in {each.source} "
                f"({each.reported}); the hub {each.hub}",
            )
    print_line(console, f"Details: {config.store / audit_file.NAME}")
    return SOME_FAILED if bad or refused else DONE


def audit_pending(config: Config, sweep: "ResolvedSweep", console: Console) -> Listed | None:
    """Ask the hub, once a repository and once a checkpoint, what the pending units are, and audit that.

    Returns:
        The answers; None where no pending unit is on the hub.
    """
    pending = [planned.unit.checkpoint for planned in sweep.plan.pending]
    remote = [each for each in pending if each.kind == "hub" and each.exists is not False]
    if not remote:
        return None
    from tracker.checkpoints.audit.inspect import audit_listed

    listed = look(remote)
    entries = audit_listed(config, [planned.unit.checkpoint for planned in sweep.plan.units], listed)
    suspicious = [each for entry in entries for each in entry.findings if each.fault in SUSPICIOUS]
    if suspicious:
        print_line(
            console,
            f"checkpoint audit: {counted(len(suspicious), 'finding')}; suspect checkpoints are measured, "
            "marked, and left out of fits (view.suspects=true includes them):",
        )
        print_findings(console, suspicious)
    return listed


def brief_steps(steps: Sequence[int]) -> str:
    """Return the first eight steps, and how many more there are."""
    more = f" and {len(steps) - 8} more" if len(steps) > 8 else ""
    return ", ".join(map(str, steps[:8])) + more
