"""The hub's cache on this machine: what is already there needs no request.

Its layout is documented: ``models--owner--name/{refs,snapshots,blobs}``. tracker writes ``refs/<revision>``
only after every file of that commit has been checked.
"""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from tracker.atomic import save_file
from tracker.checkpoints import files
from tracker.errors import CheckpointError
from tracker.records import Checkpoint, Fetched

COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(value: object) -> bool:
    """Return whether a value is the full name of a commit; nothing else becomes part of a path."""
    return isinstance(value, str) and COMMIT.fullmatch(value) is not None


def cache_folder(given: str | Path | None) -> Path:
    """Return the hub's cache: the folder given, else HF_HUB_CACHE, else ``hub`` in HF_HOME."""
    if given is not None:
        return Path(given).expanduser()
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache_home, "huggingface")
    return Path(home).expanduser() / "hub"


def repository(repo: str, cache: Path) -> Path:
    """Return the folder of a repository in a cache."""
    return cache / ("models--" + repo.replace("/", "--"))


def library_lock(repo: str, cache: Path, blob: str) -> Path:
    """Return the lock file that huggingface_hub holds while it fetches a blob."""
    return cache / ".locks" / repository(repo, cache).name / f"{blob}.lock"


def find(checkpoint: Checkpoint, cache: Path, names: Collection[str] | None = None) -> Fetched | None:
    """Find a checkpoint of which the cache has all files; makes no request.

    Args:
        checkpoint: looked up by its pinned commit, else by the commit last seen under its revision.
        cache: see ``cache_folder``.
        names: the files that it needs, where that is known; else what other programs noted, or left there.

    Returns:
        None where a file is missing or not whole.
    """
    commit = checkpoint.commit or noted(checkpoint.location, checkpoint.revision, cache)
    if commit is None or not is_commit(commit):
        return None
    snapshot = repository(checkpoint.location, cache) / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    if names is None:
        there = _names(checkpoint.location, commit, cache, snapshot)
        small, heavy = files.needed_in(checkpoint.subfolder, there)
        names = small + heavy
    if not all((snapshot / name).is_file() for name in names):
        return None
    try:
        folder = model_folder(replace(checkpoint, commit=commit), cache, names)
        files.whole(folder, checkpoint.label)
    except (CheckpointError, OSError):
        return None
    return Fetched(checkpoint, folder, commit)


def assembled(repo: str, commit: str, folder: str, cache: Path) -> Path:
    """Return where links are made to the files of a checkpoint in a folder, where some lie above it."""
    return cache / ".locks" / "tracker" / "folders" / repository(repo, cache).name / commit / folder


def model_folder(checkpoint: Checkpoint, cache: Path, names: Iterable[str]) -> Path:
    """Return the folder to load a checkpoint from; of files in several folders one is made of links to them.

    Args:
        checkpoint: pinned to its commit.
        cache: holds its files.
        names: of its files.
    """
    commit = str(checkpoint.commit)
    snapshot = repository(checkpoint.location, cache) / "snapshots" / commit
    wanted = {name.rpartition("/")[2]: snapshot / name for name in names}
    if {path.parent for path in wanted.values()} <= {snapshot / checkpoint.subfolder}:
        return snapshot / checkpoint.subfolder
    place = assembled(checkpoint.location, commit, checkpoint.subfolder, cache)
    place.mkdir(parents=True, exist_ok=True)
    for name, path in wanted.items():
        target = os.path.relpath(path, place)
        if not (place / name).is_symlink() or os.readlink(place / name) != target:
            (place / name).unlink(missing_ok=True)
            (place / name).symlink_to(target)
    return place


def noted(repo: str, revision: str, cache: Path) -> str | None:
    """Return the commit last seen under a revision; None where it was never fetched whole."""
    path = _reference(repo, revision, cache)
    commit = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return commit if is_commit(commit) else None


def note(repo: str, revision: str, commit: str, cache: Path) -> None:
    """Record that a revision's commit is in the cache, whole."""
    path = _reference(repo, revision, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(path, lambda new: new.write_text(commit, encoding="utf-8"))


def revisions(repo: str, cache: Path) -> dict[str, str]:
    """Return every revision of a repository that the cache knows, with its commit."""
    root = repository(repo, cache) / "refs"
    paths = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    names = sorted(path.relative_to(root).as_posix() for path in paths)
    commits = {name: noted(repo, name, cache) for name in names}
    return {name: commit for name, commit in commits.items() if commit is not None}


def check_revision(repo: str, revision: str) -> None:
    """Refuse a name that leads out of the cache.

    Raises:
        CheckpointError: it is no name of a branch.
    """
    lead = revision.startswith("/") or ".." in revision or "\\" in revision
    if not revision or lead or not revision.isprintable():
        raise CheckpointError(f"{repo}: {revision!r} is not a name that a Git branch can have; refused")


def _reference(repo: str, revision: str, cache: Path) -> Path:
    check_revision(repo, revision)
    return repository(repo, cache) / "refs" / revision


def _names(repo: str, commit: str, cache: Path, snapshot: Path) -> list[str]:
    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=commit, cache_dir=cache)]
    except CachedRepoTreeNotFoundError:
        # Another program fetched it file by file; then what lies there is all there is to go by.
        return [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if not path.is_dir()]
