"""Checkpoints as revisions of repositories on the Hugging Face hub, each pinned to a commit."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import disable_progress_bars, logging

from tracker.checkpoints import answers, cached, patterns, weights
from tracker.errors import CheckpointError, RequestError
from tracker.records import Checkpoint, Fetched

if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    # Somebody imported the library before `environment` could speak; the user said nothing.
    disable_progress_bars()
if "HF_HUB_VERBOSITY" not in os.environ:
    # Its warnings print signed addresses; what matters of them is in our errors.
    logging.set_verbosity_error()


@dataclass(frozen=True)
class RemoteFile:
    """One file that measuring needs."""

    name: str
    size: int
    """Bytes."""
    sha256: str | None
    """Of the content, where the file is stored as a large one."""
    blob_id: str | None
    """Git's hash of it, where it is not."""


class Inspected(NamedTuple):
    """What the hub says of one revision; unpacks as ``commit, files``."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files needed, as if none were in the cache."""
        return sum(file.size for file in self.files)


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
    cache_dir: str | Path | None = None,
) -> list[Checkpoint]:
    """Reads the branches of a repository in one request; without a network, those that the cache knows.

    Args:
        repo: ``owner/name``.
        suite: recorded with each checkpoint.
        model: default: the repository's name without its owner.
        seed: where the branch does not tell it.
        pattern: the user's own regular expression for branches, see ``patterns.compiled``.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        Ordered by seed and step, each pinned to the commit its branch had.

    Raises:
        RequestError: no such repository, no branch that names a step, two branches for one step.
        CheckpointError: the hub does not answer.
    """
    patterns.compiled(pattern)
    branches = _branches(repo, cached.cache_folder(cache_dir))
    taken: dict[tuple[int, int], Checkpoint] = {}
    for branch, commit in sorted(branches.items()):
        named = patterns.read(branch, pattern)
        if named is None:
            continue
        found = Checkpoint(
            suite=suite,
            model=model or repo.rpartition("/")[2],
            kind="hub",
            location=repo,
            revision=branch,
            seed=seed if named.seed is None else named.seed,
            step=named.step,
            tokens_seen=named.tokens,
            commit=commit,
            exists=True,
        )
        other = taken.setdefault((found.seed, found.step), found)
        if other is not found:
            raise RequestError(
                f"suite.repo={repo}: its branches {other.revision} and {branch} are both step {found.step} "
                f"of seed {found.seed}; give suite.pattern a form that tells them apart"
            )
    if not taken:
        wanted = f"names like {patterns.EXAMPLES}" if pattern is None else pattern
        raise RequestError(
            f"suite.repo={repo}: no branch names a training step; looked for {wanted}; "
            f"found {weights.listed(branches)}; give suite.pattern the form of its branches"
        )
    return [taken[key] for key in sorted(taken)]


def inspect(checkpoint: Checkpoint) -> Inspected:
    """Asks the hub, in one request, for a revision's commit and the files that measuring needs.

    Raises:
        MissingCheckpoint: the revision does not exist.
        CheckpointError: no such repository, no access, no configuration or weights in it, an
            incomplete set of shards, or the hub does not answer.
    """
    repo, revision = checkpoint.location, checkpoint.commit or checkpoint.revision
    info = answers.ask(
        lambda: _api().model_info(repo, revision=revision, files_metadata=True),
        repo=repo,
        revision=checkpoint.revision,
        who=checkpoint.label,
    )
    where = f"{checkpoint.label}: {repo} at {checkpoint.revision}"
    if info.sha is None or not cached.COMMIT.fullmatch(info.sha):
        raise CheckpointError(f"{where}: the hub names no commit for it; check HF_ENDPOINT")
    return Inspected(info.sha, _files(info, where))


def fetch(checkpoint: Checkpoint, *, cache_dir: str | Path | None = None) -> Fetched:
    """Brings a checkpoint's files into the hub's cache, at one commit, each checked against its hash.

    A pinned commit that the cache holds whole costs no request, any other revision one. Without a
    network the cache serves the commit it last saw under the revision.

    Args:
        checkpoint: of kind ``hub``.
        cache_dir: see ``cached.cache_folder``.

    Returns:
        The snapshot's folder and its commit; loading from there makes no request.

    Raises:
        MissingCheckpoint: the revision does not exist.
        CheckpointError: as ``inspect``; or a file arrived altered or cut short.
    """
    cache = cached.cache_folder(cache_dir)
    known = cached.noted(checkpoint.location, checkpoint.revision, cache)
    if checkpoint.commit is not None and checkpoint.commit == known:
        found = cached.find(checkpoint, cache)
        if found is not None:
            return found
    try:
        commit, files = inspect(checkpoint)
        if commit == known:
            found = cached.find(checkpoint, cache)
            if found is not None:
                return found
        return _download(checkpoint, commit, files, cache)
    except answers.Unreachable:
        found = cached.find(checkpoint, cache)
        if found is None:
            raise
        return found


def _download(checkpoint: Checkpoint, commit: str, files: tuple[RemoteFile, ...], cache: Path) -> Fetched:
    repo, revision, who = checkpoint.location, checkpoint.revision, checkpoint.label
    where = f"{who}: {repo} at {revision}"

    def bring() -> Path:
        folder = Path(
            snapshot_download(
                repo,
                revision=commit,
                cache_dir=cache,
                endpoint=_endpoint(),
                allow_patterns=[file.name for file in files],
            )
        )
        for file in files:
            cached.verify(folder / file.name, sha256=file.sha256, blob_id=file.blob_id, who=where)
        weights.whole(folder, who)
        cached.note(repo, revision, commit, cache)
        return folder

    path = answers.ask(bring, repo=repo, revision=revision, who=who)
    return Fetched(checkpoint, path, commit)


def _endpoint() -> str | None:
    # huggingface_hub reads it once, at import; read here, it can be set by a program as well.
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _api() -> HfApi:
    return HfApi(endpoint=_endpoint())


def _branches(repo: str, cache: Path) -> dict[str, str]:
    try:
        refs = answers.ask(lambda: _api().list_repo_refs(repo), repo=repo, revision=None, who="suite.repo")
    except answers.UnknownRepository as error:
        raise RequestError(str(error)) from error
    except answers.Unreachable:
        known = cached.revisions(repo, cache)
        if not known:
            raise
        return known
    return {branch.name: branch.target_commit for branch in refs.branches}


def _files(info: ModelInfo, where: str) -> tuple[RemoteFile, ...]:
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    small, heavy = weights.needed(siblings)
    if weights.CONFIG not in small:
        raise CheckpointError(f"{where}: has no {weights.CONFIG}; found {weights.listed(siblings)}")
    if not heavy:
        raise CheckpointError(
            f"{where}: has no weights (model.safetensors, pytorch_model.bin or shards of them); "
            f"found {weights.listed(siblings)}"
        )
    _check_shards(heavy, where)
    return tuple(
        RemoteFile(
            name,
            size=siblings[name].size or 0,
            blob_id=siblings[name].blob_id,
            sha256=None if (large := siblings[name].lfs) is None else large.sha256,
        )
        for name in small + heavy
    )


def _check_shards(heavy: list[str], where: str) -> None:
    if not heavy[0].endswith(".index.json"):
        return
    announced = {int(name.rpartition("-of-")[2].partition(".")[0]) for name in heavy[1:]}
    if announced != {len(heavy) - 1}:
        raise CheckpointError(
            f"{where}: its set of shards is not complete; found {weights.listed(heavy[1:])} beside {heavy[0]}"
        )
