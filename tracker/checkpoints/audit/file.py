"""``audit.json`` of a store: what was compared, what was found, and which checkpoints are suspect."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from tracker.atomic import locked, save_json
from tracker.checkpoints.audit.findings import SUSPICIOUS, UNLIKE_LOSS, Evidence, Finding, Revision, findings
from tracker.checkpoints.audit.register import Disagreement, disagreements, reports, source_of
from tracker.errors import StoreError
from tracker.records import Checkpoint
from tracker.side_files import read_typed, set_damaged_aside

NAME = "audit.json"
LOCK = ".audit.lock"
MAIN = "main"
EMBEDDED = re.compile(r"(?:.*/)?(nano/[^/]+/[^/]+/seed-\d+)")
"""Folders of the embedded suite, which lie in the store and move with it."""


def placed(repo: str) -> str:
    """Return what an audit calls a repository or folder: the embedded suite's relative to the store.

    Example:
        >>> placed("/data/old/nano/d826-95f4/0.2m/seed-0"), placed("EleutherAI/pythia-70m")
        ('nano/d826-95f4/0.2m/seed-0', 'EleutherAI/pythia-70m')
    """
    match = EMBEDDED.fullmatch(repo.replace("\\", "/"))
    return match[1] if match else repo


REPORTED = tuple(each.name for each in fields(Disagreement))


StoredFinding = TypedDict(
    "StoredFinding",
    {
        "step": int, "fault": str, "sentence": str, "with": int | str | None, "file": str | None,
        "revision": str | None, "commit": str | None, "seed": int, "known": str | None,
    },
)  # fmt: skip


class StoredDisagreement(TypedDict):
    """A report that the hub does not bear out, in the file."""

    steps: list[int]
    reported: str
    source: str
    hub: str


class StoredRevision(TypedDict):
    """One branch or folder, in the file."""

    revision: str
    step: int | None
    seed: int
    commit: str | None
    weights: dict[str, dict[str, str]]
    measurable: bool


class StoredRepo(TypedDict):
    """The audit of one repository or folder, in the file."""

    repo: str
    checked: list[int]
    findings: list[StoredFinding]
    disagreements: list[StoredDisagreement]
    revisions: list[StoredRevision]
    main: StoredRevision | None


class AuditContent(TypedDict):
    """The whole file."""

    repos: list[StoredRepo]


@dataclass(frozen=True)
class RepoAudit:
    """The audit of one repository or folder."""

    repo: str
    """Its name, or the folder, as ``placed``."""
    checked: tuple[int, ...]
    """Steps that were compared."""
    findings: tuple[Finding, ...]
    disagreements: tuple[Disagreement, ...] = ()
    revisions: tuple[Revision, ...] = ()
    main: Revision | None = None

    def as_json(self) -> dict[str, Any]:
        """Return its entry in the file."""
        return {
            "repo": self.repo,
            "checked": list(self.checked),
            "findings": [_plain_finding(each) for each in self.findings],
            "disagreements": [asdict(each) for each in self.disagreements],
            "revisions": [_plain_revision(each) for each in self.revisions],
            "main": None if self.main is None else _plain_revision(self.main),
        }


@dataclass(frozen=True)
class Suspects:
    """Checkpoints whose weights may not match their names, as the last audit of a store found them."""

    reasons: Mapping[tuple[str, str], tuple[str | None, str]]
    """(repository or folder as ``placed``, revision) -> the commit that was looked at, and why it is
    suspect."""

    def why(self, repo: str, revision: str, commit: str | None = None) -> str | None:
        """Return why a checkpoint is suspect; None where it is not, or has moved to another commit since."""
        looked_at, reason = self.reasons.get((placed(repo), revision), (None, None))
        return None if commit and looked_at and commit != looked_at else reason

    def of(self, checkpoint: Checkpoint) -> str | None:
        """Return ``why`` of a planned checkpoint."""
        return self.why(checkpoint.location, checkpoint.revision, checkpoint.commit)

    def among(self, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int, int], str]:
        """Map suite, model, seed and step to why, of measured rows of the store's checkpoint table."""
        found = {}
        for row in rows:
            reason = self.why(row["repo"], row["revision"], row["commit"]) if row["status"] == "ok" else None
            if reason is not None:
                found[row["suite"], row["model"], row["seed"], row["step"]] = reason
        return found


def read(store: Path) -> dict[str, RepoAudit]:
    """Read the audited repositories and folders of a store, as ``placed``.

    Empty where there was no audit, or its file is damaged, of which a warning is logged.
    """
    found = read_typed(store / NAME, AuditContent, {"repos": []})
    return {entry.repo: entry for entry in map(_repo_audit, found["repos"])}


