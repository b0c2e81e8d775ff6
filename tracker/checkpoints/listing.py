"""What the hub says it holds: branches with their commits, and the files of a commit. No file is fetched."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from huggingface_hub import HfApi, RepoFile
from huggingface_hub.hf_api import ModelInfo

from tracker.checkpoints import answers, cached
from tracker.checkpoints import files as weights
from tracker.errors import CheckpointError, MissingCheckpoint
from tracker.records import Checkpoint

ASKED_AT_ONCE = 4
"""Listings asked for side by side; the hub's limits for one user are some thousands in five minutes."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a commit."""

    name: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of the content, where the file is stored as a large one."""
    blob_id: str | None
    """Git's hash of it, where it is not."""

    @property
    def digest(self) -> str | None:
        """What tells this content from any other; None where the hub does not say."""
        return self.sha256 or self.blob_id


class Inspected(NamedTuple):
    """What the hub says of one revision; unpacks as ``commit, files``."""

    commit: str
    files: tuple[RemoteFile, ...]
    """Those that measuring needs."""

    @property
    def size(self) -> int:
        """Bytes of all files needed, as if none were in the cache."""
        return sum(file.size for file in self.files)


def endpoint() -> str | None:
    """The hub's address; huggingface_hub reads it once, at import, here a program can set it as well."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def api() -> HfApi:
    """The hub's client, for the hub of this moment."""
    return HfApi(endpoint=endpoint())


def branches(repo: str) -> dict[str, str]:
    """Every branch of a repository with its commit, in one request.

    Raises:
        UnknownRepository, Unreachable: see ``answers.ask``.
    """
    refs = answers.ask(lambda: api().list_repo_refs(repo), repo=repo, revision=None, who="suite.repo")
    return {branch.name: branch.target_commit for branch in refs.branches}


def commits(repo: str, branch: str) -> list[tuple[str, str]]:
    """(commit, title) of a branch's history, the newest first, for suites that commit every checkpoint.

    Raises:
        MissingCheckpoint: there is no such branch.
        UnknownRepository, Unreachable: see ``answers.ask``.
    """
    history = answers.ask(
        lambda: api().list_repo_commits(repo, revision=branch), repo=repo, revision=branch, who="suite.branch"
    )
    return [(commit.commit_id, commit.title) for commit in history]


def tree(repo: str, commit: str, who: str) -> tuple[RemoteFile, ...]:
    """The files at the top of a commit with sizes and hashes, in one small request.

    Raises:
        CheckpointError: the hub does not answer.
    """

    def listed() -> tuple[RemoteFile, ...]:
        found = api().list_repo_tree(repo, revision=commit)
        files = (entry for entry in found if isinstance(entry, RepoFile))
        return tuple(
            RemoteFile(file.path, file.size, None if file.lfs is None else file.lfs.sha256, file.blob_id)
            for file in files
        )

    return answers.ask(listed, repo=repo, revision=commit, who=who)


def inspect(checkpoint: Checkpoint) -> Inspected:
    """Asks the hub, in one request, for a revision's commit and the files that measuring needs.

    Raises:
        MissingCheckpoint: the revision does not exist.
        CheckpointError: no such repository, no access, no configuration or weights in it, an
            incomplete set of shards, or the hub does not answer.
    """
    repo, revision = checkpoint.location, checkpoint.commit or checkpoint.revision
    info = answers.ask(
        lambda: api().model_info(repo, revision=revision, files_metadata=True),
        repo=repo,
        revision=checkpoint.revision,
        who=checkpoint.label,
    )
    if info.sha is None or not cached.COMMIT.fullmatch(info.sha):
        raise CheckpointError(f"{_where(checkpoint)}: the hub names no commit for it; check HF_ENDPOINT")
    return Inspected(info.sha, needed(_siblings(info), _where(checkpoint)))


class Listed(NamedTuple):
    """All that the hub says of some checkpoints, asked for before any is fetched."""

    inspected: Mapping[Checkpoint, Inspected | CheckpointError]
    """Every checkpoint asked about: its commit and files, or why it cannot be fetched."""
    files: Mapping[Checkpoint, tuple[str, tuple[RemoteFile, ...]]]
    """Commit and all top-level files of those that exist, weights or not."""
    main: Mapping[str, tuple[str, tuple[RemoteFile, ...]]]
    """Likewise of each repository's branch ``main``."""
    branches: Mapping[str, dict[str, str]]
    """Every repository's branches with their commits."""


