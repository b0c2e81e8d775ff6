"""Who measures which unit, where several sweeps or shards write one store, also over NFS.

A sweep keeps one small file in ``DIR/.running``, its pulse, and touches it every few seconds. A reservation
of a unit is a hard link to that file: making a link is one step on every file system, so one of many sweeps
wins, and touching the pulse renews all of a sweep's reservations at once. A reservation whose pulse has
stopped, or whose process is gone from this machine, holds nobody up: the next sweep links the unit's next
number. Nothing has to be cleaned up before work can go on, however a sweep ended.
"""

import contextlib
import errno
import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

from tracker.errors import StoreError
from tracker.records import PlannedUnit, Recorded, digest
from tracker.store import Store

PULSE_SECONDS = 5.0
"""How often a sweep touches its pulse."""
STALE_SECONDS = 30.0
"""A pulse that is older belongs to nobody. Both ages come from the file server's clock."""
TRIES = 8
"""How often a pulse is made whose folder others remove at the same moment."""
FOLDER, SUFFIX = ".running", ".pulse"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

Taken = Literal["mine", "elsewhere"] | Recorded


class Reservations:
    """The units that this process is about to measure.

    >>> with Reservations(store) as reservations:               # doctest: +SKIP
    ...     if reservations.take(planned) == "mine":
    ...         measure_and_store(planned)
    ...         reservations.release(planned)

    ``take`` and ``release`` may be called from several threads. Where the file system has no hard links,
    every unit counts as ours: two sweeps may then measure one unit, and the store keeps one record of it.
    """

    def __init__(self, store: Store, since: float | None = None) -> None:
        """Touches nothing before the ``with`` block begins.

        Args:
            store: where the records go; its folder is there.
            since: when the sweep began, by the file server's clock; None: when the block begins.
        """
        self.since = since or 0.0
        self._store, self._given = store, since
        self._folder = store.folder / FOLDER
        self._pulse = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
        self._held: dict[str, Path] = {}
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="pulse", daemon=True)

    def __enter__(self) -> "Reservations":
        with self._writing():
            now = self._touched()
            self.since = self._given or now
            self._tidy()
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._keeper.join()
        for name in list(self._held):
            self._give_back(name)
        with contextlib.suppress(OSError):
            self._pulse.unlink(missing_ok=True)
            self._folder.rmdir()

    @property
    def pulse(self) -> Path:
        """The file that shows that this process is alive."""
        return self._pulse

    def take(self, planned: PlannedUnit) -> Taken:
        """Reserves a unit.

        Returns:
            ``mine``: nobody else measures it until it is released; ``elsewhere``: somebody does at this
            moment; or its record, where somebody has stored one since the plan was made.

        Raises:
            StoreError: the store cannot be written any more.
        """
        name = _name(planned)
        with self._writing():
            if not self._linked(name):
                return "elsewhere"
        standing = self._store.recorded_since(planned, self.since)
        if standing is None:
            return "mine"
        self._give_back(name)
        return standing

    def release(self, planned: PlannedUnit) -> None:
        """Gives a unit back; to be called when its record is stored."""
        self._give_back(_name(planned))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"store={self._store.folder}: cannot be written: {error}; free or change store=DIR, then run "
                "the same command again"
            ) from error

    def _linked(self, name: str) -> bool:
        number = 0
        while True:
            place = self._folder / f"{name}.{number}"
            try:
                os.link(self._pulse, place)
            except FileExistsError:
                # A server that lost its answer to our link says that the link, ours, is there already.
                if not self._is_ours(place):
                    if not self._is_dead(place):
                        return False
                    number += 1
                    continue
            except FileNotFoundError:  # this process stood still until others took it for dead
                self._touched()
                continue
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return True
            self._held[name] = place
            return True

    def _give_back(self, name: str) -> None:
        place = self._held.pop(name, None)
        if place is None:
            return
        number = int(place.suffix[1:])
        with contextlib.suppress(OSError):  # on a disk that broke it dies with the pulse
            if (self._folder / f"{name}.{number + 1}").exists():
                return  # taken over while this process stood still: the link keeps the lower numbers closed
            for each in range(number + 1):
                (self._folder / f"{name}.{each}").unlink(missing_ok=True)

    def _is_ours(self, place: Path) -> bool:
        try:
            return os.path.samefile(place, self._pulse)
        except OSError:
            return False

    def _is_dead(self, place: Path) -> bool:
        """Whether a pulse, or a reservation with it, belongs to nobody any more."""
        try:
            with open(place, encoding="ascii") as file:  # opening asks the server; a mere stat may be cached
                told, touched = json.load(file), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return False
        except (OSError, ValueError):
            told, touched = None, place.stat().st_mtime if place.exists() else 0.0
        if _ended_here(told):
            return True
        return self._touched() - touched > STALE_SECONDS

    def _touched(self) -> float:
        """Touches the pulse, and makes it where there is none; the time by the file server's clock."""
        for _ in range(TRIES):
            try:
                os.utime(self._pulse)
                return self._pulse.stat().st_mtime
            except FileNotFoundError:
                with contextlib.suppress(FileNotFoundError, FileExistsError):  # removed by one that has ended
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._pulse.write_text(json.dumps(_this_process()), encoding="ascii")
        raise FileNotFoundError(errno.ENOENT, "is removed again and again", str(self._pulse))

    def _keep(self) -> None:
        while not self._ended.wait(PULSE_SECONDS):
            with contextlib.suppress(OSError):
                self._touched()

    def _tidy(self) -> None:
        """Removes what dead sweeps left; a reservation by taking it over, so that nobody else is doing so."""
        for path in list(self._folder.iterdir()):
            if path == self._pulse or not self._is_dead(path):
                continue
            if path.suffix == SUFFIX:
                path.unlink(missing_ok=True)
            elif path.stem not in self._held and self._linked(path.stem):
                self._give_back(path.stem)


def _name(planned: PlannedUnit) -> str:
    return digest(planned.unit.id, 20)


def _this_process() -> dict[str, object]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _ended_here(told: object) -> bool:
    """Whether the process that a pulse tells of was one of this machine's, and has ended."""
    if not isinstance(told, dict) or told.get("machine") is None or told["machine"] != _machine():
        return False
    return _started(int(told["pid"])) != told["started"]


def _machine() -> str | None:
    """Names this boot of this machine and, within it, the processes that see each other; None off Linux."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in ticks of this machine: its number alone may have gone to another."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
