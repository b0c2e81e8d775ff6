"""What the hub answers: files, commits, revisions, as records."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from tracker.checkpoints import files
from tracker.errors import CheckpointError
from tracker.records import Checkpoint

MAIN = "main"
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_hash(value: str) -> bool:
    """Return whether a value is a hash as the hub gives them: Git's, or a SHA-256."""
    return _HASH.fullmatch(value) is not None


def is_plain(name: object) -> bool:
    """Return whether a name that the hub gives leads to a place below whatever folder it is joined to."""
    if not isinstance(name, str) or "\\" in name or not name.isprintable():
        return False
    return not {"", ".", ".."} & {*name.split("/")}


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
    def digest(self) -> str:
        """Identifies the content; empty where the hub gives no hash."""
        return self.sha256 or self.blob_id or ""

    def checked(self) -> "RemoteFile":
        """Return this file, whose fields a hub may have filled with anything.

        Raises:
            TypeError: one is not of its type.
        """
        texts = (each is None or isinstance(each, str) for each in (self.sha256, self.blob_id))
        if not isinstance(self.name, str) or type(self.size) is not int or self.size < 0 or not all(texts):
            raise TypeError(f"{self!r:.200}")
        return self

    @property
    def is_hashed(self) -> bool:
        """Whether the digest is a hash that the content can be compared with."""
        return is_hash(self.digest)


class Inspected(NamedTuple):
    """The hub's answer about one revision; unpacks as ``commit, files``."""

    commit: str
    files: tuple[RemoteFile, ...]
    """Those that measuring needs."""

    @property
    def size(self) -> int:
        """Bytes of all files needed, as if none were in the cache."""
        return sum(file.size for file in self.files)


class Tree(NamedTuple):
    """All files of one commit, weights or not."""

    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def subfolders(self) -> dict[str, str]:
        """Its folders with weights, as revisions of the branch ``main`` with its commit."""
        held = files.folders_with_weights([file.name for file in self.files])
        return {f"{MAIN}:{folder}": self.commit for folder in held}

    def below(self, folder: str) -> tuple[RemoteFile, ...]:
        """The files of one folder, named relative to it."""
        prefix = f"{folder}/" if folder else ""
        inside = (file for file in self.files if file.name.startswith(prefix))
        return tuple(replace(file, name=file.name.removeprefix(prefix)) for file in inside)


class Listed(NamedTuple):
    """The hub's answers about some checkpoints, asked for before any is fetched."""

    inspected: Mapping[Checkpoint, Inspected | CheckpointError]
    """Every checkpoint asked about: its commit and files, or why it cannot be fetched."""
    files: Mapping[Checkpoint, Tree]
    """Of those that exist."""
    main: Mapping[str, Tree]
    """Of each repository's branch ``main``."""
    branches: Mapping[str, dict[str, str]]
    """Every repository's branches with their commits."""


class Revisions(NamedTuple):
    """Branches and tags of a repository, each with its commit."""

    branches: dict[str, str]
    tags: dict[str, str]

    @property
    def both(self) -> dict[str, str]:
        """All of them; of one name the branch, as the hub itself resolves it."""
        return self.tags | self.branches