def record(store: Path, audits: Callable[[Mapping[str, RepoAudit]], Sequence[RepoAudit]]) -> list[RepoAudit]:
    """Put the audits of some repositories into a store's file; those of others stay.

    Args:
        store: the store's folder, made where it is missing.
        audits: gets what the file holds and returns the new entries; no other process writes meanwhile.

    Returns:
        The new entries.

    Raises:
        StoreError: the file cannot be written.
    """
    path = store / NAME
    try:
        with locked(store / LOCK):
            set_damaged_aside(path, AuditContent)
            before = read(store)
            new = list(audits(before))
            merged = {**before, **{audit.repo: audit for audit in new}}
            if new:
                save_json(path, {"repos": [merged[repo].as_json() for repo in sorted(merged)]})
            return new
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; free it, or change store=") from error


def suspects(store: Path) -> Suspects:
    """Return the checkpoints that the store's audit found suspect."""
    reasons: dict[tuple[str, str], tuple[str | None, str]] = {}
    for repo, audit in read(store).items():
        for finding in audit.findings:
            if finding.fault in SUSPICIOUS and finding.revision is not None:
                place = (repo, finding.revision)
                before = f"{reasons[place][1]}; " if place in reasons else "suspect: "
                reasons[place] = finding.commit, f"{before}{finding.fault}, {_short(finding)}"
    return Suspects(reasons)


def _short(finding: Finding) -> str:
    """A finding's sentence without the name of its step."""
    known = f" (reported in {finding.known})" if finding.known else ""
    return finding.sentence.partition(": ")[2] + known


def audit_of(
    repo: str, evidence: Evidence, bad: Sequence[Finding] = (), before: RepoAudit | None = None
) -> RepoAudit:
    """Audit one repository or folder.

    Args:
        repo: its name, or the folder.
        evidence: what has been looked at now.
        bad: findings on tensors.
        before: the audit that there was; what it holds of commits that were not looked at now is used too,
            so that one step of a repository can be compared with those of an earlier sweep.
    """
    if before is not None:
        evidence, bad = _joined(evidence, bad, before)
    known = reports(repo)
    found = sorted([*findings(evidence), *bad], key=lambda each: (each.seed, each.step))
    checked = sorted({revision.step or 0 for revision in evidence.revisions})
    return RepoAudit(
        placed(repo),
        tuple(checked),
        tuple(replace(finding, known=source_of(known, finding)) for finding in found),
        tuple(disagreements(known, found, checked)),
        tuple(evidence.revisions),
        evidence.main,
    )


def _joined(
    evidence: Evidence, bad: Sequence[Finding], before: RepoAudit
) -> tuple[Evidence, Sequence[Finding]]:
    """Evidence with the revisions that an earlier audit holds and this one did not look at."""
    commits = {revision.name: revision.commit for revision in evidence.revisions}
    older = [each for each in before.revisions if each.name not in commits]
    revisions = sorted([*evidence.revisions, *older], key=lambda each: (each.seed, each.step or 0))
    looked_into = {finding.revision for finding in bad}
    kept = [
        finding
        for finding in before.findings
        if finding.fault in ("bad-tensor", UNLIKE_LOSS)
        and finding.revision not in looked_into
        and commits.get(str(finding.revision), finding.commit) == finding.commit
    ]
    return replace(evidence, revisions=revisions, main=evidence.main or before.main), [*bad, *kept]


def _plain_finding(finding: Finding) -> dict[str, Any]:
    plain = asdict(finding)
    return plain | {"with": plain.pop("other")}


def _plain_revision(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.name,
        "step": revision.step,
        "seed": revision.seed,
        "commit": revision.commit,
        "weights": {form: dict(hashes) for form, hashes in revision.sets.items()},
        "measurable": revision.measurable,
    }


def _repo_audit(entry: Mapping[str, Any]) -> RepoAudit:
    return RepoAudit(
        placed(entry["repo"]),
        tuple(entry["checked"]),
        tuple(_finding(each) for each in entry["findings"]),
        tuple(Disagreement(**{name: each[name] for name in REPORTED}) for each in entry["disagreements"]),
        tuple(_revision(each) for each in entry["revisions"]),
        None if entry["main"] is None else _revision(entry["main"]),
    )


def _finding(plain: Mapping[str, Any]) -> Finding:
    known = {each.name for each in fields(Finding)} - {"other"}
    return Finding(other=plain["with"], **{name: plain[name] for name in known})


def _revision(plain: Mapping[str, Any]) -> Revision:
    return Revision(
        plain["revision"],
        plain["commit"],
        plain["weights"],
        plain["step"],
        plain["seed"],
        measurable=plain["measurable"],
    )
