"""The files of one record: four parquet tables, and ``SHA256SUMS`` by which damage to them shows.

The sums are as ``sha256sum`` writes them, so ``sha256sum -c SHA256SUMS`` checks a record without tracker.
Records of earlier versions have none: their tables are decoded instead, and compared with each other.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import polars as pl

from tracker.errors import INTERRUPTIONS, StoreError
from tracker.records import Recorded, Stamp
from tracker.store.schema import IDENTITY, OPTION_SCHEMAS, SCHEMAS, TABLES, safe_name

SUMS = "SHA256SUMS"
TRIES = 8
"""How often a record is read that others replace at the same moment."""
AT_ONCE = 100
"""Records decoded together."""
COLUMNS = [
    *("key", "status", "reason", "commit", "seconds", "token_digest", "suite", "model", "seed", "step"),
    *("probe", "conventions", "repo", "dtype", "n_layers", "n_heads", "d_model"),
]


class DamagedRecord(StoreError):
    """A record whose files are not those that were written; names its folder and what is wrong."""

    def __init__(self, place: Path, why: str) -> None:
        super().__init__(place, why)
        self.place, self.why = place, why

    def __str__(self) -> str:
        return f"{self.place}: {self.why}; left out; `tracker sweep` measures it again"

    def as_hole(self) -> dict[str, object]:
        """Return suite, model, seed and step by the folder's name, with status ``damaged`` and the reason."""
        suite, model, seed, step = self.place.parts[-4:]
        return {
            "suite": unquote(suite),
            "model": unquote(model),
            "seed": _number(seed.removeprefix("seed-")),
            "step": _number(step.removeprefix("step-").partition(".")[0]),
            "status": "damaged",
            "reason": self.why,
        }


