"""The records of a store as the publisher sees them: which are new, and which belong to one run."""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tracker.records import Recorded, digest
from tracker.store import DamagedRecord, load_record, record_folders
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.rows import row_name

LONGEST_ARTIFACT_NAME = 128


@dataclass(frozen=True)
class StoredRecord:
    """A record and the folder that holds it."""

    folder: Path
    record: Recorded
    row: str
    """Name of the row that it sends; empty for a checkpoint that is not measured, which sends none."""


@dataclass(frozen=True)
class RunFiles:
    """The record folders of one run, for a versioned artifact that can be put together again."""

    name: str
    """The artifact's name."""
    digest: str
    """The same as long as the records are the same."""
    folders: tuple[tuple[Path, str], ...]
    """Each record's folder, and its place below the store: all artifacts of a project, fetched into one
    folder, are a store again."""

    def count_bytes(self) -> int:
        """Sum the sizes of all files; a record that is being replaced just now counts nothing."""
        total = 0
        for folder, _ in self.folders:
            for file in folder.glob("*"):
                with contextlib.suppress(OSError):
                    total += file.stat().st_size
        return total


class StoredRecords:
    """Every record of a store by run, whichever process or machine put it there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self.by_run: dict[RunIdentity, dict[str, StoredRecord]] = {}
        """Records by key; one that was measured again replaces the earlier one."""
        self.damaged: set[Path] = set()
        """Record folders whose files are not those that were written, until they are replaced."""

    def poll(self) -> set[RunIdentity]:
        """Take in what was stored since the last call, and return the runs that it belongs to.

        A folder that cannot be read is left for a later call.
        """
        changed = set()
        for folder in record_folders(self._folder):
            try:
                state = folder.stat()
                stamp = (state.st_ino, state.st_mtime_ns)
                if self._seen.get(folder) == stamp:
                    continue
                self._seen[folder] = stamp
                record = load_record(folder)
                row = row_name(folder) if record.status == "ok" else ""
            except OSError:
                self.forget(folder)
                continue
            except DamagedRecord:
                self.damaged.add(folder)
                continue
            self.damaged.discard(folder)
            identity = RunIdentity.of(record)
            self.by_run.setdefault(identity, {})[record.key] = StoredRecord(folder, record, row)
            changed.add(identity)
        return changed

    def forget(self, folder: Path) -> None:
        """Make the next poll look at this folder again."""
        self._seen.pop(folder, None)

    def measured(self, identity: RunIdentity, *, without: Collection[str] = ()) -> list[StoredRecord]:
        """The measured checkpoints of a run in step order.

        Args:
            identity: the run.
            without: names of rows to leave out.
        """
        found = [each for each in self.by_run[identity].values() if each.row and each.row not in without]
        return sorted(found, key=lambda each: each.record.step)

    def holes(self, identity: RunIdentity) -> list[Recorded]:
        """The checkpoints of a run that are not measured, in step order."""
        found = [each.record for each in self.by_run[identity].values() if not each.row]
        return sorted(found, key=lambda record: record.step)

    def files(self, identity: RunIdentity) -> RunFiles:
        """The record folders of a run, those of failed and missing checkpoints included."""
        ordered = sorted(self.by_run[identity].values(), key=lambda each: (each.record.step, each.record.key))
        content = [(each.record.key, each.row, each.record.status, each.record.reason) for each in ordered]
        places = tuple((each.folder, each.folder.relative_to(self._folder).as_posix()) for each in ordered)
        return RunFiles(artifact_name(identity), digest(content, 16), places)


def artifact_name(identity: RunIdentity) -> str:
    """Return a name that W&B accepts (letters, digits, ``-``, ``_``, ``.``), unique by the run's id."""
    plain = f"{identity.suite}-{identity.model}-seed-{identity.seed}"
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in plain)
    return f"{kept[: LONGEST_ARTIFACT_NAME - 17]}-{identity.id}"
