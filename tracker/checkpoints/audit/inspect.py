"""Audits the checkpoints of a request: asks the hub what it holds or reads files, writes audit.json."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tracker.checkpoints import CheckpointCache, Listed, files, listing
from tracker.checkpoints.audit.file import MAIN, RepoAudit, audit_of, placed, record
from tracker.checkpoints.audit.findings import TENSORS, Evidence, Finding, Revision, revision_of
from tracker.checkpoints.audit.losses import loss_findings
from tracker.checkpoints.cached import cache_folder
from tracker.checkpoints.reading import Naming, read_revisions
from tracker.checkpoints.remote import RemoteFile, Tree
from tracker.checkpoints.tensors import Checked, check
from tracker.config import Config, HubSuite
from tracker.errors import CheckpointError
from tracker.records import Checkpoint

LATER_STAGE = re.compile(r"stage[2-9]\d*[-_].*")
"""Branches of training after the first stage (OLMo): main is then none of the first stage's steps."""
Moved = Callable[[str, int, int], None]
"""Called with a repository's or folder's name, how many of its checkpoints are done, and of how many."""


def audit_all(
    config: Config, chosen: Sequence[Checkpoint], moved: Moved
) -> tuple[list[RepoAudit], list[CheckpointError]]:
    """Audit every repository or folder that the chosen checkpoints are of, whole, and write audit.json.

    One that cannot be asked keeps its earlier entry, and the others are audited.

    Args:
        config: names the form of branches and the cache.
        chosen: the planned checkpoints; those without a branch or folder are found missing.
        moved: called with the progress.

    Returns:
        The new entries, and why the others are not there.

    Raises:
        StoreError: audit.json cannot be written.
    """
    audits: list[RepoAudit] = []
    refused: list[CheckpointError] = []
    unlike = loss_findings(config.store)
    for place, planned in _by_place(chosen).items():
        known = unlike.get(placed(place), [])
        try:
            if planned[0].kind == "hub":
                audit = _audited_repository(config, place, planned, moved, known)
            else:
                audit = _audited_folder(place, planned, moved, known)
        except CheckpointError as error:
            refused.append(error)
            continue
        audits += record(config.store, lambda _, new=audit: [new])
    return audits, refused


def audit_listed(config: Config, chosen: Sequence[Checkpoint], listed: Listed) -> list[RepoAudit]:
    """Audit what a sweep has asked the hub anyway, with the store's earlier audit, and write audit.json.

    Args:
        config: as above.
        chosen: the checkpoints of the plan.
        listed: the hub's answers about some of them.

    Returns:
        The new entries.
    """
    places = {place: planned for place, planned in _by_place(chosen).items() if place in listed.branches}
    evidence = {
        place: _evidence(
            config,
            planned,
            [_revision(each, listed.files[each]) for each in planned if each in listed.files],
            listed,
        )
        for place, planned in places.items()
    }

    def audits(before: Mapping[str, RepoAudit]) -> list[RepoAudit]:
        return [audit_of(place, found, before=before.get(placed(place))) for place, found in evidence.items()]

    return record(config.store, audits) if evidence else []


def _by_place(chosen: Iterable[Checkpoint]) -> dict[str, list[Checkpoint]]:
    groups: dict[str, list[Checkpoint]] = {}
    for checkpoint in chosen:
        groups.setdefault(checkpoint.location, []).append(checkpoint)
    return groups


def _revision(checkpoint: Checkpoint, tree: Tree) -> Revision:
    held = tree.below(checkpoint.subfolder)
    return revision_of(checkpoint.revision, tree.commit, held, checkpoint.step, checkpoint.seed)


def _evidence(
    config: Config, planned: Sequence[Checkpoint], revisions: Sequence[Revision], listed: Listed
) -> Evidence:
    repo = planned[0].location
    main = listed.main.get(repo)
    heads = listed.branches[repo] | (main.subfolders if main else {})
    return Evidence(
        revisions,
        None if main is None else revision_of(MAIN, main.commit, main.files),
        _steps(planned),
        _steps(_existing(config, planned, heads)),
        any(LATER_STAGE.fullmatch(name) for name in heads),
    )


def _existing(config: Config, planned: Sequence[Checkpoint], heads: Mapping[str, str]) -> list[Checkpoint]:
    """The checkpoints among a repository's branches; where they are none, those planned that exist."""
    suite = config.suite
    there = [checkpoint for checkpoint in planned if checkpoint.exists or checkpoint.revision in heads]
    if isinstance(suite, HubSuite) and suite.branch is not None:
        return there
    naming = Naming(suite.pattern, suite.tokens_per_step) if isinstance(suite, HubSuite) else Naming()
    found = read_revisions(planned[0], heads, naming).checkpoints.get(None, [])
    # All of pretraining, to tell its gaps; of later stages what is planned.
    known = {checkpoint.revision for checkpoint in found}
    return found + [checkpoint for checkpoint in there if checkpoint.revision not in known]


