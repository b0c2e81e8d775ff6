"""Reading a store: its tables as dataframes, of one probe and one set of conventions."""

import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from tracker.errors import RequestError, StoreError, counted, printable
from tracker.metrics.registry import BUILT_IN, Registry, read_descriptions, registry_of
from tracker.records import NO_PROBE, Recorded
from tracker.store.export import FILES, check_table, duckdb_views, library
from tracker.store.ledger import Ledger
from tracker.store.record_files import DamagedRecord, load_record, read_table
from tracker.store.schema import SCHEMAS
from tracker.store.unlike import find_unlike

SHOWN = 8
"""Models that a description names."""

AT_ONCE = 100
"""Files that one scan opens; the metadata of a full suite's tables takes half a gigabyte."""


@dataclass(frozen=True)
class Results:
    """The stored tables as polars dataframes, of one probe and one set of conventions."""

    folder: Path
    records: tuple[Path, ...]
    damaged: tuple[DamagedRecord, ...] = ()
    """Records that are left out: their files are not those that were written, or they are of another model
    than the others of their run (``UnlikeRecord``)."""

    @cached_property
    def registry(self) -> Registry:
        """Built-in metrics, and the custom ones of these records as this store describes them."""
        if not self.records:
            return BUILT_IN
        row = read_table(self.records[0], "checkpoint")
        described = read_descriptions(self.folder, {row["conventions"].item()})
        return registry_of(row.columns).with_custom(described)

    def _read(self, table: str, columns: list[str] | None) -> pl.DataFrame:
        paths = [place / f"{table}.parquet" for place in self.records]
        if not paths:
            frame = pl.DataFrame(schema=SCHEMAS[table])
            return frame if columns is None else frame.select(columns)
        # Records of earlier versions lack columns that came later; custom metrics stand in each of them.
        try:
            schema = SCHEMAS[table] | dict(read_table(self.records[0], table).schema)
            return pl.concat(
                _scan(paths[at : at + AT_ONCE], schema, columns).collect()
                for at in range(0, len(paths), AT_ONCE)
            )
        except (OSError, pl.exceptions.PolarsError):
            for place in self.records:  # damaged since the store was opened: the error must name it
                load_record(place)
            raise

    def heads(self, columns: list[str] | None = None) -> pl.DataFrame:
        """Return one row per checkpoint, layer and head.

        Means over sequences, ``<metric>_std``, and the shares of power in 16 bands (``spectrum``) and of
        energy by scale, coarsest first (``wavelet_energy``).
        """
        return self._read("heads", columns)

    def layers(self, columns: list[str] | None = None) -> pl.DataFrame:
        """Return one row per checkpoint and layer."""
        return self._read("layers", columns)

    def sequences(self, columns: list[str] | None = None) -> pl.DataFrame:
        """Return one row per checkpoint and sequence: means over heads, loss, in_context_score."""
        return self._read("sequences", columns)

    def checkpoints(self, columns: list[str] | None = None) -> pl.DataFrame:
        """Return one row per checkpoint, failed and missing ones included (``status``, ``reason``)."""
        return self._checkpoints if columns is None else self._read("checkpoint", columns)

    @cached_property
    def _checkpoints(self) -> pl.DataFrame:
        """The whole table, which every report and view of a store reads."""
        return self._read("checkpoint", None)

    def table(self, name: str) -> pl.DataFrame:
        """Return one of ``heads``, ``layers``, ``sequences``, ``checkpoints``.

        Raises:
            RequestError: an unknown table.
        """
        return self._read(FILES[check_table(name)], None)

    def to_pandas(self, name: str) -> Any:
        """Return a table as a pandas dataframe.

        Raises:
            RequestError: an unknown table, or pandas or pyarrow is not installed.
        """
        library("pandas")
        return self.to_arrow(name).to_pandas()

    def to_arrow(self, name: str) -> Any:
        """Return a table as a pyarrow table.

        Raises:
            RequestError: an unknown table, or pyarrow is not installed.
        """
        library("pyarrow")
        return self.table(name).to_arrow()

    def to_duckdb(self) -> Any:
        """Return a DuckDB connection with views ``heads``, ``layers``, ``sequences``, ``checkpoints``.

        Nothing is copied: the views read the store's parquet files.

        Raises:
            RequestError: duckdb is not installed.
        """
        return duckdb_views(self.records, {name: self.table(name).clear() for name in FILES})

    def __str__(self) -> str:
        """Return the store's folder and how much it holds."""
        status = self.checkpoints(["suite", "model", "seed", "status"])
        runs = status.select("suite", "model", "seed").n_unique() if status.height else 0
        holes = status.filter(pl.col("status") != "ok").height
        return (
            f"store {self.folder}: {status.height - holes} measured checkpoints of {runs} runs, "
            f"{holes} not measured" + (f", {len(self.damaged)} damaged" if self.damaged else "")
        )

    def __repr__(self) -> str:
        """Describe the store in a paragraph: what it holds, of which models, and how to read it."""
        try:
            table = self.checkpoints(["model", "seed", "step", "status", "probe", "conventions"])
        except StoreError as error:
            return f"store {self.folder}: {error}"
        measured = table.filter(status="ok")
        if measured.is_empty():
            return f"{self}; nothing to read yet"
        models = measured["model"].unique(maintain_order=True).to_list()
        more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
        return (
            f"{self}. {counted(len(models), 'model')} ({', '.join(models[:SHOWN])}{more}), "
            f"{counted(measured['seed'].n_unique(), 'seed')}, steps {measured['step'].min()} to "
            f"{measured['step'].max()}; probe {measured['probe'][0]}, conventions "
            f"{measured['conventions'][0]}. .heads(), .layers(), .sequences() and .checkpoints() are polars "
            "tables, .to_pandas('heads') is pandas."
        )

    def _repr_html_(self) -> str:
        """Show a sentence and one row per run in a notebook."""
        table = self.checkpoints(["suite", "model", "seed", "step", "status"])
        runs = table.filter(status="ok").group_by(["suite", "model", "seed"], maintain_order=True)
        summary = runs.agg(
            pl.len().alias("measured"), pl.min("step").alias("first_step"), pl.max("step").alias("last_step")
        )
        return f"<p>{escape(str(self))}</p>{summary._repr_html_()}"


