"""Who holds which checkpoint in a cache that several processes share, and what of it tracker brought in.

A claim is a small JSON file, written before the first byte arrives; it says which blobs were not there
before. Each holder has a lease, a lock file of its own beside the claim: it ends with its process, however
that ends. Both lie in ``.locks/tracker`` of the cache, where Hugging Face's own tools do not look. Everything
here happens under one lock of the folder.
"""

import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from tracker.atomic import locked, read_json, save_json
from tracker.checkpoints import cached, parts
from tracker.checkpoints.download import remove_partial
from tracker.checkpoints.remote import RemoteFile, is_plain
from tracker.records import digest

BLOCK = 4096
"""Bytes in which file systems hand out space."""
OVERHEAD = 8 * BLOCK
"""Folders, links, locks and the claim itself, generously."""


@dataclass(frozen=True)
class Piece:
    """One file of a claimed checkpoint."""

    name: str
    blob: str
    size: int
    ours: bool
    """Whether tracker brought the blob in; if not, it is never removed."""
    linked: bool
    """Whether tracker made its link in the snapshot; likewise."""


@dataclass(frozen=True)
class Claim:
    """One checkpoint that tracker fetches, or has fetched."""

    repo: str
    revision: str
    commit: str
    pieces: tuple[Piece, ...]
    keep: bool
    """Fetched to stay; else it is removed when nobody needs it any more."""
    whole: bool = False
    """Every piece has arrived and been checked."""
    part: bool = False
    """Of a part of the weights, which lies apart from what Hugging Face's tools look at."""
    folder: str = ""
    """The folder of the commit that it is of; empty: the whole commit."""

    @property
    def id(self) -> str:
        """Name of its files."""
        return claim_id(self.repo, self.commit, self.part, self.folder)


class Claims:
    """The claims of one cache folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = cache / ".locks" / "tracker"

    def alone(self) -> AbstractContextManager[None]:
        """Keep everybody else from changing a claim for the length of a block."""
        return locked(self.folder / "lock")

    def all(self) -> list[Claim]:
        """Return every claim; one that does not read back counts as not there."""
        return [claim for path in sorted(self.folder.glob("*.json")) if (claim := _read(path)) is not None]

    def of(self, id: str) -> Claim | None:
        """Return the claim of an id, see ``claim_id``."""
        return _read(self.folder / f"{id}.json")

    def _assembled(self, claim: Claim) -> Path:
        return cached.assembled(claim.repo, claim.commit, claim.folder, self.root(claim))

    def root(self, claim: Claim) -> Path:
        """Return the cache that a claim's files lie in."""
        return parts.root(self.cache) if claim.part else self.cache

    def _repository(self, claim: Claim) -> Path:
        return cached.repository(claim.repo, self.root(claim))

    def write(self, claim: Claim) -> None:
        """Write a claim, whole or not at all."""
        save_json(self.folder / f"{claim.id}.json", asdict(claim))

    def made(self, new: Claim, files: Iterable[RemoteFile]) -> Claim:
        """Return the claim there is on a commit, else ``new`` with its pieces as things stand, unwritten.

        Args:
            new: without pieces.
            files: those that the checkpoint needs; each with a digest, which names its blob.
        """
        standing = self.of(new.id)
        if standing is not None:
            kept = standing.keep and (standing.whole or self.is_leased(standing))
            return replace(standing, keep=new.keep or kept)
        root = self._repository(new)
        others = self._others(new)
        brought = {piece.blob for other in others for piece in other.pieces if piece.ours}
        made = {piece.name for other in _of_commit(others, new) for piece in other.pieces if piece.linked}
        pieces = []
        for file in files:
            blob = str(file.digest)
            ours = blob in brought or not (root / "blobs" / blob).exists()
            there = (root / "snapshots" / new.commit / file.name).exists()
            linked = not there or file.name in made
            pieces.append(Piece(file.name, blob, file.size, ours, linked))
        return replace(new, pieces=tuple(pieces))

    def lease(self, claim: Claim) -> FileLock:
        """Hold a claim; the lock is released to give it back."""
        lease = FileLock(self.folder / f"{claim.id}.{uuid.uuid4().hex[:8]}.lease", thread_local=False)
        lease.acquire()
        return lease

    def is_leased(self, claim: Claim) -> bool:
        """Return whether anybody, this process included, holds a claim, or is still fetching files of it."""
        for path in self.folder.glob(f"{claim.id}.*.lease"):
            if _is_locked(path):
                return True
            path.unlink()  # its holder has died
        return not claim.whole and any(_is_locked(self.blob_lock(piece.blob)) for piece in claim.pieces)

    def bytes_held(self, besides: Claim) -> int:
        """Return the bytes on disk, now or soon, of everything that tracker is to remove again.

        Args:
            besides: counted too; a blob that several claims share counts once.
        """
        claims = [claim for claim in self.all() if not claim.keep and claim.id != besides.id]
        claims += [] if besides.keep else [besides]
        blobs = {
            (claim.repo, claim.part, piece.blob): on_disk(piece.size)
            for claim in claims
            for piece in claim.pieces
            if piece.ours
        }
        return sum(blobs.values()) + OVERHEAD * len(claims)

    def bytes_lacking(self, claim: Claim) -> int:
        """Return the bytes of a claim that are not on this disk yet."""
        blobs = self._repository(claim) / "blobs"
        return sum(on_disk(piece.size) - _there(blobs, piece.blob) for piece in claim.pieces)

    def blob_lock(self, blob: str) -> Path:
        """Return the lock file of whoever fetches and checks a blob."""
        return self.folder / f"{blob}.lock"

    def remove(self, claim: Claim) -> None:
        """Remove from disk what tracker brought in for a claim and nobody else needs, and the claim."""
        root, cache = self._repository(claim), self.root(claim)
        snapshot = root / "snapshots" / claim.commit
        others = self._others(claim)
        used = {piece.name for other in _of_commit(others, claim) for piece in other.pieces}
        for piece in claim.pieces:
            if piece.linked and piece.name not in used:
                (snapshot / piece.name).unlink(missing_ok=True)
        if claim.folder:
            shutil.rmtree(self._assembled(claim), ignore_errors=True)
        wanted = {piece.blob for other in others for piece in other.pieces}
        linked = _linked(root)
        for piece in claim.pieces:
            if piece.ours and piece.blob not in wanted:
                remove_partial(claim.repo, cache, piece.blob)
                if piece.blob not in linked:
                    (root / "blobs" / piece.blob).unlink(missing_ok=True)
                    cached.library_lock(claim.repo, cache, piece.blob).unlink(missing_ok=True)
                self.blob_lock(piece.blob).unlink(missing_ok=True)
        _remove_empty_below(snapshot)
        if (claim.folder or not snapshot.exists()) and cached.noted(
            claim.repo, claim.revision, cache
        ) == claim.commit:
            (root / "refs" / claim.revision).unlink(missing_ok=True)
        (self.folder / f"{claim.id}.json").unlink(missing_ok=True)
        if not others:
            _remove_empty_below(root)
            _remove_empty(cache / ".locks" / root.name)

    def _others(self, claim: Claim) -> list[Claim]:
        """Those whose files may be the same."""
        there = [other for other in self.all() if (other.repo, other.part) == (claim.repo, claim.part)]
        return [other for other in there if other.id != claim.id]


