"""The hub's cache on this machine: what is already there needs no request.

Its layout is documented: ``models--owner--name/{refs,snapshots,blobs}``. tracker writes ``refs/<revision>``
only after every file of that commit has been checked, so a commit found there is whole.
"""

import hashlib
import os
import re
import uuid
from pathlib import Path

from huggingface_hub import get_cached_repo_tree
from huggingface_hub.errors import CachedRepoTreeNotFoundError

from tracker.checkpoints import weights
from tracker.errors import CheckpointError
from tracker.records import Checkpoint, Fetched

COMMIT = re.compile(r"[0-9a-f]{40}")


def cache_folder(given: str | Path | None) -> Path:
    """The hub's cache: the folder given, else HF_HUB_CACHE, else ``hub`` in HF_HOME."""
    if given is not None:
        return Path(given).expanduser()
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"]).expanduser()
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(cache_home, "huggingface")
    return Path(home).expanduser() / "hub"


def find(checkpoint: Checkpoint, cache: Path) -> Fetched | None:
    """The checkpoint, where the cache has all of its files; asks nobody.

    Args:
        checkpoint: looked up by its pinned commit, else by the commit last seen under its revision.
        cache: see ``cache_folder``.

    Returns:
        None where a file is missing or not whole.
    """
    commit = checkpoint.commit or noted(checkpoint.location, checkpoint.revision, cache)
    if commit is None:
        return None
    snapshot = _repository(checkpoint.location, cache) / "snapshots" / commit
    if not snapshot.is_dir():
        return None
    small, heavy = weights.needed(_names(checkpoint.location, commit, cache, snapshot))
    if not all((snapshot / name).is_file() for name in small + heavy):
        return None
    try:
        weights.whole(snapshot, checkpoint.label)
    except (CheckpointError, OSError):
        return None
    return Fetched(checkpoint, snapshot, commit)


def noted(repo: str, revision: str, cache: Path) -> str | None:
    """The commit last seen under a revision; None where it was never fetched whole."""
    path = _reference(repo, revision, cache)
    commit = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return commit if COMMIT.fullmatch(commit) else None


def note(repo: str, revision: str, commit: str, cache: Path) -> None:
    """Writes down that a revision's commit is in the cache, whole."""
    path = _reference(repo, revision, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.write_text(commit, encoding="utf-8")
    os.replace(temporary, path)


def revisions(repo: str, cache: Path) -> dict[str, str]:
    """Every revision of a repository that the cache knows, with its commit."""
    root = _repository(repo, cache) / "refs"
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")]
    names = sorted(path.relative_to(root).as_posix() for path in files)
    commits = {name: noted(repo, name, cache) for name in names}
    return {name: commit for name, commit in commits.items() if commit is not None}


def verify(path: Path, *, sha256: str | None, blob_id: str | None, who: str) -> None:
    """Compares a downloaded file with the hash that the hub gave for it; a false one is removed.

    Args:
        path: in a snapshot of the cache.
        sha256: of the content, for large files (Git LFS).
        blob_id: Git's SHA-1, for the others.
        who: named in the message.

    Raises:
        CheckpointError: the content is not what the hub announced.
    """
    size = path.stat().st_size
    sums = hashlib.sha256() if sha256 else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sums.update(chunk)
    expected = sha256 or blob_id
    if expected is None or sums.hexdigest() == expected:
        return
    # Blobs are named by what they should be: left there, the next fetch would take this one for good.
    blob = path.parent / os.readlink(path) if path.is_symlink() else path
    blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise CheckpointError(
        f"{who}: {path.name} arrived altered (its hash starts {sums.hexdigest()[:12]}, announced was "
        f"{expected[:12]}); it was removed from the cache, run the same command again"
    )


def _repository(repo: str, cache: Path) -> Path:
    return cache / ("models--" + repo.replace("/", "--"))


def _reference(repo: str, revision: str, cache: Path) -> Path:
    if not revision or revision.startswith("/") or ".." in revision or "\\" in revision:
        raise CheckpointError(f"{repo}: {revision!r} is not a name that a Git branch can have; refused")
    return _repository(repo, cache) / "refs" / revision


def _names(repo: str, commit: str, cache: Path, snapshot: Path) -> list[str]:
    try:
        return [file.path for file in get_cached_repo_tree(repo, revision=commit, cache_dir=cache)]
    except CachedRepoTreeNotFoundError:
        # Another program fetched it file by file; then what lies there is all there is to go by.
        return [path.name for path in snapshot.iterdir()]
