"""What the hub holds: branches with their commits, and the files of a commit. No file is fetched."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

from tracker.checkpoints import cached, files
from tracker.checkpoints.answers import Answer, Pause, Subject, Unreachable, ask
from tracker.checkpoints.pace import ANSWER_SECONDS, PIECE, PIECE_SECONDS
from tracker.checkpoints.remote import MAIN, Inspected, Listed, RemoteFile, Revisions, Tree, is_plain
from tracker.errors import CheckpointError, MissingCheckpoint
from tracker.records import Checkpoint

ASKED_AT_ONCE = 4
"""Listings asked for side by side; the hub's limits for one user are some thousands in five minutes."""
LARGEST_INDEX = 64 << 20
"""Bytes."""


def endpoint() -> str | None:
    """Return the hub's address at this moment; huggingface_hub itself reads it once, at import."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def revisions(repo: str) -> Revisions:
    """Return the branches and tags of a repository, in one request.

    Raises:
        UnknownRepository, Unreachable: see ``answers.ask``.
    """
    refs = ask(lambda: _api().list_repo_refs(repo), Subject(repo, None, "suite.repo"), within=ANSWER_SECONDS)
    named = [{each.name: each.target_commit for each in kind} for kind in (refs.branches, refs.tags)]
    for name, commit in (pair for kind in named for pair in kind.items()):
        if not isinstance(name, str) or not cached.is_commit(commit):
            raise CheckpointError(
                f"suite.repo: {repo}: the hub names a revision without a commit ({name!r:.80}, "
                f"{commit!r:.80}); check HF_ENDPOINT"
            )
    return Revisions(*named)


def branches(repo: str) -> dict[str, str]:
    """Return every branch and tag of a repository with its commit, in one request; see ``revisions``."""
    return revisions(repo).both


def subfolders(repo: str, commit: str) -> dict[str, str]:
    """Return the folders with weights in a repository's branch ``main``, as revisions ``main:folder`` with
    its commit, in one request; none where that is refused.

    Raises:
        Unreachable: the hub does not answer.
    """
    tree = _attempt(lambda: _tree(Subject(repo, MAIN, "suite.repo"), commit))
    if isinstance(tree, Unreachable):
        raise tree
    return {} if isinstance(tree, CheckpointError) else tree.subfolders


def commits(repo: str, branch: str) -> list[tuple[str, str]]:
    """Return (commit, title) of a branch's history, the newest first.

    Raises:
        MissingCheckpoint: there is no such branch.
        UnknownRepository, Unreachable: see ``answers.ask``.
    """
    about = Subject(repo, branch, "suite.branch")
    history = ask(lambda: _api().list_repo_commits(repo, revision=branch), about, within=ANSWER_SECONDS)
    if not all(cached.is_commit(each.commit_id) and isinstance(each.title, str) for each in history):
        raise CheckpointError(f"{about.where}: the hub names a commit that is none; check HF_ENDPOINT")
    return [(commit.commit_id, commit.title) for commit in history]


def inspect(checkpoint: Checkpoint) -> Inspected:
    """Ask the hub, in one request, for a revision's commit and the files that measuring needs.

    Raises:
        MissingCheckpoint: the revision does not exist.
        CheckpointError: no such repository, no access, no configuration or weights in it, an
            incomplete set of shards, or the hub does not answer.
    """
    about = _subject(checkpoint)
    tree = _tree(about, checkpoint.commit or checkpoint.branch)
    return Inspected(tree.commit, _needed(tree, about, checkpoint.subfolder))


def look(checkpoints: Sequence[Checkpoint], heads: Mapping[str, dict[str, str]] | None = None) -> Listed:
    """Ask what the hub holds for many checkpoints: one request a repository, one a commit.

    Never raises for one checkpoint or repository: that is its entry in ``inspected``.

    Args:
        checkpoints: of kind ``hub``; of any number of repositories.
        heads: branches with their commits, of repositories that have been asked for them already.
    """
    known, lost = _branches_of({checkpoint.location for checkpoint in checkpoints} - set(heads or ()))
    known |= heads or {}
    inspected: dict[Checkpoint, Inspected | CheckpointError] = {}
    places: dict[Checkpoint, tuple[str, str]] = {}
    for checkpoint in checkpoints:
        repo, about = checkpoint.location, _subject(checkpoint)
        commit = checkpoint.commit or known.get(repo, {}).get(checkpoint.branch)
        if repo in lost:
            inspected[checkpoint] = lost[repo]
        elif commit is None:
            inspected[checkpoint] = MissingCheckpoint(
                f"{about.where}: the repository has no revision {about.revision}"
            )
        else:
            places[checkpoint] = (repo, commit)
    mains = {repo: heads[MAIN] for repo, heads in known.items() if MAIN in heads}
    wanted = {place: Subject(place[0], MAIN, "suite.repo") for place in mains.items()}
    wanted |= {place: _subject(checkpoint) for checkpoint, place in places.items()}
    trees = _trees(wanted)
    inspected |= {each: _inspected(trees[place], each) for each, place in places.items()}
    return Listed(
        inspected,
        {each: tree for each, place in places.items() if isinstance(tree := trees[place], Tree)},
        {repo: tree for repo, commit in mains.items() if isinstance(tree := trees[repo, commit], Tree)},
        known,
    )


def with_digests(inspected: Inspected, about: Subject) -> Inspected:
    """Return an answer whose files all have a digest: where the listing has none, the file's ETag."""

    def known(file: RemoteFile) -> RemoteFile:
        if file.digest:
            return file
        url = hf_hub_url(about.repo, file.name, revision=inspected.commit, endpoint=endpoint())
        found = ask(lambda: get_hf_file_metadata(url, endpoint=endpoint()), about, within=ANSWER_SECONDS)
        etag = found.etag
        if not etag:
            raise CheckpointError(f"{about.where}: the hub reports no hash of {file.name}; check HF_ENDPOINT")
        return replace(file, **{"sha256" if len(etag) == 64 else "blob_id": etag})

    found = tuple(known(file) for file in inspected.files)
    for file in found:  # the digest names a file of the cache
        if not file.is_hashed or not is_plain(file.name):
            raise CheckpointError(
                f"{about.where}: the hub names a file or a hash that is none ({file.name[:80]!r}, "
                f"{file.digest[:80]!r}); nothing was fetched; check HF_ENDPOINT"
            )
    if len({file.name.casefold() for file in found}) < len(found):
        raise CheckpointError(
            f"{about.where}: names of its files differ by case only, and on some disks one would lie in the "
            f"other's place ({files.listed(file.name for file in found)}); nothing was fetched"
        )
    return Inspected(inspected.commit, found)


