"""A run's part of the store as files, for a versioned artifact that can be put together again."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tracker.records import digest
from tracker.wandb_sink.arrivals import Arrival
from tracker.wandb_sink.identity import RunIdentity

TYPE = "tracker-store"
LONGEST = 128


@dataclass(frozen=True)
class StoredRun:
    """The record folders of one run, holes included."""

    name: str
    """The artifact's name."""
    digest: str
    """The same as long as the records are the same."""
    folders: tuple[tuple[Path, str], ...]
    """Each record's folder, and its place below the store: all artifacts of a project, fetched into one
    folder, are a store again."""

    def bytes(self) -> int:
        """Size of all its files; a record that is being replaced just now counts nothing."""
        sizes = 0
        for place, _ in self.folders:
            for file in place.glob("*"):
                with contextlib.suppress(OSError):
                    sizes += file.stat().st_size
        return sizes


def stored_run(folder: Path, identity: RunIdentity, arrivals: Iterable[Arrival]) -> StoredRun:
    """The records of one run.

    Args:
        folder: the store's folder.
        identity: the run.
        arrivals: its records.
    """
    ordered = sorted(arrivals, key=lambda arrival: (arrival.step, arrival.record.key))
    content = [(each.record.key, each.row, each.record.status, each.record.reason) for each in ordered]
    places = tuple((each.place, each.place.relative_to(folder).as_posix()) for each in ordered)
    return StoredRun(artifact_name(identity), digest(content, 16), places)


def artifact_name(identity: RunIdentity) -> str:
    """A name that W&B takes: letters, digits, ``-``, ``_`` and ``.``; unique by the run's id."""
    plain = f"{identity.suite}-{identity.model}-seed-{identity.seed}"
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in plain)
    return f"{kept[: LONGEST - 17]}-{identity.id}"
