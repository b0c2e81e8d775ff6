"""Checkpoints as revisions of repositories on the Hugging Face hub, each pinned to a commit."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import disable_progress_bars, logging

from tracker.checkpoints import answers, cached, listing
from tracker.checkpoints import files as weights
from tracker.checkpoints import names as patterns
from tracker.checkpoints.cache import CheckpointCache
from tracker.errors import MissingCheckpoint, RequestError
from tracker.records import Checkpoint, Fetched

if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    # Somebody imported the library before `environment` could speak; the user said nothing.
    disable_progress_bars()
if "HF_HUB_VERBOSITY" not in os.environ:
    # Its warnings print signed addresses; what matters of them is in our errors.
    logging.set_verbosity_error()


def declared(
    suite: str,
    repo: str,
    *,
    model: str,
    seed: int,
    steps: Iterable[int],
    revision: str = "step{step}",
    tokens_per_step: int | None = None,
) -> list[Checkpoint]:
    """Checkpoints of a suite whose schedule is known. Asks nobody, so they may turn out missing.

    Args:
        suite: recorded with each.
        repo: ``owner/name``.
        model: recorded with each.
        seed: likewise.
        steps: training steps.
        revision: form of the branch names, with the field ``{step}``.
        tokens_per_step: gives tokens_seen; None where unknown.

    Raises:
        RequestError: the form of the branch names lacks its field or has others.
    """
    try:
        named = {step: revision.format(step=step) for step in steps}
    except (KeyError, IndexError, ValueError) as error:
        raise RequestError(f"revision={revision}: the only field it may have is {{step}}") from error
    if len(set(named.values())) < len(named):
        raise RequestError(f"revision={revision}: has no field {{step}}, so every step would be the same")
    return [
        Checkpoint(
            suite=suite,
            model=model,
            seed=seed,
            step=step,
            kind="hub",
            location=repo,
            revision=name,
            tokens_seen=None if tokens_per_step is None else step * tokens_per_step,
        )
        for step, name in sorted(named.items())
    ]


def discover(
    repo: str,
    *,
    suite: str = "hub",
    model: str | None = None,
    seed: int = 0,
    pattern: str | None = None,
    branch: str | None = None,
    cache_dir: str | Path | None = None,
) -> list[Checkpoint]:
    """Reads the branches of a repository in one request; without a network, those that the cache knows.

    Args:
        repo: ``owner/name``.
        suite: recorded with each checkpoint.
        model: default: the repository's name without its owner.
        seed: where the branch does not tell it.
        pattern: the user's own regular expression for branches, see ``patterns.compiled``.
        branch: where training committed every checkpoint to one branch: its commits are the checkpoints,
            and the pattern reads their titles.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        Ordered by seed and step, each pinned to the commit its branch had.

    Raises:
        RequestError: no such repository, no branch that names a step, two branches for one step.
        CheckpointError: the hub does not answer.
    """
    patterns.compiled(pattern)
    names = _titles(repo, branch) if branch else _branches(repo, cached.cache_folder(cache_dir))
    first = Checkpoint(suite, model or repo.rpartition("/")[2], seed, 0, "hub", repo, "")
    found = named(first, names, pattern)
    if not found:
        wanted = f"names like {patterns.EXAMPLES}" if pattern is None else pattern
        raise RequestError(
            f"suite.repo={repo}: no branch names a training step; looked for {wanted}; "
            f"found {weights.listed(names)}; give suite.pattern the form of its branches"
        )
    return found if branch is None else [replace(each, revision=str(each.commit)) for each in found]


def named(like: Checkpoint, names: Mapping[str, str], pattern: str | None = None) -> list[Checkpoint]:
    """The checkpoints among some branches, each pinned.

    Args:
        like: gives suite, model and repository, and the seed where a branch does not tell it.
        names: branch -> commit.
        pattern: see ``patterns.compiled``.

    Returns:
        Ordered by seed and step.

    Raises:
        RequestError: two branches name the same step.
    """
    taken: dict[tuple[int, int], Checkpoint] = {}
    for name, commit in sorted(names.items()):
        said = patterns.read(name, pattern)
        if said is None:
            continue
        seed = like.seed if said.seed is None else said.seed
        found = replace(
            like,
            revision=name,
            seed=seed,
            step=said.step,
            tokens_seen=said.tokens,
            commit=commit,
            exists=True,
        )
        other = taken.setdefault((found.seed, found.step), found)
        if other is not found:
            raise RequestError(
                f"suite.repo={like.location}: its branches {other.revision} and {name} are both step "
                f"{found.step} of seed {found.seed}; give suite.pattern a form that tells them apart"
            )
    return [taken[key] for key in sorted(taken)]


def _titles(repo: str, branch: str) -> dict[str, str]:
    """Title -> commit of a branch's history; of commits with one title the newest counts."""
    try:
        history = listing.commits(repo, branch)
    except (answers.UnknownRepository, MissingCheckpoint) as error:
        raise RequestError(str(error)) from error
    return {title: commit for commit, title in reversed(history)}


def fetch(checkpoint: Checkpoint, *, cache_dir: str | Path | None = None) -> Fetched:
    """Brings a checkpoint's files into the hub's cache, at one commit, each checked against its hash.

    A pinned commit that the cache holds whole costs no request, any other revision one and its files.
    Without a network the cache serves the commit it last saw under the revision. What is fetched stays;
    a sweep goes through ``CheckpointCache``, which can remove it again.

    Args:
        checkpoint: of kind ``hub``.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        The snapshot's folder and its commit; loading from there makes no request.

    Raises:
        MissingCheckpoint: the revision does not exist.
        CheckpointError: as ``inspect``; or a file arrived altered or cut short.
    """
    cache = CheckpointCache(cached.cache_folder(cache_dir))
    hold = cache.fetch(checkpoint)
    cache.release(hold)
    return hold.fetched


def _branches(repo: str, cache: Path) -> dict[str, str]:
    try:
        return listing.branches(repo)
    except answers.UnknownRepository as error:
        raise RequestError(str(error)) from error
    except answers.Unreachable:
        known = cached.revisions(repo, cache)
        if not known:
            raise
        return known