def _api() -> HfApi:
    return HfApi(endpoint=endpoint())


def _subject(checkpoint: Checkpoint) -> Subject:
    return Subject(checkpoint.location, checkpoint.revision, checkpoint.label)


def _tree(about: Subject, revision: str, pause: Pause = time.sleep) -> Tree:
    info = ask(
        lambda: _api().model_info(about.repo, revision=revision, files_metadata=True),
        about,
        pause,
        ANSWER_SECONDS,
    )
    if not cached.is_commit(info.sha):
        raise CheckpointError(f"{about.where}: the hub names no commit for it; check HF_ENDPOINT")
    found = (
        RemoteFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None, each.blob_id)
        for each in info.siblings or ()
    )
    try:  # a name that leads elsewhere is nothing that measuring needs
        return Tree(str(info.sha), tuple(file for each in found if is_plain((file := each.checked()).name)))
    except (TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{about.where}: the hub's list of files is not readable ({error}); check HF_ENDPOINT"
        ) from error


def _branches_of(repos: Iterable[str]) -> tuple[dict[str, dict[str, str]], dict[str, CheckpointError]]:
    known: dict[str, dict[str, str]] = {}
    lost: dict[str, CheckpointError] = {}
    answer: dict[str, str] | CheckpointError = {}
    for repo in sorted(repos):
        if not isinstance(answer, Unreachable):  # one hub serves all: it is not waited for once more
            answer = _attempt(lambda repo=repo: branches(repo))
        if isinstance(answer, CheckpointError):
            lost[repo] = answer if repo in str(answer) else Unreachable(f"suite.repo: {repo}: {answer}")
        else:
            known[repo] = answer
    return known, lost


