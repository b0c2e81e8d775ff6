"""Audits the checkpoints of a request: asks the hub what it holds or reads files, writes audit.json."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tracker import checkpoints as sources
from tracker.checkpoints import Listed, hub, listing
from tracker.checkpoints import files as weights
from tracker.checkpoints.audit import file as audit_file
from tracker.checkpoints.audit.findings import TENSORS, Evidence, Finding, Revision, revision_of
from tracker.checkpoints.cached import cache_folder, find
from tracker.checkpoints.listing import RemoteFile
from tracker.checkpoints.tensors import Checked, check
from tracker.config import Config, HubSuite
from tracker.errors import CheckpointError
from tracker.records import Checkpoint

LATER_STAGE = re.compile(r"stage[2-9]\d*[-_].*")
"""Branches of training after the first stage (OLMo): main is then none of the first stage's steps."""
Moved = Callable[[str, int, int], None]
"""Told of each repository or folder: its name, how many checkpoints are done, and of how many."""


def audit_all(config: Config, chosen: Sequence[Checkpoint], moved: Moved) -> list[dict[str, Any]]:
    """Audits every repository or folder that the chosen checkpoints are of, whole.

    Args:
        config: tells how branches are named, and where the cache is.
        chosen: the planned checkpoints; those without a branch or folder are found missing.
        moved: told of progress.

    Returns:
        The entries of audit.json, which is written too.

    Raises:
        CheckpointError: a repository cannot be asked.
        StoreError: audit.json cannot be written.
    """
    entries = []
    for place, planned in _by_place(chosen).items():
        if planned[0].kind == "hub":
            entries.append(_audited_repository(config, place, planned, moved))
        else:
            entries.append(_audited_folder(place, planned, moved))
        audit_file.write(config.store, entries[-1:])
    return entries


def audit_listed(config: Config, chosen: Sequence[Checkpoint], listed: Listed) -> list[dict[str, Any]]:
    """Audits what a sweep has asked the hub anyway, together with what the store's audit knows already.

    Args:
        config: as above.
        chosen: the checkpoints of the plan.
        listed: the hub's answers about some of them.

    Returns:
        The new entries of audit.json, which is written too.
    """
    before, entries = audit_file.read(config.store), []
    for place, planned in _by_place(chosen).items():
        if place not in listed.branches:
            continue
        revisions = [
            revision_of(each.revision, listed.files[each][0], listed.files[each][1], each.step, each.seed)
            for each in planned
            if each in listed.files
        ]
        evidence = _evidence(config, place, planned, revisions, listed)
        entries.append(audit_file.entry_of(place, evidence, before=before.get(place)))
    if entries:
        audit_file.write(config.store, entries)
    return entries


def _by_place(chosen: Iterable[Checkpoint]) -> dict[str, list[Checkpoint]]:
    groups: dict[str, list[Checkpoint]] = {}
    for checkpoint in chosen:
        groups.setdefault(checkpoint.location, []).append(checkpoint)
    return groups


def _evidence(
    config: Config, repo: str, planned: Sequence[Checkpoint], revisions: Sequence[Revision], listed: Listed
) -> Evidence:
    heads = listed.branches[repo]
    main = listed.main.get(repo)
    return Evidence(
        revisions,
        None if main is None else revision_of(audit_file.MAIN, *main),
        _steps(planned),
        _steps(_existing(config, planned[0], heads) or revisions_of(planned)),
        any(LATER_STAGE.fullmatch(name) for name in heads),
    )


