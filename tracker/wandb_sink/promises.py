"""What running sweeps still have to store: ``DIR/wandb/promised/<name>.json``, one file per publisher.

It lets rows go out in step order although units finish in any order and in several processes: a row waits
for an earlier one as long as a sweep that is alive says that it is coming. A file whose sweep has died is
no longer touched and stops counting.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tracker.atomic import save_json
from tracker.records import PlannedUnit
from tracker.wandb_sink.arrivals import Arrival
from tracker.wandb_sink.identity import RunIdentity
from tracker.wandb_sink.options import SinkOptions

TOUCH_SECONDS = 5.0
"""How often a living sweep touches its file."""
STALE_SECONDS = 30.0
"""A file that was not touched for so long belongs to nobody."""


@dataclass(frozen=True)
class Promised:
    """One checkpoint that a sweep is going to store, measured or as a hole."""

    run: RunIdentity
    step: int
    key: str
    again: bool
    """Whether the store holds a record of it already, which will be replaced."""


def promised_by(units: Iterable[PlannedUnit]) -> list[Promised]:
    """What a sweep promises that is about to measure ``units``."""
    return [
        Promised(
            RunIdentity(at.suite, at.model, at.seed, unit.probe.label, unit.conventions.label),
            at.step, unit.key, planned.state == "retry",
        )
        for planned in units
        for unit, at in [(planned.unit, planned.unit.checkpoint)]
    ]  # fmt: skip


def promised_of(told: Mapping[str, Any]) -> Promised:
    """A promise from the plain types that it was told in: the inverse of ``dataclasses.asdict``.

    Raises:
        KeyError, TypeError, ValueError: it is not one.
    """
    return Promised(RunIdentity(**told["run"]), int(told["step"]), str(told["key"]), bool(told["again"]))


def destination(options: SinkOptions) -> str:
    """Names where rows go, so that publishers with the same aim know each other."""
    return f"{options.entity or ''}/{options.project}"


@contextmanager
def promising(folder: Path, options: SinkOptions, promised: Iterable[Promised],
              stop: threading.Event) -> Iterator[str]:  # fmt: skip
    """Keeps a promise until ``stop`` is set or the block ends; yields its name, empty where there is none.

    Args:
        folder: the store's folder.
        options: where this publisher sends.
        promised: what its sweep is going to store.
        stop: set when the sweep has ended, and its promise with it.
    """
    told = [asdict(each) for each in promised]
    if not told:
        yield ""
        return
    name = uuid.uuid4().hex
    path = folder / "wandb" / "promised" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_json(path, {"destination": destination(options), "since": time.time(), "promised": told})
    ended = threading.Event()

    def keep() -> None:
        while not (stop.wait(TOUCH_SECONDS) or ended.is_set()):
            with contextlib.suppress(OSError):
                path.touch()
        path.unlink(missing_ok=True)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield name
    finally:
        ended.set()
        path.unlink(missing_ok=True)


class Promises:
    """Reads the promises of every sweep that is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "wandb" / "promised"
        self._read: dict[str, tuple[float, str, list[Promised]]] = {}
        self._touched: dict[str, tuple[int, float]] = {}
        self._seen: list[str] = []

    def look(self) -> None:
        """Notes who is alive; to be called before the store is looked at.

        A promise is withdrawn when all of it is stored. Looked at the other way round, it could be kept and
        withdrawn in between, and a row would be taken for missing that has just come.
        """
        self._seen = self._alive()

    def coming(self, stored: Mapping[RunIdentity, Mapping[str, Arrival]], *, without: str = "",
               only: str | None = None) -> dict[RunIdentity, set[int]]:  # fmt: skip
        """Steps that were promised at the last look and are not stored yet, by run.

        Args:
            stored: what the store holds, by run and key.
            without: name of a promise that does not count.
            only: count promises of publishers with this destination alone.
        """
        found: dict[RunIdentity, set[int]] = {}
        for name in self._seen:
            since, aim, promised = self._read[name]
            if name == without or only not in (None, aim):
                continue
            for each in promised:
                arrival = stored.get(each.run, {}).get(each.key)
                if arrival is None or (each.again and arrival.stored_at < since):
                    found.setdefault(each.run, set()).add(each.step)
        return found

    def _alive(self) -> list[str]:
        """Names of the files that were touched lately, by this machine's own clock."""
        alive, now = [], time.monotonic()
        for path in self._folder.glob("*.json"):
            try:
                stamp = path.stat().st_mtime_ns
                if path.stem not in self._read:
                    self._read[path.stem] = _parsed(path)
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if self._touched.get(path.stem, (0, 0.0))[0] != stamp:
                self._touched[path.stem] = (stamp, now)
            if now - self._touched[path.stem][1] < STALE_SECONDS:
                alive.append(path.stem)
            elif time.time() - stamp / 1e9 > 100 * STALE_SECONDS:
                path.unlink(missing_ok=True)
        return alive


def _parsed(path: Path) -> tuple[float, str, list[Promised]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    promised = [promised_of(each) for each in content["promised"]]
    return float(content["since"]), str(content["destination"]), promised