def look(checkpoints: Sequence[Checkpoint], heads: Mapping[str, dict[str, str]] | None = None) -> Listed:
    """Asks what the hub holds for many checkpoints: one request a repository, one a commit.

    Never raises for one checkpoint or repository: that is its entry in ``inspected``.

    Args:
        checkpoints: of kind ``hub``; of any number of repositories.
        heads: branches with their commits, of repositories that have been asked for them already.
    """
    repos = {checkpoint.location for checkpoint in checkpoints}
    known, lost = _branches_of(repos - set(heads or ()))
    known |= heads or {}
    inspected: dict[Checkpoint, Inspected | CheckpointError] = {}
    commits_of: dict[Checkpoint, str] = {}
    for checkpoint in checkpoints:
        repo = checkpoint.location
        commit = checkpoint.commit or known.get(repo, {}).get(checkpoint.revision)
        if repo in lost:
            inspected[checkpoint] = lost[repo]
        elif commit is None:
            inspected[checkpoint] = MissingCheckpoint(
                f"{_where(checkpoint)}: the repository has no revision {checkpoint.revision}"
            )
        else:
            commits_of[checkpoint] = commit
    mains = {repo: heads["main"] for repo, heads in known.items() if "main" in heads}
    wanted = {(checkpoint.location, commit): checkpoint.label for checkpoint, commit in commits_of.items()}
    wanted |= {place: f"{place[0]} main" for place in mains.items() if place not in wanted}
    trees = _trees(wanted)
    for checkpoint, commit in commits_of.items():
        inspected[checkpoint] = _inspected(checkpoint, commit, trees[checkpoint.location, commit])
    files = {
        checkpoint: (commit, found)
        for checkpoint, commit in commits_of.items()
        if not isinstance(found := trees[checkpoint.location, commit], CheckpointError)
    }
    main = {
        repo: (commit, found)
        for repo, commit in mains.items()
        if not isinstance(found := trees[repo, commit], CheckpointError)
    }
    return Listed(inspected, files, main, known)


def _branches_of(repos: Iterable[str]) -> tuple[dict[str, dict[str, str]], dict[str, CheckpointError]]:
    known: dict[str, dict[str, str]] = {}
    lost: dict[str, CheckpointError] = {}
    unreachable: CheckpointError | None = None
    for repo in sorted(repos):
        try:
            if unreachable is not None:  # one hub serves all: it is not waited for once more
                raise unreachable
            known[repo] = branches(repo)
        except answers.Unreachable as error:
            lost[repo] = unreachable = error
        except CheckpointError as error:
            lost[repo] = error
    return known, lost


def _trees(
    wanted: Mapping[tuple[str, str], str],
) -> dict[tuple[str, str], tuple[RemoteFile, ...] | CheckpointError]:
    def one(place: tuple[str, str]) -> tuple[RemoteFile, ...] | CheckpointError:
        try:
            return tree(*place, wanted[place])
        except CheckpointError as error:
            return error

    with ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="listing") as pool:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))


def _inspected(
    checkpoint: Checkpoint, commit: str, found: tuple[RemoteFile, ...] | CheckpointError
) -> Inspected | CheckpointError:
    if isinstance(found, CheckpointError):
        return found
    try:
        return Inspected(commit, needed({file.name: file for file in found}, _where(checkpoint)))
    except CheckpointError as error:
        return error


def _where(checkpoint: Checkpoint) -> str:
    return f"{checkpoint.label}: {checkpoint.location} at {checkpoint.revision}"


def _siblings(info: ModelInfo) -> dict[str, RemoteFile]:
    return {
        sibling.rfilename: RemoteFile(
            sibling.rfilename,
            size=sibling.size or 0,
            blob_id=sibling.blob_id,
            sha256=None if (large := sibling.lfs) is None else large.sha256,
        )
        for sibling in info.siblings or ()
    }


def needed(files: Mapping[str, RemoteFile], where: str) -> tuple[RemoteFile, ...]:
    """The files of a commit that measuring needs, of its weights one format only.

    Args:
        files: all files, by name.
        where: in front of messages.

    Raises:
        CheckpointError: no configuration, no weights, or an incomplete set of shards.
    """
    small, heavy = weights.needed(files)
    if weights.CONFIG not in small:
        raise CheckpointError(f"{where}: has no {weights.CONFIG}; found {weights.listed(files)}")
    if not heavy:
        raise CheckpointError(
            f"{where}: has no weights (model.safetensors, pytorch_model.bin or shards of them); "
            f"found {weights.listed(files)}"
        )
    if not weights.complete(heavy):
        raise CheckpointError(
            f"{where}: its set of shards is not complete; found {weights.listed(heavy[1:])} beside {heavy[0]}"
        )
    return tuple(files[name] for name in small + heavy)