def write_files(folder: Path, tables: Mapping[str, pl.DataFrame]) -> None:
    """Write a record's tables and their sums into a folder, flushed to disk; the sums come first.

    Raises:
        OSError: the folder cannot be written.
    """
    contents = {}
    for table, frame in tables.items():
        whole = io.BytesIO()  # polars reports a full disk as a broken file
        frame.write_parquet(whole)
        contents[f"{table}.parquet"] = whole.getvalue()
    sums = "".join(f"{_sum(content)}  {name}\n" for name, content in contents.items())
    for name, content in {SUMS: sums.encode(), **contents}.items():
        with open(folder / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def load_record(place: Path) -> Recorded:
    """Read the ledger's line of a record, with every table of it checked.

    Raises:
        FileNotFoundError: there is no such folder.
        DamagedRecord: its files are not those that were written.
    """
    for _ in range(TRIES):
        stamp = stamp_of(place)
        try:
            return _checked(place, stamp)
        except DamagedRecord:
            if stamp_of(place)[0] == stamp[0]:  # otherwise it was replaced while it was read
                raise
    raise DamagedRecord(place, "is replaced again and again while it is read")


def load_records(places: Sequence[Path]) -> Iterator[Recorded | DamagedRecord | None]:
    """Yield ``load_record`` of each place in order; None where there is none, damage as what it is.

    Whole records are decoded many at a time, which takes a third of the time.
    """
    for at in range(0, len(places), AT_ONCE):
        yield from _loaded_together(places[at : at + AT_ONCE])


def _loaded_together(places: Sequence[Path]) -> Iterator[Recorded | DamagedRecord | None]:
    try:
        stamps = [stamp_of(place) for place in places]
        whole = [_contents(place) for place in places]
        if any(sums is None for _, sums in whole):
            raise ValueError("records of earlier versions are compared table by table")
        files: list[IO[bytes]] = [io.BytesIO(contents["checkpoint"]) for contents, _ in whole]
        # Columns of options stand in some records only.
        rows = pl.scan_parquet(files, extra_columns="ignore").select(COLUMNS).collect().rows(named=True)
        known = [
            row | _options(contents["checkpoint"]) for row, (contents, _) in zip(rows, whole, strict=True)
        ]
        found = [_recorded(*each) for each in zip(places, known, stamps, strict=True)]
    except INTERRUPTIONS:
        raise
    except BaseException:  # whichever it is, it is found among them one by one
        yield from map(_loaded, places)
    else:
        yield from found


def _loaded(place: Path) -> Recorded | DamagedRecord | None:
    try:
        return load_record(place)
    except OSError:
        return None
    except DamagedRecord as error:
        return error


def read_record(place: Path) -> Recorded | None:
    """Return ``load_record``; None where there is none, or it is damaged."""
    try:
        return load_record(place)
    except (OSError, DamagedRecord):
        return None


def read_table(place: Path, table: str, columns: list[str] | None = None) -> pl.DataFrame:
    """Read one table of a record.

    Args:
        place: the record's folder; no character of its name is taken for a pattern.
        table: one of ``TABLES``.
        columns: None: all.

    Raises:
        OSError: it is gone or cannot be read.
        DamagedRecord: it does not decode.
    """
    return _decoded(place, table, (place / f"{table}.parquet").read_bytes(), columns)


def stamp_of(place: Path) -> Stamp:
    """Return what changes when a record is replaced.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    state = place.stat()
    return state.st_ino, state.st_mtime_ns


def _checked(place: Path, stamp: Stamp) -> Recorded:
    contents, sums = _contents(place)
    row = _decoded(place, "checkpoint", contents["checkpoint"], COLUMNS)
    if row.height != 1:
        raise DamagedRecord(place, f"checkpoint.parquet has {row.height} rows for 1")
    known = row.row(0, named=True) | _options(contents["checkpoint"])
    record = _recorded(place, known, stamp)
    if sums is None:
        _compare(place, contents, row)
    return record


def _contents(place: Path) -> tuple[dict[str, bytes], dict[str, str] | None]:
    """Read the tables of a record as bytes, and the sums that they were checked against."""
    contents = {table: _bytes(place, table) for table in TABLES}
    sums = _sums(place)
    for table, content in contents.items():
        if sums is not None and _sum(content) != sums.get(f"{table}.parquet"):
            raise DamagedRecord(place, f"{table}.parquet is not what was written (see {SUMS})")
    return contents, sums


def _recorded(place: Path, row: dict[str, Any], stamp: Stamp) -> Recorded:
    try:
        record = Recorded(**row, stamp=stamp)
        inside = Path(safe_name(record.suite), safe_name(record.model), f"seed-{record.seed}")
    except TypeError as error:
        raise DamagedRecord(place, f"checkpoint.parquet: {error}") from error
    named = (inside / f"step-{record.step}.{record.key}").parts
    if place.parts[-5:-4] == ("checkpoints",) and named != place.parts[-4:]:
        raise DamagedRecord(place, "checkpoint.parquet is of another checkpoint than its folder's name says")
    return record


def _options(checkpoint: bytes) -> dict[str, frozenset[str]]:
    """``options`` of a record: those whose metrics are in its checkpoint table."""
    present = pl.read_parquet_schema(io.BytesIO(checkpoint)).keys()
    known = (name for name, each in OPTION_SCHEMAS.items() if each["checkpoint"].keys() <= present)
    return {"options": frozenset(known)}


def _number(text: str) -> int:
    """Read a number of a folder's name; -1 where somebody gave the folder another name."""
    return int(text) if text.isdecimal() else -1


def _bytes(place: Path, table: str) -> bytes:
    try:
        return (place / f"{table}.parquet").read_bytes()
    except OSError as error:
        raise DamagedRecord(place, f"{table}.parquet: {error.strerror}") from error


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sums(place: Path) -> dict[str, str] | None:
    """Read the sums by file name; None for a record of an earlier version, which has none."""
    try:
        lines = (place / SUMS).read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedRecord(place, f"{SUMS}: {error.strerror}") from error
    return {name: value for value, _, name in (line.partition("  ") for line in lines)}


def _decoded(place: Path, table: str, content: bytes, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(content), columns=columns)
    except INTERRUPTIONS:
        raise
    except BaseException as error:  # the decoder panics on some damage, which is no Exception
        why = " ".join(str(error).split())[:200]
        raise DamagedRecord(place, f"{table}.parquet does not decode ({why})") from error


def _compare(place: Path, contents: Mapping[str, bytes], row: pl.DataFrame) -> None:
    """Check the tables of a record without sums: types, and that all are of the same checkpoint."""
    for table, content in contents.items():
        frame = _decoded(place, table, content)
        schema = SCHEMAS[table]
        odd = [name for name, kind in frame.schema.items() if schema.get(name, kind) != kind]
        absent = [name for name in IDENTITY if name not in frame.columns]
        if odd or absent:
            raise DamagedRecord(place, f"{table}.parquet has no valid column {(odd + absent)[0]}")
        for name in IDENTITY:
            if (
                name in row.columns
                and not frame[name].is_null().any()
                and (frame[name] != row[name].item()).any()
            ):
                raise DamagedRecord(place, f"{table}.parquet is of another {name} than checkpoint.parquet")