def claim_id(repo: str, commit: str, part: bool = False, folder: str = "") -> str:
    """Return the name of a claim's files: of a commit, of a folder in it, or of parts of their weights."""
    inside = f".{digest(folder)}" if folder else ""
    return f"{repo.replace('/', '--')}.{commit}{inside}{'.part' if part else ''}"


def _of_commit(others: Iterable[Claim], claim: Claim) -> list[Claim]:
    return [other for other in others if other.commit == claim.commit]


def on_disk(size: int) -> int:
    """Return the bytes that a file of ``size`` bytes takes."""
    return -(-size // BLOCK) * BLOCK


def _is_locked(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0) if path.is_file() else nullcontext():
            return False
    except Timeout:
        return True


def _there(blobs: Path, blob: str) -> int:
    sizes = [0]
    for path in (blobs / blob, *blobs.glob(f"{blob}.*.incomplete")):
        with suppress(FileNotFoundError):
            sizes.append(on_disk(path.stat().st_size))
    return max(sizes)


def _linked(root: Path) -> set[str]:
    """Names of the blobs that any snapshot links to."""
    files = (root / "snapshots").glob("*/**/*")
    return {os.path.basename(os.readlink(file)) for file in files if file.is_symlink()}


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_empty_below(root: Path) -> None:
    """Remove a repository's folders that hold nothing any more."""
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        _remove_empty(folder)
    _remove_empty(root)


def _read(path: Path) -> Claim | None:
    try:
        fields = read_json(path)
        claim = Claim(**fields | {"pieces": tuple(Piece(**piece) for piece in fields["pieces"])})
        inside = all(is_plain(piece.name) and is_plain(piece.blob) for piece in claim.pieces)
        return claim if cached.is_commit(claim.commit) and inside else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
