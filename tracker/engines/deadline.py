"""How long a unit may take: as the request says, else many times what checkpoints of its model took.

A worker whose process lives may stand still all the same, as on a file system that is gone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from tracker.records import Fetched, Outcome, PlannedUnit, Unit
from tracker.store import Store

TIMES = 20
"""A unit may take so many times what the slowest of its model took, measured in the same way."""
LEAST_SECONDS = 600.0
"""And never less than this."""
FIRST_SECONDS = 6 * 3600.0
"""What the first of a model may take, with more for its size."""
FIRST_RATE = 1e9
"""Bytes of a checkpoint times tokens of the probe that the slowest machine measures in a second."""
SLICE_SECONDS = 5.0
"""Time is counted in such pieces: while this process itself was stopped, as by Ctrl-Z, none passes."""

COLUMNS = ["status", "probe", "conventions", "seconds"]


class Deadlines:
    """The time that each unit may take; may be used from several threads.

    Args:
        store: whose records say what others of the model took.
        given: seconds of every unit, as asked for; None: they follow from what is measured.
    """

    def __init__(self, store: Store, given: float | None) -> None:
        self._store, self.given = store, given
        self._slowest: dict[tuple[Path, str, str], float | None] = {}

    def seconds(self, planned: PlannedUnit, fetched: object) -> float:
        """Return how many seconds a unit may take once a worker has its files, by what is known now."""
        if self.given is not None:
            return self.given
        slowest = self._known(planned.unit)
        if slowest is not None:
            return max(LEAST_SECONDS, TIMES * slowest)
        size = _bytes(fetched.path) if isinstance(fetched, Fetched) else 0
        probe = planned.unit.probe
        return FIRST_SECONDS + size * probe.number * probe.n / FIRST_RATE

    def note(self, outcome: Outcome) -> None:
        """Take account of a unit that has ended."""
        if outcome.status == "ok" and self.given is None:
            name, known = self._name(outcome.unit), self._known(outcome.unit)
            self._slowest[name] = max(known or 0.0, outcome.seconds)

    def _known(self, unit: Unit) -> float | None:
        name = self._name(unit)
        if self._slowest.get(name) is None:
            self._slowest[name] = _slowest_recorded(*name)
        return self._slowest[name]

    def _name(self, unit: Unit) -> tuple[Path, str, str]:
        return self._store.place(unit).parent, unit.probe.label, unit.conventions.label


def too_long(seconds: float, given: float | None) -> str:
    """Say that a unit's time was over, and what to do."""
    if given is not None:
        return f"took longer than engine.timeout={given:g} seconds; raise it, or reduce probe.sequences"
    return (
        f"gave no result for {seconds:g} s, far longer than other checkpoints take; if it needs "
        "longer, set engine.timeout=SECONDS"
    )


@contextmanager
def limited(limit: Callable[[], float], give_up: Callable[[], None]) -> Iterator[None]:
    """Call ``give_up`` from another thread if a block takes longer than ``limit`` says meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        spent = 0.0
        while (left := limit() - spent) > 0:
            piece = min(left, SLICE_SECONDS)
            if ended.wait(piece):
                return
            spent += piece
        give_up()

    threading.Thread(target=watch, name="deadline", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _bytes(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.iterdir())
    except OSError:
        return 0  # its worker says what is wrong


def _slowest_recorded(folder: Path, probe: str, conventions: str) -> float | None:
    """Return the seconds of a model's slowest record of one probe and conventions; None without any."""
    wanted, slowest = ("ok", probe, conventions), None
    for place in folder.glob("step-*"):
        try:
            row = pl.read_parquet(place / "checkpoint.parquet", columns=COLUMNS, glob=False)
        except (OSError, pl.exceptions.PolarsError):
            continue  # damaged records are told of where they are read
        for *measured, seconds in row.iter_rows():
            if tuple(measured) == wanted and seconds is not None:
                slowest = max(slowest or 0.0, seconds)
    return slowest
