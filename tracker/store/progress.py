"""The progress of running sweeps, in the content of their heartbeats, for a dashboard that looks on."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from tracker.side_files import fits
from tracker.store.heartbeat import FOLDER, SUFFIX, Heartbeat, is_dead, read_heartbeat


class Bar(TypedDict):
    """One progress bar."""

    name: str
    done: int
    total: int
    pace: str
    note: str


class Reported(TypedDict):
    """What a heartbeat says of a running sweep."""

    doing: str
    bars: list[Bar]
    since: float


class SweepProgress:
    """The progress bars of one running sweep, reported through its heartbeat."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self._lock = threading.Lock()
        self._bars: dict[str, Bar] = {}
        self.begin("starting")

    def begin(self, doing: str) -> None:
        """Report what the sweep does now, as in ``measuring``; bars of what it did before go."""
        with self._lock:
            self._bars.clear()
            self.heartbeat.report(doing=doing, bars=[])

    def moved(self, name: str, done: int, total: int, pace: str = "", note: str = "") -> None:
        """Report one bar: ``done`` of ``total``; ``pace`` and ``note`` as the console shows them."""
        with self._lock:
            self._bars[name] = {"name": name, "done": done, "total": total, "pace": pace, "note": note}
            self.heartbeat.report(bars=list(self._bars.values()))


@contextmanager
def report_progress(folder: Path) -> Iterator[SweepProgress]:
    """Keep a sweep's heartbeat and progress in a store's folder for the length of a block."""
    with Heartbeat(folder) as heartbeat:
        yield SweepProgress(heartbeat)


class Watch:
    """Reads the progress of every sweep of a store; needs no right to write it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._touched: dict[str, tuple[float, float]] = {}

    def look(self) -> list[dict[str, Any]]:
        """Return per sweep: doing, bars (name, done, total, pace, note), since, alive; oldest first."""
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            try:
                content, touched = read_heartbeat(path)
            except OSError:
                continue
            if content is None or not fits(content, Reported):  # half-written, damaged, or of a worker
                continue
            alive = not is_dead(content, self._silence(path.stem, touched))
            found.append({key: content[key] for key in ("doing", "bars", "since")} | {"alive": alive})
        return sorted(found, key=lambda each: each["since"])

    def _silence(self, name: str, touched: float) -> float:
        """Seconds since a file was last seen to be touched: clocks of two machines need not agree."""
        if self._touched.get(name, (None, 0.0))[0] != touched:
            self._touched[name] = (touched, time.monotonic())
        return time.monotonic() - self._touched[name][1]
