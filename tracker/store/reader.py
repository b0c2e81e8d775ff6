"""The store: one folder of small typed tables per measured checkpoint, and the ledger of what is done.

``DIR/checkpoints/<suite>/<model>/seed-<seed>/step-<step>.<key>/{heads,layers,sequences,checkpoint}.parquet``
is written under a temporary name and moved into place, so a record is there whole or not at all. Wandb,
dashboard, figures and phases are views of it and can be made again at any time.
"""

import contextlib
import errno
import io
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl

from tracker.errors import RequestError, StoreError
from tracker.metrics.extension import own_columns, read_descriptions, write_descriptions
from tracker.metrics.registry import checkpoint_columns, head_columns, layer_columns, sequence_columns
from tracker.records import Measurement, Recorded, RecordId, Status, Unit
from tracker.store.export import FILES, check_table, duckdb_views, library

TABLES = ("heads", "layers", "sequences", "checkpoint")
SPECTRUM_BANDS = 16
STALE_SECONDS = 3600.0
"""Age from which a half-written folder is known to be nobody's any more."""

IDENTITY: dict[str, pl.DataType] = {
    "suite": pl.String(),
    "model": pl.String(),
    "seed": pl.Int64(),
    "step": pl.Int64(),
    "probe": pl.String(),
    "conventions": pl.String(),
    "status": pl.String(),
}


def _floats(columns: list[str], *suffixes: str) -> dict[str, pl.DataType]:
    return {column + suffix: pl.Float64() for column in columns for suffix in ("", *suffixes)}


SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "heads": {
        **IDENTITY,
        "layer": pl.Int64(),
        "head": pl.Int64(),
        **_floats(head_columns(own=False), "_std"),
        "spectrum": pl.List(pl.Float64()),
        "wavelet_energy": pl.List(pl.Float64()),
    },
    "layers": {**IDENTITY, "layer": pl.Int64(), **_floats(layer_columns())},
    "sequences": {**IDENTITY, "sequence": pl.Int64(), **_floats(sequence_columns(own=False))},
    "checkpoint": {
        **IDENTITY,
        "key": pl.String(),
        "tokens_seen": pl.Int64(),
        "repo": pl.String(),
        "revision": pl.String(),
        "commit": pl.String(),
        "params_total": pl.Int64(),
        "params_non_embedding": pl.Int64(),
        "n_layers": pl.Int64(),
        "n_heads": pl.Int64(),
        "d_model": pl.Int64(),
        "d_head": pl.Int64(),
        "rotary_dims": pl.Int64(),
        "position_encoding": pl.String(),
        "causal": pl.Boolean(),
        "dtype": pl.String(),
        "device": pl.String(),
        "n_sequences": pl.Int64(),
        "n_tokens": pl.Int64(),
        "local_span": pl.Int64(),
        "prefix_block": pl.Int64(),
        "token_digest": pl.String(),
        "tracker_version": pl.String(),
        "seconds": pl.Float64(),
        "peak_bytes": pl.Int64(),
        "reason": pl.String(),
        "undefined_rows": pl.Int64(),
        **_floats(checkpoint_columns(own=False), "_std", "_q25", "_q75"),
    },
}
"""The typed columns of every table; a metric that does not exist for a checkpoint is null."""


OWN_SUFFIXES = {"heads": ("_std",), "sequences": (), "checkpoint": ("_std", "_q25", "_q75")}
"""Beside the value, what each table holds of a metric of a user's own."""


def schema_of(table: str, metrics: Iterable[str] = ()) -> dict[str, pl.DataType]:
    """The typed columns of a table: ``SCHEMAS[table]``, and those of own metrics that conventions name."""
    if not metrics or table not in OWN_SUFFIXES:
        return SCHEMAS[table]
    return SCHEMAS[table] | _floats(own_columns(metrics), *OWN_SUFFIXES[table])


def conform(table: str, frame: pl.DataFrame, metrics: Iterable[str] = ()) -> pl.DataFrame:
    """``frame`` with exactly the columns and types of ``schema_of``; absent ones are null, NaN too.

    Args:
        table: heads, layers, sequences or checkpoint.
        frame: what was measured.
        metrics: own metrics, as ``Conventions.metrics`` names them.

    Raises:
        StoreError: the frame has a column that the table does not know.
    """
    schema = schema_of(table, metrics)
    unknown = set(frame.columns) - set(schema)
    if unknown:
        raise StoreError(f"table {table} has no column {', '.join(sorted(unknown))}")
    if frame.is_empty():
        return pl.DataFrame(schema=schema)
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    ]
    return frame.select(columns).with_columns(pl.selectors.float().fill_nan(None))


def safe_name(name: str) -> str:
    """``name`` as one folder name: no separator, no ``=``, never ``..``; readable where it can be."""
    quoted = quote(name, safe=" +,@")
    return quoted.replace(".", "%2E") if set(quoted) <= {"."} else quoted


