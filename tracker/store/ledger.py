"""The ledger: which units a store has recorded, each record folder read once."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tracker.records import Recorded, RecordId, Stamp
from tracker.store.record_files import DamagedRecord, load_records, stamp_of


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
        stamps: dict[Path, Stamp] = {}
        for place in record_folders(self.folder):
            with suppress(OSError):
                stamps[place] = stamp_of(place)
        new = [place for place, stamp in stamps.items() if self.entries.get(place, (None,))[0] != stamp]
        loaded = dict(zip(new, load_records(new), strict=True))
        entries: dict[Path, tuple[Stamp, Recorded | DamagedRecord]] = {}
        for place, stamp in stamps.items():
            found = loaded[place] if place in loaded else self.entries[place][1]
            if found is not None:
                entries[place] = (stamp, found)
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
