"""Notices new records in a store's folder, whichever process or machine put them there."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tracker.records import Recorded
from tracker.store import read_record, record_folders
from tracker.wandb_sink.rows import row_name


@dataclass(frozen=True)
class Arrival:
    """A record of the store and the folder that holds it."""

    place: Path
    record: Recorded
    row: str
    """Name of the row that it sends; empty for a hole, which sends none."""
    stored_at: float
    """When it was stored, in seconds since 1970 by the clock of whoever keeps the folder."""

    @property
    def step(self) -> int:
        """The checkpoint's step."""
        return self.record.step


class Arrivals:
    """Remembers which record folders were seen; a folder that was replaced counts as new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[int, int]] = {}

    def poll(self) -> list[Arrival]:
        """The records that arrived since the last call, in step order; empty where there are none.

        A folder that does not read back is left for a later call: it is looked at again when it changes.
        """
        arrived = []
        for place in record_folders(self._folder):
            try:
                state = place.stat()
            except OSError:
                continue
            stamp = (state.st_ino, state.st_mtime_ns)
            if self._seen.get(place) == stamp:
                continue
            self._seen[place] = stamp
            try:
                record = read_record(place)
                if record is not None:
                    row = row_name(place) if record.status == "ok" else ""
                    arrived.append(Arrival(place, record, row, state.st_mtime))
            except (OSError, pl.exceptions.PolarsError):
                self.forget(place)
        return sorted(arrived, key=lambda arrival: arrival.step)

    def forget(self, place: Path) -> None:
        """Makes the next poll look at this folder again."""
        self._seen.pop(place, None)
