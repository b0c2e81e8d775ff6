"""The ledger: which units a store has recorded, each record folder read once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tracker.records import Recorded, RecordId, Stamp
from tracker.store.record_files import DamagedRecord, load_record


def record_folders(folder: Path) -> Iterator[Path]:
    """Yield the record folders below a store, in a fixed order."""
    yield from sorted(Path(folder).glob("checkpoints/*/*/seed-*/step-*.*"))


@dataclass(frozen=True, eq=False)
class Ledger(Mapping[RecordId, Recorded]):
    """The records of a store as they stood at one time, by suite, model, seed, step and key.

    >>> ledger = Ledger(Path("tracker-store")).refreshed()       # doctest: +SKIP
    >>> ledger = ledger.refreshed()                              # reads only what is new    # doctest: +SKIP
    """

    folder: Path
    """The store's folder."""
    entries: Mapping[Path, tuple[Stamp, Recorded | DamagedRecord]] = field(default_factory=dict)
    """By record folder, in a fixed order."""

    def refreshed(self) -> "Ledger":
        """Return the ledger as it stands now; only records that are new or were replaced are read."""
        entries: dict[Path, tuple[Stamp, Recorded | DamagedRecord]] = {}
        for place in record_folders(self.folder):
            try:
                state = place.stat()
            except OSError:
                continue
            stamp = (state.st_ino, state.st_mtime_ns)
            try:
                known = self.entries.get(place)
                entries[place] = known if known and known[0] == stamp else (stamp, load_record(place))
            except OSError:
                continue
            except DamagedRecord as error:
                entries[place] = (stamp, error)
        return Ledger(self.folder, entries)

    @property
    def places(self) -> list[tuple[Path, Recorded]]:
        """Every record with its folder."""
        return [(place, each) for place, (_, each) in self.entries.items() if isinstance(each, Recorded)]

    @property
    def damaged(self) -> list[DamagedRecord]:
        """The records that do not read back, which count as absent."""
        return [each for _, each in self.entries.values() if isinstance(each, DamagedRecord)]

    @cached_property
    def _by_id(self) -> dict[RecordId, Recorded]:
        return {record.id: record for _, record in self.places}

    def __getitem__(self, unit: RecordId) -> Recorded:
        return self._by_id[unit]

    def __iter__(self) -> Iterator[RecordId]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)
