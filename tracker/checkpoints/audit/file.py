"""``audit.json`` of a store: what was looked at, what was found, and which checkpoints are suspect."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracker.atomic import save_json
from tracker.checkpoints.audit.findings import SUSPICIOUS, Evidence, Finding, Revision, findings
from tracker.checkpoints.audit.register import disagreements, reports, source_of
from tracker.errors import StoreError
from tracker.records import Checkpoint

NAME = "audit.json"
MAIN = "main"


@dataclass(frozen=True)
class Suspects:
    """Checkpoints that may not be what their names say, as the last audit of a store found them."""

    told: Mapping[tuple[str, str], tuple[str | None, str]]
    """(repository or folder, revision) -> the commit that was looked at, and why it is suspect."""

    def why(self, repo: str, revision: str, commit: str | None = None) -> str | None:
        """Why a checkpoint is suspect; None where it is not, or has moved since to another commit."""
        looked_at, reason = self.told.get((repo, revision), (None, None))
        return None if commit and looked_at and commit != looked_at else reason

    def of(self, checkpoint: Checkpoint) -> str | None:
        """``why`` of a planned checkpoint."""
        return self.why(checkpoint.location, checkpoint.revision, checkpoint.commit)

    def among(self, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int, int], str]:
        """Suite, model, seed and step -> why, of measured rows of the store's checkpoint table."""
        found = {}
        for row in rows:
            if row["status"] != "ok":
                continue
            reason = self.why(row["repo"], row["revision"], row["commit"])
            if reason is not None:
                found[row["suite"], row["model"], row["seed"], row["step"]] = reason
        return found


def read(store: Path) -> dict[str, dict[str, Any]]:
    """The audited repositories and folders of a store by name; empty where there was no audit.

    Raises:
        StoreError: the file is damaged.
    """
    path = store / NAME
    if not path.is_file():
        return {}
    try:
        return {entry["repo"]: entry for entry in json.loads(path.read_text(encoding="utf-8"))["repos"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} does not read back ({error!r}); remove it and run tracker audit") from error


def write(store: Path, entries: Iterable[Mapping[str, Any]]) -> Path:
    """Puts the entries of some repositories into a store's audit, those of others stay.

    Raises:
        StoreError: it cannot be written.
    """
    path = store / NAME
    content = {**read(store), **{entry["repo"]: entry for entry in entries}}
    try:
        store.mkdir(parents=True, exist_ok=True)
        save_json(path, {"repos": [content[repo] for repo in sorted(content)]})
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; free it, or change store=") from error
    return path


def suspects(store: Path) -> Suspects:
    """The checkpoints that the store's audit found suspect.

    Raises:
        StoreError: the file is damaged.
    """
    told: dict[tuple[str, str], tuple[str | None, str]] = {}
    for repo, entry in read(store).items():
        for finding in entry["findings"]:
            place = (repo, finding["revision"])
            if finding["fault"] in SUSPICIOUS and finding["revision"] is not None:
                before = f"{told[place][1]}; " if place in told else "suspect: "
                told[place] = finding["commit"], f"{before}{finding['fault']}, {_short(finding)}"
    return Suspects(told)


def _short(finding: Mapping[str, Any]) -> str:
    """A finding's sentence without the name of its step."""
    known = f" (reported in {finding['known']})" if finding["known"] else ""
    return finding["sentence"].partition(": ")[2] + known


def entry_of(
    repo: str, evidence: Evidence, bad: Sequence[Finding] = (), before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What ``audit.json`` holds of one repository or folder.

    Args:
        repo: its name, or the folder.
        evidence: what has been looked at now.
        bad: findings on tensors.
        before: the entry that there was; what it knows of commits that were not looked at now is used too,
            so that one step of a repository can be compared with those of an earlier sweep.
    """
    evidence, bad = _joined(evidence, bad, before or {})
    known = reports(repo)
    found = sorted([*findings(evidence), *bad], key=lambda each: (each.seed, each.step))
    checked = sorted({revision.step or 0 for revision in evidence.revisions})
    return {
        "repo": repo,
        "checked": checked,
        "findings": [_plain(finding, source_of(known, finding)) for finding in found],
        "disagreements": disagreements(known, found, checked),
        "revisions": [_noted(revision) for revision in evidence.revisions],
        "main": None if evidence.main is None else _noted(evidence.main),
    }


def _plain(finding: Finding, known: str | None) -> dict[str, Any]:
    return {
        "step": finding.step,
        "fault": finding.fault,
        "with": finding.other,
        "file": finding.file,
        "known": known,
        "seed": finding.seed,
        "revision": finding.revision,
        "commit": finding.commit,
        "sentence": finding.sentence,
    }


def _noted(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.name,
        "step": revision.step,
        "seed": revision.seed,
        "commit": revision.commit,
        "weights": {form: dict(hashes) for form, hashes in revision.sets.items()},
        "measurable": revision.measurable,
    }


def _joined(
    evidence: Evidence, bad: Sequence[Finding], before: Mapping[str, Any]
) -> tuple[Evidence, list[Finding]]:
    """Evidence with the revisions that an earlier audit knows and this one did not look at."""
    names = {revision.name for revision in evidence.revisions}
    commits = {revision.name: revision.commit for revision in evidence.revisions}
    older = [_read_back(each) for each in before.get("revisions", ()) if each["revision"] not in names]
    revisions = sorted([*evidence.revisions, *older], key=lambda each: (each.seed, each.step or 0))
    main = evidence.main or (_read_back(before["main"]) if before.get("main") else None)
    looked_into = {finding.revision for finding in bad}
    kept = [
        Finding(each["step"], each["fault"], each["sentence"], each["with"], each["file"], each["revision"],
                each["commit"], each["seed"])
        for each in before.get("findings", ())
        if each["fault"] == "bad-tensor" and each["revision"] not in looked_into
        and commits.get(each["revision"], each["commit"]) == each["commit"]
    ]  # fmt: skip
    return replace(evidence, revisions=revisions, main=main), [*bad, *kept]


def _read_back(noted: Mapping[str, Any]) -> Revision:
    return Revision(
        noted["revision"], noted["commit"], noted["weights"], noted["step"], noted["seed"],
        measurable=noted["measurable"],
    )  # fmt: skip