def revisions_of(planned: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The planned checkpoints that their source has told to exist."""
    return [checkpoint for checkpoint in planned if checkpoint.exists]


def _existing(config: Config, like: Checkpoint, heads: Mapping[str, str]) -> list[Checkpoint]:
    """The checkpoints among a repository's branches."""
    suite = config.suite
    if isinstance(suite, HubSuite) and suite.branch is not None:
        return []
    return hub.named(like, heads, suite.pattern if isinstance(suite, HubSuite) else None)


def _steps(checkpoints: Iterable[Checkpoint]) -> dict[int, set[int]]:
    steps: dict[int, set[int]] = {}
    for checkpoint in checkpoints:
        steps.setdefault(checkpoint.seed, set()).add(checkpoint.step)
    return steps


def _audited_repository(
    config: Config, repo: str, planned: Sequence[Checkpoint], moved: Moved
) -> dict[str, Any]:
    heads = listing.branches(repo)
    there = _existing(config, planned[0], heads) or revisions_of(planned)
    moved(repo, 0, len(there))
    listed = listing.look(there, {repo: heads})
    for answer in listed.inspected.values():
        if isinstance(answer, sources.Unreachable):
            raise answer
    revisions, bad = [], []
    for done, checkpoint in enumerate(there, start=1):
        commit, files = listed.files[checkpoint]
        revisions.append(revision_of(checkpoint.revision, commit, files, checkpoint.step, checkpoint.seed))
        bad += _bad_in_cache(config, replace(checkpoint, commit=commit))
        moved(repo, done, len(there))
    evidence = _evidence(config, repo, planned, revisions, listed)
    return audit_file.entry_of(repo, evidence, bad)


def _bad_in_cache(config: Config, checkpoint: Checkpoint) -> list[Finding]:
    """Faults of tensors of a checkpoint whose files happen to be on this machine."""
    found = find(checkpoint, cache_folder(config.cache.folder))
    if found is None:
        return []
    try:
        checked = check(found.path, checkpoint.label, initial=checkpoint.step == 0)
    except CheckpointError as error:
        return [_bad(checkpoint, found.commit, None, str(error))]
    return _bad_tensors(checkpoint, found.commit, checked)


def _audited_folder(place: str, planned: Sequence[Checkpoint], moved: Moved) -> dict[str, Any]:
    there = [each for each in planned if (Path(each.location) / each.revision).is_dir()]
    revisions, bad = [], []
    for done, checkpoint in enumerate(there):
        moved(place, done, len(there))
        folder = Path(checkpoint.location) / checkpoint.revision
        revision, faults = _read_folder(folder, checkpoint)
        revisions.append(revision)
        bad += faults
    moved(place, len(there), len(there))
    # A Trainer leaves its final model beside the checkpoints.
    final = Path(place)
    main = None
    if (final / weights.CONFIG).is_file():
        like = replace(planned[0], revision=audit_file.MAIN, step=-1)
        main = replace(_read_folder(final, like)[0], step=None)
    evidence = Evidence(revisions, main, _steps(planned), _steps(there))
    return audit_file.entry_of(place, evidence, bad)


def _read_folder(folder: Path, checkpoint: Checkpoint) -> tuple[Revision, list[Finding]]:
    """A checkpoint on this machine: hashes of its weight files and of its tensors, and what is wrong."""
    files = [_hashed(path) for path in sorted(folder.iterdir()) if path.is_file()]
    revision = revision_of(checkpoint.revision, None, files, checkpoint.step, checkpoint.seed)
    if not revision.measurable:
        return revision, []
    try:
        commit = weights.fingerprint(folder, weights.whole(folder, checkpoint.label))
        checked = check(folder, checkpoint.label, initial=checkpoint.step == 0)
    except (CheckpointError, OSError) as error:
        return revision, [_bad(checkpoint, None, None, str(error))]
    known = replace(revision, commit=commit, sets={**revision.sets, TENSORS: {TENSORS: checked.digest}})
    return known, _bad_tensors(checkpoint, commit, checked)


def _hashed(path: Path) -> RemoteFile:
    """A file on this machine as the hub would list it; only weights are read."""
    size = path.stat().st_size
    if not path.name.endswith(tuple(ending for _, ending in weights.FORMATS)):
        return RemoteFile(path.name, size, None, None)
    with open(path, "rb") as file:
        return RemoteFile(path.name, size, hashlib.file_digest(file, "sha256").hexdigest(), None)


def _bad_tensors(checkpoint: Checkpoint, commit: str | None, checked: Checked) -> list[Finding]:
    if not checked.bad:
        return []
    first, others = checked.bad[0], len(checked.bad) - 1
    more = f"; and {others} more" if others else ""
    return [_bad(checkpoint, commit, first.file, f"{first.name}: {first.what}{more}")]


def _bad(checkpoint: Checkpoint, commit: str | None, file: str | None, told: str) -> Finding:
    sentence = f"{checkpoint.revision}: {told}"
    return Finding(
        checkpoint.step, "bad-tensor", sentence, None, file, checkpoint.revision, commit, checkpoint.seed
    )
