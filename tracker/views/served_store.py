"""A store as a served dashboard sees it: its newest state, and any map or spectrum on demand."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tracker.atomic import read_json
from tracker.errors import INTERRUPTIONS, RequestError, StoreError, TrackerError, unknown_value
from tracker.metrics.registry import head_columns, is_custom
from tracker.store import Results, record_folders
from tracker.store.progress import Watch
from tracker.views.data import dashboard_data
from tracker.views.encode import rounded_list
from tracker.views.head_maps import HeadRows, pack_map, pack_shares, scale_of
from tracker.views.runs import RUN, Run, records_of, runs_of

SHARES = ("spectrum", "wavelet_energy")
LEAST_PAUSE = 0.7
"""Seconds between two looks at the store; a store that takes long to read is read less often."""
SHARE_OF_TIME = 0.2
"""At most this share of one processor goes into reading a store that changes all the time."""
MOST_COLUMNS = 3
"""Metrics of all heads that are kept in memory."""


@dataclass(frozen=True)
class Snapshot:
    """One state of the store and everything that was read of it."""

    version: str
    results: Results
    runs: dict[str, Run]
    data: dict[str, Any]
    read_at: float
    columns: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Metrics of all heads that were asked for, newest last."""

    def run(self, key: str) -> Run:
        """One run.

        Raises:
            RequestError: the store has none of this key.
        """
        if key not in self.runs:
            raise RequestError(f"run={key}: not in this store")
        return self.runs[key]


class ServedStore:
    """Reads a store again whenever it has changed; safe to ask from several threads.

    Args:
        folder: the store's folder; it need not be there yet.
        choose: opens the part of it that is shown.
    """

    def __init__(self, folder: Path, choose: Callable[[], Results]) -> None:
        self.folder = folder
        self._choose = choose
        self._watch = Watch(folder)
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._snapshot = self._read("", Results(folder, ()), None)

    def refresh(self) -> None:
        """Read the store if it has changed since the last call; keep the last state where that fails."""
        stamp = _stamp(self.folder)
        if stamp == self._snapshot.version:
            return
        try:
            there = (self.folder / "checkpoints").is_dir()
            results = self._choose() if there else Results(self.folder, ())
            self._snapshot, self._problem = self._read(stamp, results, self._analysis()), None
        except INTERRUPTIONS:
            raise
        except BaseException as error:  # a decoder's panic is no Exception
            # Whatever a store may hold, the page must learn of it and the follower live on.
            reason = str(error) if isinstance(error, TrackerError | ValueError) else repr(error)
            self._problem = f"Could not read the store, showing its last state: {reason}"

    def follow(self, stop: threading.Event) -> None:
        """Refresh until ``stop`` is set."""
        while True:
            begun = time.monotonic()
            self.refresh()
            took = time.monotonic() - begun
            if stop.wait(max(LEAST_PAUSE, took / SHARE_OF_TIME)):
                return

    def _read(self, version: str, results: Results, analysis: dict[str, Any] | None) -> Snapshot:
        runs = runs_of(results)
        data = dashboard_data(results, analysis, served=True, runs=runs)
        data |= {"version": version, "stale": self._is_stale(results)}
        return Snapshot(version, results, {run.key: run for run in runs}, data, time.monotonic())

    def _analysis(self) -> dict[str, Any] | None:
        try:
            found = read_json(self.folder / "analysis.json")
        except FileNotFoundError:
            return None
        if not isinstance(found, dict):
            raise StoreError(f"{self.folder / 'analysis.json'} is no report; run tracker analyse")
        return found

    def _is_stale(self, results: Results) -> bool:
        """Whether a record is newer than the analysis."""
        try:
            analysed = (self.folder / "analysis.json").stat().st_mtime
            return any(place.stat().st_mtime > analysed for place in results.records)
        except OSError:
            return False

    def data(self) -> dict[str, Any]:
        """Return the newest ``dashboard_data``, its ``version``, and whether the analysis is ``stale``."""
        return self._snapshot.data

    def progress(self) -> dict[str, Any]:
        """Return version, measured checkpoints, seconds since they were read, problem, and every sweep."""
        snapshot = self._snapshot
        return {
            "version": snapshot.version,
            "measured": snapshot.data["counts"]["checkpoints"],
            "age": time.monotonic() - snapshot.read_at,
            "problem": self._problem,
            "sweeps": self._watch.look(),
        }

    def head_map(self, run: str, metric: str) -> dict[str, Any]:
        """Return one metric of every head of a run: ``packed`` (T, layers, heads), ``scale``, ``version``.

        Raises:
            RequestError: no such run, or no such metric of heads.
        """
        snapshot = self._snapshot
        chosen = snapshot.run(run)
        present = is_custom(metric) and metric in chosen.series
        if metric not in head_columns(own=False) and not present:
            raise RequestError(f"metric={metric}: no metric of heads")
        frame = self._column(snapshot, metric)
        if frame[metric].null_count() == frame.height:
            return {"version": snapshot.version, "packed": None, "scale": None}
        mine = frame.filter(suite=chosen.suite, model=chosen.model, seed=chosen.seed)
        scale = scale_of(frame[metric].drop_nulls().to_numpy())
        packed = pack_map(HeadRows.of(chosen, mine), metric, scale)
        return {"version": snapshot.version, "packed": packed, "scale": scale}

    def shares(
        self, run: str, of: str = "spectrum", layer: int | None = None, head: int | None = None
    ) -> dict[str, Any]:
        """Return how a run's power or energy divides: ``packed`` (T, layers, ``parts``) means, or ``bands``
        (T, parts) of one head.

        Args:
            run: its key.
            of: ``spectrum`` or ``wavelet_energy``.
            layer, head: of the one head.

        Raises:
            RequestError: no such run, layer or head.
        """
        snapshot = self._snapshot
        chosen = snapshot.run(run)
        if of not in SHARES:
            raise unknown_value("of", of, SHARES)
        frame = records_of(snapshot.results, chosen).heads([*RUN, "step", "layer", "head", of])
        if layer is None or head is None:
            packed, parts = pack_shares(HeadRows.of(chosen, frame), of)
            return {"version": snapshot.version, "packed": packed, "parts": parts}
        rows = dict(frame.filter(layer=layer, head=head).select("step", of).iter_rows())
        if not rows:
            raise RequestError(f"layer={layer}, head={head}: {chosen.label} has no such head")
        parts = max((len(shares) for shares in rows.values() if shares), default=0)
        bands = [rounded_list(rows.get(int(step)) or [None] * parts) for step in chosen.steps]
        return {"version": snapshot.version, "bands": bands}

    def _column(self, snapshot: Snapshot, metric: str) -> pl.DataFrame:
        with self._lock:
            if metric not in snapshot.columns:
                while len(snapshot.columns) >= MOST_COLUMNS:
                    snapshot.columns.pop(next(iter(snapshot.columns)))
                names = [*RUN, "step", "layer", "head", metric]
                snapshot.columns[metric] = snapshot.results.heads(names)
            return snapshot.columns[metric]


def _stamp(folder: Path) -> str:
    """Changes whenever a record, the analysis or the audit does."""
    digest = hashlib.sha256()
    for path in (*record_folders(folder), folder / "analysis.json", folder / "audit.json"):
        try:
            state = path.stat()
        except OSError:
            continue
        digest.update(f"{path}\0{state.st_ino}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
