"""What a publisher did, as numbers and as sentences for the user."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tracker.errors import counted


@dataclass(frozen=True)
class Published:
    """What one call of ``publish`` did."""

    folder: Path | None = None
    """The store's folder; None where nothing was to be sent."""
    rows: int = 0
    """Checkpoints sent by this call."""
    runs: int = 0
    """W&B runs that this call opened."""
    urls: tuple[str, ...] = ()
    """Addresses of the projects that the runs are in, where they went to a server."""
    failure: str | None = None
    """What W&B failed with, None where it did not; the rows are then on disk."""
    unconfirmed: int = 0
    """Checkpoints that a server may hold or not."""
    postponed: int = 0
    """Runs whose artifacts were too large to be sent at the end of a sweep."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Artifacts that the server did not take, and why."""
    unreadable: tuple[Path, ...] = ()
    """Record folders that do not read back."""
    rebuilt: tuple[Path, ...] = ()
    """Files on what was sent that were damaged or lost, and were made again from the runs' files."""

    @property
    def sentences(self) -> list[str]:
        """For the user: where the runs are, how to deliver them, or what went wrong."""
        if self.folder is None:
            return []
        stream = f"`tracker stream store={shlex.quote(str(self.folder))}`"
        found = self._delivery(self.folder / "wandb", stream)
        if self.unconfirmed:
            found.append(
                f"W&B: {counted(self.unconfirmed, 'checkpoint')}: delivery unconfirmed; run {stream}, "
                "which asks the server and sends what is missing."
            )
        if self.unreadable:
            names = ", ".join(map(str, self.unreadable[:3]))
            records = counted(len(self.unreadable), "record")
            found.append(f"W&B: {records} not sent, since the tables do not read back: {names}")
        found += [
            f"W&B: {path} was damaged or lost and is made again from its run's files; no row is doubled."
            for path in self.rebuilt
        ]
        if self.postponed:
            found.append(
                f"W&B: the records of {counted(self.postponed, 'run')} are too large to wait for; "
                f"run {stream} to send them as artifacts."
            )
        return found + [f"W&B: the artifact {name} was not sent: {why}" for name, why in self.refused.items()]

    def _delivery(self, folder: Path, stream: str) -> list[str]:
        runs = counted(self.runs, "run")
        sent = f"{counted(self.rows, 'checkpoint')} in {runs}" if self.rows else f"findings of {runs}"
        sync = f"wandb sync {shlex.quote(str(folder))}"
        if self.failure is not None:
            return [
                f"W&B failed ({self.failure}); nothing is lost: {sent} saved in {folder}.",
                f"Once W&B answers, {stream} sends what is missing; or deliver the files that were written "
                f"offline with `{sync}`.",
            ]
        if not self.runs:
            return ["W&B: nothing new to send."]
        if self.urls:
            return [f"W&B: {sent} at {', '.join(self.urls)}"]
        return [f"W&B: {sent}, offline; to send: wandb login && {sync}"]
