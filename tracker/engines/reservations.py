"""Which sweep measures which unit, where several sweeps or shards write one store, also over NFS.

A reservation of a unit is a hard link to its sweep's heartbeat (``tracker.store.heartbeat``): making a link
is one step on every file system, so one of many sweeps wins, and touching the heartbeat renews all of a
sweep's reservations at once. A reservation whose heartbeat is dead holds nobody up: the next sweep links the
unit's next number. Nothing has to be cleaned up before work can go on, however a sweep ended.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal

from tracker.errors import StoreError
from tracker.records import PlannedUnit, Recorded, digest
from tracker.store import Store
from tracker.store.heartbeat import Heartbeat

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

Taken = Literal["mine", "elsewhere"] | Recorded


class Reservations:
    """The units that this process is about to measure.

    >>> with Heartbeat(store.folder) as heartbeat:              # doctest: +SKIP
    ...     with Reservations(store, heartbeat) as reservations:
    ...         if reservations.take(planned) == "mine":
    ...             measure_and_store(planned)
    ...             reservations.release(planned)

    ``take`` and ``release`` may be called from several threads. Where the file system has no hard links,
    every unit counts as ours: two sweeps may then measure one unit, and the store keeps one record of it.
    """

    def __init__(self, store: Store, heartbeat: Heartbeat) -> None:
        """Touch nothing before the ``with`` block begins.

        Args:
            store: where the records go; its folder exists.
            heartbeat: of this process, beating as long as the block lasts.
        """
        self.heartbeat = heartbeat
        self._store, self._folder = store, heartbeat.folder
        self._held: dict[str, Path] = {}

    def __enter__(self) -> "Reservations":
        with self._writing():
            self.heartbeat.beat()
            self._tidy()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._held):
            self._give_back(name)

    def take(self, planned: PlannedUnit) -> Taken:
        """Reserve a unit.

        Returns:
            ``mine``: nobody else measures it until it is released; ``elsewhere``: another sweep does at
            this moment; or its record, if one was stored since the plan was made.

        Raises:
            StoreError: the store cannot be written any more.
        """
        name = _name(planned)
        if self._store.inode is not None:
            self._store.require_same()
        with self._writing():
            if not self._linked(name):
                return "elsewhere"
        standing = self._store.recorded_since(planned)
        if standing is None:
            return "mine"
        self._give_back(name)
        return standing

    def release(self, planned: PlannedUnit) -> None:
        """Give a unit back, once its record is stored."""
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
                os.link(self.heartbeat.path, place)
            except FileExistsError:
                # A server that lost its answer to our link says that the link, ours, is there already.
                if not self._is_ours(place):
                    if not self.heartbeat.outlived(place):
                        return False
                    number += 1
                    continue
            except FileNotFoundError:  # this process stood still until others took it for dead
                self.heartbeat.beat()
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
        with contextlib.suppress(OSError):  # on a disk that broke it dies with the heartbeat
            if (self._folder / f"{name}.{number + 1}").exists():
                return  # taken over while this process stood still: the link keeps the lower numbers closed
            for each in range(number + 1):
                (self._folder / f"{name}.{each}").unlink(missing_ok=True)

    def _is_ours(self, place: Path) -> bool:
        try:
            return os.path.samefile(place, self.heartbeat.path)
        except OSError:
            return False

    def _tidy(self) -> None:
        """Remove what dead sweeps left; a reservation by taking it over, so that nobody else is doing so."""
        for path in list(self._folder.iterdir()):
            if path == self.heartbeat.path or not self.heartbeat.outlived(path):
                continue
            if not path.suffix[1:].isdecimal():  # a heartbeat
                path.unlink(missing_ok=True)
            elif path.stem not in self._held and self._linked(path.stem):
                self._give_back(path.stem)


def _name(planned: PlannedUnit) -> str:
    return digest(planned.unit.id, 20)
