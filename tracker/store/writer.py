"""Writing records: one folder of four small parquet tables per measured checkpoint.

``DIR/checkpoints/<suite>/<model>/seed-<seed>/step-<step>.<key>/{heads,layers,sequences,checkpoint}.parquet``
with their ``SHA256SUMS`` is written under a temporary name and moved into place, so a record is there whole
or not at all. W&B, dashboard, figures and phases are views of it and can be made again at any time.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tracker.atomic import exchange
from tracker.errors import StoreError
from tracker.metrics.registry import write_descriptions
from tracker.records import Measurement, PlannedUnit, Recorded, Status, Unit
from tracker.store.heartbeat import has_ended, name_of_process
from tracker.store.ledger import Ledger
from tracker.store.record_files import read_record, write_files
from tracker.store.schema import TABLES, conform, safe_name

PARTIAL_SECONDS = 3600.0
"""Age from which a half-written folder is left over from a killed process of another machine."""


@dataclass(frozen=True)
class Store:
    """Writes records and reads the ledger. Making one touches nothing; the first write makes folders."""

    folder: Path
    inode: int | None = None
    """Of the folder as a sweep found it: nothing is written where it was deleted or moved since."""

    def require_same(self) -> None:
        """Check that the folder is still the one that the sweep began with.

        Raises:
            StoreError: it is gone, or another stands at its place.
        """
        try:
            gone = self.inode is not None and self.folder.stat().st_ino != self.inode
        except OSError:
            gone = True
        if gone:
            raise StoreError(f"store={self.folder}: was deleted or moved")

    @property
    def checkpoints(self) -> Path:
        """The folder of all records."""
        return self.folder / "checkpoints"

    def place(self, unit: Unit) -> Path:
        """Return the folder of a unit's record."""
        checkpoint = unit.checkpoint
        seed = f"seed-{checkpoint.seed}"
        step = f"step-{checkpoint.step}.{unit.key}"
        return self.checkpoints / safe_name(checkpoint.suite) / safe_name(checkpoint.model) / seed / step

    def place_of(self, record: Recorded) -> Path:
        """Return the folder of a record."""
        model = self.checkpoints / safe_name(record.suite) / safe_name(record.model)
        return model / f"seed-{record.seed}" / f"step-{record.step}.{record.key}"

    def write(self, unit: Unit, measurement: Measurement, *, replace: bool = False) -> bool:
        """Record a measurement, whole or not at all.

        Args:
            unit: what was measured.
            measurement: its four tables; columns of ``SCHEMAS`` that they lack become null.
            replace: replace a record with status ok, which is kept otherwise.

        Returns:
            Whether this record now stands; False if another worker's ok record stood first.

        Raises:
            StoreError: the folder cannot be written, with the system's reason.
        """
        own = unit.conventions.metrics
        tables = {table: conform(table, getattr(measurement, table), own) for table in TABLES}
        with self._errors_named(unit.checkpoint.label, self.place(unit)):
            if own:
                self._require()
                write_descriptions(self.folder, unit.conventions.label, own)
            return self._put(self.place(unit), tables, replace)

    def rewrite(self, record: Recorded, measurement: Measurement) -> None:
        """Replace a record by one that holds more; its tables are stored as they are.

        Raises:
            StoreError: the folder cannot be written, with the system's reason.
        """
        label = f"{record.model} seed {record.seed} step {record.step}"
        with self._errors_named(label, self.place_of(record)):
            tables = {table: getattr(measurement, table) for table in TABLES}
            self._put(self.place_of(record), tables, replace=True)

    def _require(self) -> None:
        """Refuse a store that was deleted or moved; make the folder of one that is new."""
        if self.inode is not None:
            self.require_same()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)

    def _put(self, place: Path, tables: dict[str, pl.DataFrame], replace: bool) -> bool:
        """Write tables under another name and move them into place; whether they now stand there."""
        partial = self._new_partial()
        try:
            self._require()
            partial.parent.mkdir(exist_ok=True)
            partial.mkdir()
            write_files(partial, tables)
            stands = self._move(partial, place, replace)
            _settle(place.parent)
            return stands
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @contextlib.contextmanager
    def _errors_named(self, label: str, place: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"cannot write {label} to {place}: {error}; free or change store=DIR, "
                "then run the same command again"
            ) from error

    def write_hole(self, unit: Unit, status: Status, reason: str) -> None:
        """Record that a unit failed or does not exist, and why; an ok record is kept."""
        checkpoint = unit.checkpoint
        row = unit.identity(status) | {
            "key": unit.key,
            "repo": checkpoint.location,
            "revision": checkpoint.revision,
            "commit": checkpoint.commit,
            "tokens_seen": checkpoint.tokens_seen,
            "dtype": unit.dtype,
            "reason": reason,
        }
        empty = pl.DataFrame()
        self.write(unit, Measurement(empty, empty, empty, pl.DataFrame([row])))

    def _new_partial(self) -> Path:
        """Return a folder to write into, whose name says which process does."""
        return self.folder / ".partial" / f"{name_of_process()}.{uuid.uuid4().hex}"

    def _move(self, partial: Path, place: Path, replace: bool) -> bool:
        place.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(8):
            if _moved(partial, place):
                return True
            if _is_ok(place) and not replace:
                return False
            try:
                if exchange(partial, place):
                    if replace or not _is_ok(partial):
                        return True
                    exchange(partial, place)  # a result that arrived meanwhile
                    return False
            except FileNotFoundError:
                continue
            retired = self._new_partial()  # a kill here leaves it to ``sweep_partial``
            try:
                place.rename(retired)
            except FileNotFoundError:
                continue
            try:
                if (replace or not _is_ok(retired)) and _moved(partial, place):
                    return True
            finally:
                with contextlib.suppress(OSError):  # a record that stands there now refuses it
                    retired.rename(place)
                shutil.rmtree(retired, ignore_errors=True)
        raise OSError(f"{place} is replaced by other workers again and again")

    def recorded(self) -> Ledger:
        """Read the ledger: every record that reads back; a folder that does not counts as absent."""
        return Ledger(self.folder).refreshed()

    def recorded_since(self, planned: PlannedUnit) -> Recorded | None:
        """Read the record of a pending unit if it is not the one that its plan was made by."""
        found = read_record(self.place(planned.unit))
        return None if found is None or found.stamp == planned.seen else found

    def sweep_partial(self) -> None:
        """Remove what killed processes left half-written: at once, or of other machines after an hour.

        A whole result among it, written or being replaced when its process was killed, goes to its place.

        Raises:
            OSError: the store cannot be written.
        """
        left = [path for path in (self.folder / ".partial").glob("*") if path.is_dir()]
        now = self._now() if left else 0.0
        for path in left:
            with contextlib.suppress(FileNotFoundError):
                age = abs(now - path.stat().st_mtime)  # a copied store may be stamped in the future
                if has_ended(path.name.partition(".")[0]) or age > PARTIAL_SECONDS:
                    self._put_back(path)
                    shutil.rmtree(path, ignore_errors=True)

    def _put_back(self, left: Path) -> None:
        record = read_record(left)
        if record is not None and record.status == "ok" and not _is_ok(place := self.place_of(record)):
            with contextlib.suppress(OSError):
                self._move(left, place, replace=False)

    def _now(self) -> float:
        """Return the time by the file server's clock."""
        probe = self.folder / ".partial" / f".{name_of_process()}.now"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink(missing_ok=True)
        return now


def _moved(partial: Path, place: Path) -> bool:
    """Move a folder; False if another stands at its place."""
    try:
        partial.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        if not place.exists():
            raise
        return not partial.exists()  # a server that lost its first answer says that there is nothing to move
    return True


def _is_ok(place: Path) -> bool:
    record = read_record(place)
    return record is not None and record.status == "ok"


def _settle(folder: Path) -> None:
    """Flush a folder to disk, so that what was moved into it outlasts a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems flush files alone
            raise
    finally:
        os.close(descriptor)
