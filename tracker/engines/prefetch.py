"""The next checkpoints arrive while the present one is measured.

One thread fetches in the order of the plan and stays at most ``depth`` checkpoints ahead of what has been
asked for. Workers take fetched checkpoints and give each back when its record is stored; several may do so
in parallel. A unit that another sweep is measuring is put off until the others have had their turn; by then
it is recorded, or its sweep has died.
"""

import itertools
import queue
import threading
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from tracker import checkpoints as sources
from tracker.checkpoints import CheckpointCache, Hold, Inspected
from tracker.engines.reservations import Reservations
from tracker.errors import CheckpointError
from tracker.records import Checkpoint, Fetched, Outcome, PlannedUnit, Recorded

PAUSE_SECONDS = 0.5
"""How often units that other sweeps are measuring are looked at again, once there are no others."""
STOP_SECONDS = 3.0
"""How long an ending sweep waits for the thread, which looks up after every piece of a file."""


@dataclass
class Transfer:
    """What came over the network, and the seconds in which it came."""

    received: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Bytes per model and seed."""
    seconds: float = 0.0

    def add(self, other: "Transfer") -> None:
        """Add what another process fetched."""
        self.received.update(other.received)
        self.seconds += other.seconds


@dataclass(frozen=True)
class FetchedCheckpoint:
    """A unit whose checkpoint is ready to be loaded, or cannot be; or that another sweep has measured."""

    planned: PlannedUnit
    result: Fetched | CheckpointError
    hold: Hold | None = None
    standing: Recorded | None = None
    """Its record, where another sweep has stored one since the plan was made."""

    @property
    def elsewhere(self) -> Outcome | None:
        """Its outcome in another sweep; None if it is to be measured here."""
        found = self.standing
        if found is None:
            return None
        return Outcome(self.planned.unit, found.status, found.reason, found.seconds or 0.0, elsewhere=True)


class Prefetch:
    """Supplies the checkpoints of units one by one, fetched ahead.

    >>> with Prefetch(units, cache, depth=2) as supply:      # doctest: +SKIP
    ...     for fetched in supply:
    ...         measure_and_store(fetched.planned, fetched.result)
    ...         supply.release(fetched)

    ``take`` and ``release`` may be called from several threads.
    """

    def __init__(
        self,
        units: Sequence[PlannedUnit],
        cache: CheckpointCache | None = None,
        *,
        depth: int = 0,
        inspected: Mapping[Checkpoint, Inspected | CheckpointError] | None = None,
        reservations: Reservations | None = None,
    ) -> None:
        """Fetch nothing before the ``with`` block begins.

        Args:
            units: in the order in which they are to be measured.
            cache: where checkpoints of the hub go; None: Hugging Face's own, without bound.
            depth: how many may be ready before they are asked for; 0 fetches each when it is.
            inspected: what the hub answered for them, where it has been asked.
            reservations: keep other sweeps from measuring the same units; None: there are no others.
        """
        self.units = tuple(units)
        self.transfer = Transfer()
        self._cache = cache or CheckpointCache(sources.cache_folder(None))
        self._inspected, self._reservations = inspected or {}, reservations
        self._ready: queue.SimpleQueue[FetchedCheckpoint | BaseException | None] = queue.SimpleQueue()
        """What ``take`` gives out; None or an error is the end, and stays for the next who asks."""
        self._permits = threading.Semaphore(depth)
        """One per checkpoint that may be fetched: ``depth`` and one for each that is asked for."""
        self._asked = itertools.count()
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)

    def __enter__(self) -> "Prefetch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(STOP_SECONDS)
        while not self._ready.empty():
            left = self._ready.get()
            if isinstance(left, FetchedCheckpoint):
                self.release(left, measured=False)

    def __iter__(self) -> Iterator[FetchedCheckpoint]:
        while (fetched := self.take()) is not None:
            yield fetched

    def stop(self) -> None:
        """End fetching early; whoever waits in ``take`` gets None."""
        self._cache.stop.set()
        self._permits.release()
        self._ready.put(None)

    def take(self) -> FetchedCheckpoint | None:
        """Return the next unit's checkpoint, once it is there; None after the last, or after ``stop``."""
        if next(self._asked) >= len(self.units):
            return None
        self._permits.release()
        fetched = self._ready.get()
        if isinstance(fetched, FetchedCheckpoint):
            return fetched
        self._ready.put(fetched)
        if fetched is None:
            return None
        raise fetched

    def release(self, fetched: FetchedCheckpoint, *, measured: bool = True) -> None:
        """Give a checkpoint back.

        Args:
            fetched: from ``take``.
            measured: its record, a result or a hole, is safely stored; a bounded cache then removes it.
        """
        if fetched.hold is not None:
            self._cache.release(fetched.hold, measured=measured)
        if self._reservations is not None:
            self._reservations.release(fetched.planned)

    def _run(self) -> None:
        waiting = deque(self.units)
        try:
            while waiting and self._permits.acquire() and (fetched := self._next(waiting)) is not None:
                self._ready.put(fetched)
            self._ready.put(None)  # nothing comes any more
        except BaseException as error:  # raised again in ``take``
            self._ready.put(error)

    def _next(self, waiting: deque[PlannedUnit]) -> FetchedCheckpoint | None:
        """Fetch the first unit that no other sweep is measuring; None after ``stop``."""
        refused = 0
        while not self._cache.stop.is_set():
            fetched = self._reserved_and_fetched(waiting[0])
            if fetched is not None:
                waiting.popleft()
                return fetched
            waiting.rotate(-1)
            refused += 1
            if refused % len(waiting) == 0:
                self._cache.stop.wait(PAUSE_SECONDS)
        return None

    def _reserved_and_fetched(self, planned: PlannedUnit) -> FetchedCheckpoint | None:
        """Reserve and fetch a unit; None if another sweep is measuring it."""
        taken = "mine" if self._reservations is None else self._reservations.take(planned)
        if taken == "elsewhere":
            return None
        if taken == "mine":
            return self._fetched(planned)
        return FetchedCheckpoint(planned, CheckpointError("measured by another sweep"), standing=taken)

    def _fetched(self, planned: PlannedUnit) -> FetchedCheckpoint:
        checkpoint = planned.unit.checkpoint
        try:
            if checkpoint.exists is False:
                raise sources.absent(checkpoint, planned.reason)
            if checkpoint.kind == "folder":
                return FetchedCheckpoint(planned, sources.fetch(checkpoint))
            hold = self._cache.fetch(checkpoint, self._inspected.get(checkpoint))
        except CheckpointError as error:
            return FetchedCheckpoint(planned, error)
        if hold.received:
            received = Counter({(checkpoint.model, checkpoint.seed): hold.received})
            self.transfer.add(Transfer(received, hold.seconds))
        return FetchedCheckpoint(planned, hold.fetched, hold)
