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
    first = _first(repo, labels)
    return [
        replace(
            first,
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
    """Read the branches of a repository in one request; without a network, those that the cache knows.

    Args:
        repo: ``owner/name``.
        labels: recorded with each checkpoint; model default: the repository's name without its owner.
        pattern: the user's own regular expression for branches, see ``names.compiled``.
        branch: where training committed every checkpoint to one branch: its commits are the checkpoints,
            and the pattern reads their titles.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        Ordered by seed and step, each pinned to the commit its branch had.

    Raises:
        RequestError: no such repository, no branch that names a step, two branches for one step.
        CheckpointError: the hub does not answer.
    """
    names.compiled(pattern)
    commits = _titles(repo, branch) if branch else _branches(repo, cached.cache_folder(cache_dir))
    found = named(_first(repo, labels or Labels()), commits, pattern)
    if not found:
        wanted = f"names like {names.EXAMPLES}" if pattern is None else pattern
        raise RequestError(
            f"suite.repo={repo}: no branch names a training step; looked for {wanted}; "
            f"found {files.listed(commits)}; set suite.pattern to the form of its branches"
        )
    return found if branch is None else [replace(each, revision=str(each.commit)) for each in found]


def named(like: Checkpoint, commits: Mapping[str, str], pattern: str | None = None) -> list[Checkpoint]:
    """Return the checkpoints among some branches, each pinned.

    Args:
        like: gives suite, model and repository, and the seed where a branch does not name it.
        commits: branch -> commit.
        pattern: see ``names.compiled``.

    Returns:
        Ordered by seed and step.

    Raises:
        RequestError: two branches name the same step.
    """
    taken: dict[tuple[int, int], Checkpoint] = {}
    for branch, commit in sorted(commits.items()):
        read = names.read(branch, pattern)
        if read is None:
            continue
        seed = like.seed if read.seed is None else read.seed
        found = replace(
            like,
            revision=branch,
            seed=seed,
            step=read.step,
            tokens_seen=read.tokens,
            commit=commit,
            exists=True,
        )
        other = taken.setdefault((found.seed, found.step), found)
        if other is not found:
            raise RequestError(
                f"suite.repo={like.location}: its branches {other.revision} and {branch} are both step "
                f"{found.step} of seed {found.seed}; set suite.pattern to a form that keeps them apart"
            )
    return [taken[key] for key in sorted(taken)]


def _first(repo: str, labels: Labels) -> Checkpoint:
    model = labels.model or repo.rpartition("/")[2]
    return Checkpoint(labels.suite or "hub", model, labels.seed, 0, "hub", repo, "")


def _titles(repo: str, branch: str) -> dict[str, str]:
    """Title -> commit of a branch's history; of commits with one title the newest counts."""
    try:
        history = listing.commits(repo, branch)
    except (UnknownRepository, MissingCheckpoint) as error:
        raise RequestError(str(error)) from error
    return {title: commit for commit, title in reversed(history)}


def _branches(repo: str, cache: Path) -> dict[str, str]:
    try:
        return listing.branches(repo)
    except UnknownRepository as error:
        raise RequestError(str(error)) from error
    except Unreachable:
        known = cached.revisions(repo, cache)
        if not known:
            raise
        return known
