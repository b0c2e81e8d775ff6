"""Checkpoints as revisions of repositories on the Hugging Face hub, each pinned to a commit."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, logging

from tracker.checkpoints import cached, files, listing, names
from tracker.checkpoints.answers import UnknownRepository, Unreachable
from tracker.checkpoints.names import Labels
from tracker.checkpoints.reading import Found, Naming, read_revisions
from tracker.errors import MissingCheckpoint, RequestError
from tracker.records import Checkpoint

if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    # The library was imported before `environment`, and the user has set nothing.
    disable_progress_bars()
if "HF_HUB_VERBOSITY" not in os.environ:
    # Its warnings print signed addresses; what matters of them is in our errors.
    logging.set_verbosity_error()
# The library would move large files out of their repository's folder into a store that all repositories
# share, where removing a measured checkpoint frees nothing: cache.max_gb could not be kept.
constants.HF_HUB_DISABLE_SHARED_BLOBS = True


def declared(
    repo: str,
    labels: Labels,
    steps: Iterable[int],
    *,
    revision: str = "step{step}",
    tokens_per_step: int | None = None,
) -> list[Checkpoint]:
    """List the checkpoints of a suite by its schedule; without a request, so they may turn out missing.

    Args:
        repo: ``owner/name``.
        labels: recorded with each.
        steps: training steps.
        revision: form of the branch names, with the field ``{step}``.
        tokens_per_step: gives tokens_seen; None where unknown.

    Raises:
        RequestError: the form of the branch names lacks its field or has others.
    """
    try:
        branches = {step: revision.format(step=step) for step in steps}
    except (KeyError, IndexError, ValueError) as error:
        raise RequestError(f"revision={revision}: the only field it may have is {{step}}") from error
    if len(set(branches.values())) < len(branches):
        raise RequestError(f"revision={revision}: has no field {{step}}, so every step would be the same")
    common = first(repo, labels)
    return [
        replace(
            common,
            step=step,
            revision=branch,
            tokens_seen=None if tokens_per_step is None else step * tokens_per_step,
        )
        for step, branch in sorted(branches.items())
    ]


def discover(
    repo: str,
    labels: Labels | None = None,
    *,
    pattern: str | None = None,
    branch: str | None = None,
    cache_dir: str | Path | None = None,
) -> list[Checkpoint]:
    """Read a repository's branches, tags and the folders of main, in two requests; without a network, those
    that the cache knows.

    Args:
        repo: ``owner/name``.
        labels: recorded with each checkpoint; model default: the repository's name without its owner.
        pattern: the user's own regular expression for the names, see ``names.compiled``.
        branch: where training committed every checkpoint to one branch: its commits are the checkpoints,
            and the pattern reads their titles.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        Those of pretraining, ordered by seed and step, each pinned to the commit its revision had.

    Raises:
        RequestError: no such repository, or no revision that names a step.
        CheckpointError: the hub does not answer.
    """
    return find(repo, labels, Naming(pattern), branch=branch, cache_dir=cache_dir).checkpoints


def find(
    repo: str,
    labels: Labels | None,
    naming: Naming,
    *,
    branch: str | None = None,
    cache_dir: str | Path | None = None,
) -> Found:
    """Find checkpoints as ``discover`` does, with what a person should know of their names.

    Args:
        repo, labels, branch, cache_dir: as for ``discover``.
        naming: how names are read, and which stages are taken.

    Raises:
        RequestError, CheckpointError: as ``discover``.
    """
    names.compiled(naming.pattern)
    if branch:
        commits, notes = _titles(repo, branch), []
    else:
        commits, notes = _revisions(repo, cached.cache_folder(cache_dir), naming)
    read = read_revisions(first(repo, labels or Labels()), commits, naming)
    if not read.checkpoints:
        raise RequestError(_nothing(repo, commits, naming.pattern))
    found = read.chosen(naming.stages)
    if branch:
        return Found([replace(each, revision=str(each.commit)) for each in found.checkpoints], ())
    return Found(found.checkpoints, (*notes, *found.notes))


def _nothing(repo: str, commits: Mapping[str, str], pattern: str | None) -> str:
    wanted = f"names like {names.EXAMPLES}" if pattern is None else pattern
    return (
        f"suite.repo={repo}: no branch, tag or folder of main names a training step; looked for {wanted}; "
        f"found {files.listed(commits)}; set suite.pattern to the form of its names"
    )


def first(repo: str, labels: Labels) -> Checkpoint:
    """Return what all checkpoints of a repository share."""
    model = labels.model or repo.rpartition("/")[2]
    return Checkpoint(labels.suite or "hub", model, labels.seed, 0, "hub", repo, "")


def _titles(repo: str, branch: str) -> dict[str, str]:
    """Title -> commit of a branch's history; of commits with one title the newest counts."""
    try:
        history = listing.commits(repo, branch)
    except (UnknownRepository, MissingCheckpoint) as error:
        raise RequestError(str(error)) from error
    return {title: commit for commit, title in reversed(history)}


def _revisions(repo: str, cache: Path, naming: Naming) -> tuple[dict[str, str], list[str]]:
    try:
        held = listing.revisions(repo)
        folders = listing.subfolders(repo, held.both[listing.MAIN]) if listing.MAIN in held.both else {}
    except UnknownRepository as error:
        raise RequestError(str(error)) from error
    except Unreachable:
        known = cached.revisions(repo, cache)
        if not known:
            raise
        return known, []
    twice = [name for name in held.tags if name in held.branches and naming.read(name)]
    both = f"{repo}: both a branch and a tag, of which the branch is read: {files.listed(twice)}"
    return held.both | folders, [both] if twice else []