@dataclass(frozen=True)
class Store:
    """Writes records and keeps the ledger. Making one touches nothing; the first write makes folders."""

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Where the records lie."""
        return self.folder / "checkpoints"

    def place(self, unit: Unit) -> Path:
        """The folder of a unit's record."""
        checkpoint = unit.checkpoint
        seed = f"seed-{checkpoint.seed}"
        step = f"step-{checkpoint.step}.{unit.key}"
        return self.checkpoints / safe_name(checkpoint.suite) / safe_name(checkpoint.model) / seed / step

    def write(self, unit: Unit, measurement: Measurement, *, replace: bool = False) -> bool:
        """Records a measurement; whole or not at all.

        Args:
            unit: what was measured.
            measurement: its four tables; columns of ``SCHEMAS`` that they lack become null.
            replace: put it in place of a record with status ok, which otherwise stays.

        Returns:
            Whether this record now stands; False where another worker's ok record stood first.

        Raises:
            StoreError: the folder cannot be written, with the system's reason.
        """
        place, own = self.place(unit), unit.conventions.metrics
        partial = self.folder / ".partial" / f"{place.name}.{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            if own:
                write_descriptions(self.folder, unit.conventions.label, own)
            for table in TABLES:
                whole = io.BytesIO()  # polars tells of a full disk as of a broken file
                conform(table, getattr(measurement, table), own).write_parquet(whole)
                with open(partial / f"{table}.parquet", "wb") as file:
                    file.write(whole.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
            stands = self._move(partial, place, replace)
            _settle(place.parent)
            return stands
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StoreError(
                f"cannot write {unit.checkpoint.label} to {place}: {error}; free or change store=DIR, "
                "then run the same command again"
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def write_hole(self, unit: Unit, status: Status, reason: str) -> None:
        """Records that a unit failed or does not exist, and why; never in place of an ok record."""
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

    def _move(self, partial: Path, place: Path, replace: bool) -> bool:
        place.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(8):
            if _moved(partial, place):
                return True
            if _is_ok(place) and not replace:
                return False
            retired = partial.with_name(f"retired.{uuid.uuid4().hex}")
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
        raise OSError(f"{place} is being rewritten by other workers without end")

    def recorded(self) -> dict[RecordId, Recorded]:
        """Every record that reads back; a folder that does not counts as not there."""
        found: dict[RecordId, Recorded] = {}
        for place in record_folders(self.folder):
            record = read_record(place)
            if record is not None:
                found[record.id] = record
        return found

    def sweep_partial(self) -> None:
        """Removes half-written folders that a killed worker left behind more than an hour ago."""
        for path in (self.folder / ".partial").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


def _moved(partial: Path, place: Path) -> bool:
    """Moves a folder; False where another stands at its place."""
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
    """Makes what was moved into a folder outlast a loss of power: its checkpoint may be removed next."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems flush files alone
            raise
    finally:
        os.close(descriptor)


def record_folders(folder: Path) -> Iterator[Path]:
    """The record folders below a store, in a fixed order."""
    yield from sorted(Path(folder).glob("checkpoints/*/*/seed-*/step-*.*"))


def read_record(place: Path) -> Recorded | None:
    """The ledger's line for one record folder; None where any of its tables does not read back."""
    columns = ["key", "status", "reason", "commit", "seconds", "token_digest"]
    columns += ["suite", "model", "seed", "step", "probe", "conventions", "repo", "dtype"]
    try:
        for table in TABLES[:-1]:
            pl.read_parquet_schema(place / f"{table}.parquet")
        row = pl.read_parquet(place / "checkpoint.parquet", columns=columns).row(0, named=True)
    except (OSError, pl.exceptions.PolarsError):
        return None
    return Recorded(**row)


@dataclass(frozen=True)
class Results:
    """The stored tables as polars dataframes, of one probe and one set of conventions."""

    folder: Path
    records: tuple[Path, ...]

    def _read(self, table: str, columns: list[str] | None) -> pl.DataFrame:
        paths = [place / f"{table}.parquet" for place in self.records]
        if not paths:
            frame = pl.DataFrame(schema=SCHEMAS[table])
            return frame if columns is None else frame.select(columns)
        # Records of earlier versions lack columns that came later; own metrics are columns of every record.
        schema = SCHEMAS[table] | dict(pl.read_parquet_schema(paths[0]))
        lazy = pl.scan_parquet(
            paths, glob=False, schema=schema, missing_columns="insert", extra_columns="ignore"
        )
        return (lazy if columns is None else lazy.select(columns)).collect()

    def heads(self, columns: list[str] | None = None) -> pl.DataFrame:
        """One row per checkpoint, layer and head: means over sequences, ``<metric>_std``, and how power and
        energy of its rows divide: ``spectrum`` among 16 bands, ``wavelet_energy`` among scales, coarsest
        first."""
        return self._read("heads", columns)

    def layers(self, columns: list[str] | None = None) -> pl.DataFrame:
        """One row per checkpoint and layer."""
        return self._read("layers", columns)

    def sequences(self, columns: list[str] | None = None) -> pl.DataFrame:
        """One row per checkpoint and sequence: means over heads, loss, in_context_score."""
        return self._read("sequences", columns)

    def checkpoints(self, columns: list[str] | None = None) -> pl.DataFrame:
        """One row per checkpoint, failed and missing ones included (``status``, ``reason``)."""
        return self._read("checkpoint", columns)

    def table(self, name: str) -> pl.DataFrame:
        """One of ``heads``, ``layers``, ``sequences``, ``checkpoints``.

        Raises:
            RequestError: there is no such table.
        """
        return self._read(FILES[check_table(name)], None)

    def to_pandas(self, name: str) -> Any:
        """A table as a pandas dataframe.

        Raises:
            RequestError: no such table, or pandas or pyarrow is not installed.
        """
        library("pandas")
        return self.to_arrow(name).to_pandas()

    def to_arrow(self, name: str) -> Any:
        """A table as a pyarrow table.

        Raises:
            RequestError: no such table, or pyarrow is not installed.
        """
        library("pyarrow")
        return self.table(name).to_arrow()

    def to_duckdb(self) -> Any:
        """A DuckDB connection with views ``heads``, ``layers``, ``sequences``, ``checkpoints``.

        Nothing is copied: the views read the store's parquet files.

        Raises:
            RequestError: duckdb is not installed.
        """
        return duckdb_views(self.records, {name: self.table(name).clear() for name in FILES})

    def __str__(self) -> str:
        """Which store it is, and how much is in it."""
        status = self.checkpoints(["suite", "model", "seed", "status"])
        runs = status.select("suite", "model", "seed").n_unique() if status.height else 0
        holes = status.filter(pl.col("status") != "ok").height
        return (
            f"store {self.folder}: {status.height - holes} measured checkpoints of {runs} runs, "
            f"{holes} without a measurement"
        )

    def _repr_html_(self) -> str:
        """For notebooks: a sentence, and one row per run."""
        table = self.checkpoints(["suite", "model", "seed", "step", "status"])
        runs = table.filter(status="ok").group_by(["suite", "model", "seed"], maintain_order=True)
        summary = runs.agg(
            pl.len().alias("measured"), pl.min("step").alias("first_step"), pl.max("step").alias("last_step")
        )
        return f"<p>{escape(str(self))}</p>{summary._repr_html_()}"


def require_store(folder: str | os.PathLike[str]) -> Path:
    """The folder of a store that is there.

    Raises:
        RequestError: it holds no measurements.
    """
    folder = Path(folder)
    if not (folder / "checkpoints").is_dir():
        raise RequestError(
            f"store={folder}: holds no measurements; `tracker sweep store={folder}` makes them"
        )
    return folder


def open_store(
    folder: str | os.PathLike[str],
    *,
    probe: str | None = None,
    conventions: str | None = None,
    suite: str | None = None,
) -> Results:
    """Opens a store for reading.

    Args:
        folder: the store's folder (``store=DIR``).
        probe: which probe's results, where the store holds several: a value of the column ``probe``.
        conventions: likewise for the column ``conventions``.
        suite: one suite alone; default all.

    Raises:
        RequestError: there is no store there, it holds nothing of that choice, or it holds several
            probes or conventions and none was chosen.
        StoreError: one checkpoint is recorded twice from different places.
    """
    folder = require_store(folder)
    records = [(place, record) for place in record_folders(folder) if (record := read_record(place))]
    for field, chosen in (("suite", suite), ("probe", probe), ("conventions", conventions)):
        present = sorted({getattr(record, field) for _, record in records})
        if chosen is None and len(present) > 1 and field != "suite":
            raise RequestError(
                f"store={folder}: holds results of several {field}, which are never mixed; choose one: "
                f"open_store(..., {field}=...) or view.{field}=... with " + ", ".join(present)
            )
        if chosen is not None and chosen not in present:
            there = ", ".join(present) or "nothing"
            raise RequestError(f"{field}={chosen}: not in {folder}; there: {there}")
        records = [(p, record) for p, record in records if chosen in (None, getattr(record, field))]
    read_descriptions(folder, {record.conventions for _, record in records})
    return Results(folder, tuple(_one_each(records)))


def _one_each(records: list[tuple[Path, Recorded]]) -> list[Path]:
    """One record per checkpoint: a measured one before a hole; two measured ones are an error."""
    chosen: dict[tuple[object, ...], tuple[Path, Recorded]] = {}
    for place, record in records:
        name = (record.suite, record.model, record.seed, record.step)
        _, other = chosen.get(name, (None, None))
        if other is not None and other.status == record.status == "ok":
            raise StoreError(
                f"{record.model} seed {record.seed} step {record.step} of suite {record.suite} is recorded "
                f"twice: from {other.repo} ({other.dtype}) and {record.repo} ({record.dtype}); measure one "
                "of them under another suite.model or into another store="
            )
        if other is None or other.status != "ok":
            chosen[name] = (place, record)
    return [place for place, _ in chosen.values()]