def _steps(checkpoints: Iterable[Checkpoint]) -> dict[int, set[int]]:
    steps: dict[int, set[int]] = {}
    for checkpoint in checkpoints:
        steps.setdefault(checkpoint.seed, set()).add(checkpoint.step)
    return steps


def _audited_repository(
    config: Config, repo: str, planned: Sequence[Checkpoint], moved: Moved, known: Sequence[Finding]
) -> RepoAudit:
    """The audit of a repository; ``known`` are findings that its listing does not show."""
    heads = listing.branches(repo)
    if MAIN in heads:
        heads |= listing.subfolders(repo, heads[MAIN])
    there = _existing(config, planned, heads)
    moved(repo, 0, len(there))
    listed = listing.look(there, {repo: heads})
    for checkpoint, answer in listed.inspected.items():
        if isinstance(answer, CheckpointError) and checkpoint not in listed.files:
            raise answer
    revisions, bad = [], []
    for done, checkpoint in enumerate(there, start=1):
        revisions.append(_revision(checkpoint, listed.files[checkpoint]))
        bad += _bad_in_cache(config, replace(checkpoint, commit=listed.files[checkpoint].commit))
        moved(repo, done, len(there))
    return audit_of(repo, _evidence(config, planned, revisions, listed), [*bad, *known])


def _bad_in_cache(config: Config, checkpoint: Checkpoint) -> list[Finding]:
    """Faults of tensors of a checkpoint whose files happen to be on this machine."""
    cache = CheckpointCache(cache_folder(config.cache.folder), head=False)
    found = cache.find(checkpoint)
    if found is None:
        return []
    try:
        checked = check(found.path, checkpoint.label, initial=checkpoint.step == 0)
    except (CheckpointError, OSError) as error:
        if cache.find(checkpoint) is None:  # a sweep with a bounded cache removed it meanwhile
            return []
        return [_bad(checkpoint, found.commit, None, str(error))]
    return _bad_tensors(checkpoint, found.commit, checked)


def _audited_folder(
    place: str, planned: Sequence[Checkpoint], moved: Moved, known: Sequence[Finding]
) -> RepoAudit:
    there = [each for each in planned if (Path(each.location) / each.revision).is_dir()]
    revisions, bad = [], []
    for done, checkpoint in enumerate(there):
        moved(place, done, len(there))
        revision, faults = _read_folder(Path(checkpoint.location) / checkpoint.revision, checkpoint)
        revisions.append(revision)
        bad += faults
    moved(place, len(there), len(there))
    # A Trainer leaves its final model beside the checkpoints.
    final, main = Path(place), None
    if (final / files.CONFIG).is_file():
        main, _ = _read_folder(final, replace(planned[0], revision=MAIN, step=-1))
        main = replace(main, step=None)
    return audit_of(place, Evidence(revisions, main, _steps(planned), _steps(there)), [*bad, *known])


def _read_folder(folder: Path, checkpoint: Checkpoint) -> tuple[Revision, list[Finding]]:
    """A checkpoint on this machine: hashes of its weight files and of its tensors, and what is wrong."""
    listed = [_hashed(path) for path in sorted(folder.iterdir()) if path.is_file()]
    revision = revision_of(checkpoint.revision, None, listed, checkpoint.step, checkpoint.seed)
    if not revision.measurable:
        return revision, []
    try:
        commit = files.fingerprint(folder, files.whole(folder, checkpoint.label))
        checked = check(folder, checkpoint.label, initial=checkpoint.step == 0)
    except (CheckpointError, OSError) as error:
        return revision, [_bad(checkpoint, None, None, str(error))]
    known = replace(revision, commit=commit, sets={**revision.sets, TENSORS: {TENSORS: checked.digest}})
    return known, _bad_tensors(checkpoint, commit, checked)


def _hashed(path: Path) -> RemoteFile:
    """A file on this machine as the hub would list it; only weights are read."""
    size = path.stat().st_size
    if not path.name.endswith(tuple(ending for _, ending in files.FORMATS)):
        return RemoteFile(path.name, size, None, None)
    with open(path, "rb") as file:
        return RemoteFile(path.name, size, hashlib.file_digest(file, "sha256").hexdigest(), None)


def _bad_tensors(checkpoint: Checkpoint, commit: str | None, checked: Checked) -> list[Finding]:
    """A finding on the tensors that are at fault, and one on those that start in an unusual way."""
    found = []
    for tensors, fault in ((checked.bad, "bad-tensor"), (checked.unusual, "unusual-start")):
        if tensors:
            first, others = tensors[0], len(tensors) - 1
            what = f"{first.name}: {first.what}" + (f"; and {others} more" if others else "")
            found.append(_bad(checkpoint, commit, first.file, what, fault))
    return found


def _bad(
    checkpoint: Checkpoint, commit: str | None, file: str | None, what: str, fault: str = "bad-tensor"
) -> Finding:
    return Finding(
        checkpoint.step,
        fault,
        f"{checkpoint.revision}: {what}",
        file=file,
        revision=checkpoint.revision,
        commit=commit,
        seed=checkpoint.seed,
    )