def _trees(wanted: Mapping[tuple[str, str], Subject]) -> dict[tuple[str, str], Tree | CheckpointError]:
    ended = threading.Event()

    def pause(seconds: float) -> None:
        if ended.wait(seconds):
            raise Unreachable("stopped asking the hub: the sweep is ending")

    def one(place: tuple[str, str]) -> Tree | CheckpointError:
        return _attempt(lambda: _tree(wanted[place], place[1], pause))

    pool = ThreadPoolExecutor(ASKED_AT_ONCE, thread_name_prefix="listing")
    try:
        return dict(zip(wanted, pool.map(one, wanted), strict=True))
    finally:  # Ctrl-C waits for the requests in flight, not for the queue behind them
        ended.set()
        pool.shutdown(cancel_futures=True)


def _attempt(call: Callable[[], Answer]) -> Answer | CheckpointError:
    try:
        return call()
    except CheckpointError as error:
        return error


def _inspected(tree: Tree | CheckpointError, checkpoint: Checkpoint) -> Inspected | CheckpointError:
    if isinstance(tree, CheckpointError):
        return tree
    about, folder = _subject(checkpoint), checkpoint.subfolder
    return _attempt(lambda: Inspected(tree.commit, _needed(tree, about, folder)))


def _needed(tree: Tree, about: Subject, folder: str) -> tuple[RemoteFile, ...]:
    """The files of a commit, or of a folder in it, that measuring needs, of its weights one format only."""
    where = about.where
    named = {file.name: file for file in tree.files}
    if folder and not files.below(folder, named):
        raise MissingCheckpoint(f"{where}: the branch has no folder {folder}")
    small, heavy = files.needed_in(folder, named)
    if not any(name.endswith(files.CONFIG) for name in small):
        raise CheckpointError(f"{where}: has no {files.CONFIG}; found {files.listed(named)}")
    if not heavy:
        raise CheckpointError(
            f"{where}: has no weights (model.safetensors, pytorch_model.bin or shards of them); "
            f"found {files.listed(named)}"
        )
    if not files.announced(heavy):
        prefix = heavy[0].removesuffix(heavy[0].rpartition("/")[2])
        heavy = [heavy[0], *(f"{prefix}{each}" for each in _named_by(named[heavy[0]], tree, about))]
        lacking = [name for name in heavy if name not in named]
        if lacking:
            raise CheckpointError(
                f"{where}: its set of shards is not complete; found "
                f"{files.listed(name for name in heavy if name in named)}, which names "
                f"{files.listed(lacking)} as well"
            )
    return tuple(named[name] for name in small + heavy)


def _named_by(index: RemoteFile, tree: Tree, about: Subject) -> list[str]:
    """The shards that an index names, which is fetched for it: file names alone do not tell."""
    about = replace(about, file=index.name)
    if index.size > LARGEST_INDEX:
        raise CheckpointError(f"{about.where}: is no index of shards, with {index.size} bytes")
    with tempfile.TemporaryDirectory() as folder:
        path = ask(
            lambda: hf_hub_download(
                about.repo, index.name, revision=tree.commit, local_dir=folder, endpoint=endpoint()
            ),
            about,
            within=PIECE_SECONDS * (1 + index.size / PIECE),
        )
        return files.shards(Path(path), about.where)
