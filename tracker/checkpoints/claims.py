"""Who holds which checkpoint in a cache that several processes share, and what of it tracker brought in.

A claim is a small JSON file, written before the first byte arrives; it says which blobs were not there
before. A lease is a shared lock of the system on a file beside it, held as long as somebody fetches or
measures the checkpoint: it ends with its process, however that ends. Both lie in ``.locks/tracker`` of the
cache, where Hugging Face's own tools do not look. Everything here happens under one lock of the folder.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tracker.atomic import save_json
from tracker.checkpoints import cached
from tracker.checkpoints.download import PARTIAL
from tracker.checkpoints.listing import RemoteFile

BLOCK = 4096
"""Bytes in which file systems hand out space."""
OVERHEAD = 8 * BLOCK
"""Folders, links and the claim itself, generously."""


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

    @property
    def id(self) -> str:
        """Name of its files."""
        return f"{self.repo.replace('/', '--')}.{self.commit}"


class Claims:
    """The claims of one cache folder."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.folder = cache / ".locks" / "tracker"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else changes a claim for the length of the block."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a", encoding="utf-8") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            yield

    def all(self) -> list[Claim]:
        """Every claim; one that does not read back counts as not there."""
        return [claim for path in sorted(self.folder.glob("*.json")) if (claim := _read(path)) is not None]

    def of(self, repo: str, commit: str) -> Claim | None:
        """The claim on one commit."""
        path = self.folder / f"{repo.replace('/', '--')}.{commit}.json"
        return _read(path) if path.is_file() else None

    def write(self, claim: Claim) -> None:
        """Writes a claim, whole or not at all."""
        save_json(self.folder / f"{claim.id}.json", asdict(claim))

    def made(self, repo: str, revision: str, commit: str, files: tuple[RemoteFile, ...], keep: bool) -> Claim:
        """A claim on a commit as things stand: the one there is, else a new one, not written yet."""
        standing = self.of(repo, commit)
        if standing is not None:
            kept = standing.keep and (standing.whole or self.is_leased(standing))
            return replace(standing, keep=keep or kept)
        root = cached.repository(repo, self.cache)
        brought = {piece.blob for other in self._others(repo, commit) for piece in other.pieces if piece.ours}
        pieces = []
        for file in files:
            blob = file.digest or f"unnamed-{commit}-{file.name}"
            ours = blob in brought or not (root / "blobs" / blob).exists()
            linked = not (root / "snapshots" / commit / file.name).exists()
            pieces.append(Piece(file.name, blob, file.size, ours, linked))
        return Claim(repo, revision, commit, tuple(pieces), keep)

    def lease(self, claim: Claim) -> int:
        """Takes a share in a claim's lock; the descriptor is closed to give it back."""
        descriptor = os.open(self._lease(claim), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return descriptor

    def is_leased(self, claim: Claim) -> bool:
        """Whether anybody, this process included, holds a share."""
        descriptor = os.open(self._lease(claim), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def bytes_held(self, besides: Claim | None = None) -> int:
        """Bytes on disk, now or soon, of everything that tracker is to remove again.

        Args:
            besides: counted too; a blob that several claims share counts once.
        """
        claims = [claim for claim in self.all() if not claim.keep]
        if besides is not None and not besides.keep:
            claims = [claim for claim in claims if claim.id != besides.id] + [besides]
        blobs = {
            (claim.repo, piece.blob): on_disk(piece.size)
            for claim in claims
            for piece in claim.pieces
            if piece.ours
        }
        return sum(blobs.values()) + OVERHEAD * len(claims)

    def bytes_lacking(self, claim: Claim) -> int:
        """Bytes of a claim that are not on this disk yet."""
        blobs = cached.repository(claim.repo, self.cache) / "blobs"
        return sum(on_disk(piece.size) - _there(blobs / piece.blob) for piece in claim.pieces)

    def remove(self, claim: Claim) -> None:
        """Removes from disk what tracker brought in for a claim and nobody else needs, and the claim."""
        root = cached.repository(claim.repo, self.cache)
        snapshot = root / "snapshots" / claim.commit
        for piece in claim.pieces:
            if piece.linked:
                (snapshot / piece.name).unlink(missing_ok=True)
        wanted = {piece.blob for other in self._others(claim.repo, claim.commit) for piece in other.pieces}
        linked = _linked(root)
        for piece in claim.pieces:
            if piece.ours and piece.blob not in wanted:
                (root / "blobs" / (piece.blob + PARTIAL)).unlink(missing_ok=True)
                if piece.blob not in linked:
                    (root / "blobs" / piece.blob).unlink(missing_ok=True)
        _remove_empty(snapshot)
        if not snapshot.exists() and cached.noted(claim.repo, claim.revision, self.cache) == claim.commit:
            (root / "refs" / claim.revision).unlink(missing_ok=True)
        (self.folder / f"{claim.id}.json").unlink(missing_ok=True)
        self._lease(claim).unlink(missing_ok=True)
        if not self._others(claim.repo, claim.commit):
            _remove_empty_below(root)

    def drop_parts(self, claim: Claim) -> None:
        """Removes what a killed download of a claim left half-written."""
        blobs = cached.repository(claim.repo, self.cache) / "blobs"
        for piece in claim.pieces:
            (blobs / (piece.blob + PARTIAL)).unlink(missing_ok=True)

    def _others(self, repo: str, commit: str) -> list[Claim]:
        return [claim for claim in self.all() if claim.repo == repo and claim.commit != commit]

    def _lease(self, claim: Claim) -> Path:
        return self.folder / f"{claim.id}.lease"


def on_disk(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes."""
    return -(-size // BLOCK) * BLOCK


def _there(blob: Path) -> int:
    for path in (blob, blob.with_name(blob.name + PARTIAL)):
        try:
            return on_disk(path.stat().st_size)
        except FileNotFoundError:
            continue
    return 0


def _linked(root: Path) -> set[str]:
    """Names of the blobs that any snapshot links to."""
    files = (root / "snapshots").glob("*/**/*")
    return {os.path.basename(os.readlink(file)) for file in files if file.is_symlink()}


def _remove_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _remove_empty_below(root: Path) -> None:
    """Removes a repository's folders that hold nothing any more."""
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        _remove_empty(folder)
    _remove_empty(root)


def _read(path: Path) -> Claim | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Claim(**fields | {"pieces": tuple(Piece(**piece) for piece in fields["pieces"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