def _scan(paths: list[Path], schema: dict[str, Any], columns: list[str] | None) -> pl.LazyFrame:
    lazy = pl.scan_parquet(paths, glob=False, schema=schema, missing_columns="insert", extra_columns="ignore")
    return lazy if columns is None else lazy.select(columns)


def require_store(folder: str | os.PathLike[str]) -> Path:
    """Return the folder of a store that exists.

    Raises:
        RequestError: it holds no measurements.
    """
    folder = Path(folder)
    if not (folder / "checkpoints").is_dir():
        raise RequestError(
            f"store={folder}: holds no measurements; create some with `tracker sweep store={folder}`"
        )
    return folder


def open_store(
    folder: str | os.PathLike[str],
    *,
    probe: str | None = None,
    conventions: str | None = None,
    suite: str | None = None,
    ledger: Ledger | None = None,
) -> Results:
    """Open a store for reading; warns of each record that is left out.

    Args:
        folder: the store's folder (``store=DIR``).
        probe: which probe's results, where the store holds several: a value of the column ``probe``.
        conventions: likewise for the column ``conventions``.
        suite: one suite alone; default all.
        ledger: of the same store, where it has been read before; only newer records are read then.

    Raises:
        RequestError: no store there, nothing of that choice in it, or it holds several
            probes or conventions and none was chosen.
        StoreError: one checkpoint is recorded twice from different places, or every record is damaged.
    """
    found = select_results(folder, probe=probe, conventions=conventions, suite=suite, ledger=ledger)
    for each in found.damaged:
        warnings.warn(printable(str(each)), stacklevel=2)
    return found


def select_results(
    folder: str | os.PathLike[str],
    *,
    probe: str | None = None,
    conventions: str | None = None,
    suite: str | None = None,
    ledger: Ledger | None = None,
) -> Results:
    """Open a store as ``open_store`` does; damaged records are named in the results alone."""
    folder = require_store(folder)
    ledger = (ledger or Ledger(folder)).refreshed()
    records = ledger.places
    damaged = tuple(each for each in ledger.damaged if suite in (None, each.as_hole()["suite"]))
    if damaged and not records:
        raise StoreError("; ".join(map(str, damaged)))
    for field, chosen in (("suite", suite), ("probe", probe), ("conventions", conventions)):
        if field == "probe" and probe is None:
            records = _with_attention(records)
        present = sorted({getattr(record, field) for _, record in records})
        if chosen is None and len(present) > 1 and field != "suite":
            several = {"probe": "probes"}.get(field, field)
            raise RequestError(
                f"store={folder}: holds results of several {several}, which are never mixed; choose one: "
                f"open_store(..., {field}=...) or view.{field}=... with " + ", ".join(present)
            )
        if chosen is not None and chosen not in present:
            raise RequestError(
                f"{field}={chosen}: not in store {folder}; choose from {', '.join(present) or 'nothing'}"
            )
        records = [(p, record) for p, record in records if chosen in (None, getattr(record, field))]
    unlike = find_unlike(records)
    apart = {each.place for each in unlike}
    kept = [(place, record) for place, record in records if place not in apart]
    return Results(folder, tuple(_one_each(kept)), (*damaged, *unlike))


def _with_attention(records: list[tuple[Path, Recorded]]) -> list[tuple[Path, Recorded]]:
    """Leave out what holds weights alone, unless there is nothing else."""
    return [each for each in records if each[1].probe != NO_PROBE.label] or records


def _one_each(records: list[tuple[Path, Recorded]]) -> list[Path]:
    """Choose one record per checkpoint: a measured one before a hole; two measured ones are an error."""
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
