"""The register of checkpoints reported to be bad: read for one repository, compared with what is found."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tracker import facts
from tracker.checkpoints.audit.findings import Finding
from tracker.errors import StoreError

TABLE = "known_bad_checkpoints"


@dataclass(frozen=True)
class Report:
    """One line of the register, for the repositories that it is about."""

    steps: tuple[tuple[int, int | None], ...]
    """From and to, both included; None: no end."""
    fault: str
    """In the reporters' words."""
    source: str
    shows: tuple[str, ...]
    """Faults of an audit by which it shows; none where file metadata cannot show it."""

    def covers(self, step: int) -> bool:
        """Return whether the report is about a step."""
        return any(low <= step and (high is None or step <= high) for low, high in self.steps)


@dataclass(frozen=True)
class Disagreement:
    """A report that an audit does not bear out."""

    steps: list[int]
    reported: str
    source: str
    hub: str
    """What the hub's files show instead."""


def reports(repo: str) -> list[Report]:
    """Return what has been reported about a repository.

    Raises:
        StoreError: the register that comes with tracker is damaged.
    """
    rows = facts.table(TABLE).to_dicts()
    return [
        Report(
            _ranges(row["steps"]),
            row["fault"],
            row["source"],
            tuple(filter(None, (row["shows"] or "").split(";"))),
        )
        for row in rows
        if fnmatchcase(repo, row["repo"])
    ]


def source_of(known: Iterable[Report], finding: Finding) -> str | None:
    """Return where a finding has been reported before; None where it is new."""
    return next(
        (each.source for each in known if finding.fault in each.shows and each.covers(finding.step)), None
    )


def disagreements(
    known: Iterable[Report], found: Iterable[Finding], checked: Iterable[int]
) -> list[Disagreement]:
    """Return the reports that the hub does not bear out today, or that its file metadata cannot show.

    Args:
        known: the reports on a repository.
        found: the audit's findings on it.
        checked: steps that were looked at.
    """
    shown = {(finding.step, finding.fault) for finding in found}
    rows = []
    for report in known:
        covered = [step for step in sorted(set(checked)) if report.covers(step)]
        open_steps = [step for step in covered if not any((step, fault) in shown for fault in report.shows)]
        if report.shows == ("expected-twin",):
            # Of the two only the later is marked, where both were looked at; or both equal a third.
            equal = {(1, "expected-twin"), (1, "same-weights")} & shown
            open_steps = [1] if {0, 1} <= set(covered) and not equal else []
        if open_steps:
            says = "shows no such fault" if report.shows else "cannot be seen in file metadata"
            rows.append(Disagreement(open_steps, report.fault, report.source, says))
    return rows


def _ranges(text: str) -> tuple[tuple[int, int | None], ...]:
    found = []
    for part in text.split(";"):
        match = re.fullmatch(r"(>=)?(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise StoreError(f"{TABLE}: {part!r} names no steps; install tracker again")
        low = int(match[2])
        found.append((low, None if match[1] else int(match[3] or low)))
    return tuple(found)
