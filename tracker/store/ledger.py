"""The ledger: which units a store has recorded, each record folder read once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from tracker.records import Recorded, RecordId
from tracker.store.schema import TABLES

Stamp = tuple[int, int]
"""Inode and time of change of a record folder: another record has another."""
COLUMNS = [
    *("key", "status", "reason", "commit", "seconds", "token_digest", "suite", "model", "seed", "step"),
    *("probe", "conventions", "repo", "dtype", "n_layers", "n_heads", "d_model"),
]


def record_folders(folder: Path) -> Iterator[Path]:
    """Yield the record folders below a store, in a fixed order."""
    yield from sorted(Path(folder).glob("checkpoints/*/*/seed-*/step-*.*"))


def read_record(place: Path) -> Recorded | None:
    """Read the ledger's line of one record folder; None if any of its tables does not read back."""
    try:
        for table in TABLES[:-1]:
            pl.read_parquet_schema(place / f"{table}.parquet")
        row = pl.read_parquet(place / "checkpoint.parquet", columns=COLUMNS).row(0, named=True)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return Recorded(**row)


@dataclass(frozen=True, eq=False)
class Ledger(Mapping[RecordId, Recorded]):
    """The records of a store as they stood at one time, by suite, model, seed, step and key.

    >>> ledger = Ledger(Path("tracker-store")).refreshed()       # doctest: +SKIP
    >>> ledger = ledger.refreshed()                              # reads only what is new    # doctest: +SKIP
    """

    folder: Path
    """The store's folder."""
    entries: Mapping[Path, tuple[Stamp, Recorded]] = field(default_factory=dict)
    """By record folder, in a fixed order; one that does not read back is left out."""

    @property
    def latest(self) -> float:
        """When the newest of the records was stored, by the file server's clock; 0 where there is none."""
        return max((changed for (_, changed), _ in self.entries.values()), default=0) / 1e9

    def refreshed(self) -> "Ledger":
        """Return the ledger as it stands now; only records that are new or were replaced are read."""
        entries: dict[Path, tuple[Stamp, Recorded]] = {}
        for place in record_folders(self.folder):
            try:
                state = place.stat()
            except OSError:
                continue
            stamp = (state.st_ino, state.st_mtime_ns)
            known = self.entries.get(place)
            if known is not None and known[0] == stamp:
                entries[place] = known
            elif (record := read_record(place)) is not None:
                entries[place] = (stamp, record)
        return Ledger(self.folder, entries)

    @property
    def places(self) -> list[tuple[Path, Recorded]]:
        """Every record with its folder."""
        return [(place, record) for place, (_, record) in self.entries.items()]

    @cached_property
    def _by_id(self) -> dict[RecordId, Recorded]:
        return {record.id: record for _, record in self.entries.values()}

    def __getitem__(self, unit: RecordId) -> Recorded:
        return self._by_id[unit]

    def __iter__(self) -> Iterator[RecordId]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)
