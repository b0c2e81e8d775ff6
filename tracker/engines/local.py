"""The engine for one machine: warm worker processes, one per device, or several that share the CPU.

This process plans, fetches and reports; a thread for each worker takes the next checkpoint, hands it over
and waits. A worker that dies or takes too long costs its unit one try; everything measured is in the store.
"""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType

from tracker.engines.deadline import Deadlines, too_long
from tracker.engines.placement import Placement
from tracker.engines.prefetch import FetchedCheckpoint, Prefetch
from tracker.engines.warm_process import STOP_SECONDS, ProcessDied, Task, TookTooLong, WarmProcess
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import TrackerError, counted
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store

FAILED_STARTS = 5
"""So many processes in a row that die before their first unit end the sweep."""
OUT_OF_MEMORY = "if out of memory, use engine.stream=always or reduce engine.workers"


@dataclass(frozen=True)
class PoolOptions:
    """How many worker processes there are, and how they are treated."""

    placements: tuple[Placement, ...]
    """One per worker."""
    timeout: float | None = None
    """Seconds that a unit may take; None: by what others of its model took (``Deadlines``)."""
    retries: int = 2
    """How often a unit is tried again whose worker died."""
    recycle_bytes: int | None = None
    """A worker that holds more memory than this beside its model is replaced."""


def run_local(supply: Prefetch, spec: WorkerSpec, options: PoolOptions) -> Generator[Outcome, None, None]:
    """Yield the outcome of each unit as it is recorded, in the order in which they end.

    Args:
        supply: the units, fetched ahead in this process.
        spec: what workers are made from.
        options: how many, where, and how they are treated.

    Raises:
        TrackerError: the sweep cannot go on: the store cannot be written, or workers do not start.
    """
    with supply, Pool(supply, spec, options) as pool:
        yield from pool.outcomes()


class Pool:
    """Worker processes and the threads that look after them."""

    def __init__(self, supply: Prefetch, spec: WorkerSpec, options: PoolOptions) -> None:
        self._supply, self._options = supply, options
        self._store = Store(spec.store, spec.store_inode)
        self._deadlines = Deadlines(self._store, options.timeout)
        self._ended: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._stopped = False
        used = options.placements[: len(supply.units)]
        self.workers = [
            WarmProcess(spec, place, f"worker {number}", options.recycle_bytes)
            for number, place in enumerate(used, start=1)
        ]
        self._threads = [threading.Thread(target=self._keep_busy, args=[worker]) for worker in self.workers]

    def __enter__(self) -> "Pool":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._supply.stop()
        for worker in self.workers:
            worker.kill()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end."""
        for _ in self._supply.units:
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                raise ended
            yield ended

    def _keep_busy(self, worker: WarmProcess) -> None:
        """Give one worker unit after unit; the whole life of its thread."""
        try:
            worker.start()
            while (fetched := self._supply.take()) is not None:
                outcome = None
                try:
                    outcome = fetched.elsewhere or self._measured(fetched, worker)
                finally:
                    self._supply.release(fetched, measured=outcome is not None)
                if outcome is None:
                    break
                self._ended.put(outcome)
        except BaseException as error:  # raised again in ``outcomes``
            if not self._stopped:
                self._ended.put(error)
        finally:
            worker.stop(STOP_SECONDS)

    def _measured(self, fetched: FetchedCheckpoint, worker: WarmProcess) -> Outcome | None:
        """Have a unit measured, however many processes it takes; None when the sweep is stopped."""
        task, deaths = Task(fetched.planned, fetched.result), list[str]()
        limit = partial(self._deadlines.seconds, fetched.planned, fetched.result)
        while not self._stopped:
            try:
                outcome = worker.carry_out(task, limit).outcome
                self._deadlines.note(outcome)
                return outcome
            except TookTooLong:
                deaths.append(too_long(limit(), self._options.timeout))
                if self._options.timeout is not None:
                    return self._recorded_or_failed(fetched.planned, deaths[-1])
            except ProcessDied as error:
                if not worker.ready:
                    self._check_starts(worker, error)
                    continue
                deaths.append(f"{error}; {OUT_OF_MEMORY}")
            if outcome := self._after_death(fetched.planned, deaths):
                return outcome
        return None

    def _check_starts(self, worker: WarmProcess, error: ProcessDied) -> None:
        if worker.failed_starts >= FAILED_STARTS and not self._stopped:
            raise TrackerError(
                f"{worker.name}: its process {error} while starting, {FAILED_STARTS} times; see "
                "the error with engine=inline"
            ) from error

    def _after_death(self, planned: PlannedUnit, deaths: list[str]) -> Outcome | None:
        """Return the outcome of a unit whose worker died; None if it is to be tried again."""
        if self._stopped:
            return None
        if len(deaths) > self._options.retries:
            return self._recorded_or_failed(planned, _killed(deaths))
        return self._recorded(planned)

    def _recorded(self, planned: PlannedUnit) -> Outcome | None:
        """Return the outcome of a unit whose worker recorded it and ended before it could report."""
        found = self._store.recorded_since(planned)
        return found and Outcome(planned.unit, found.status, found.reason, found.seconds or 0.0)

    def _recorded_or_failed(self, planned: PlannedUnit, why: str) -> Outcome:
        recorded = self._recorded(planned)
        if recorded is not None:
            return recorded
        reason = f"{planned.unit.checkpoint.label}: {why}"
        self._store.write_hole(planned.unit, "failed", reason)
        return Outcome(planned.unit, "failed", reason, self._options.timeout or 0.0)


def _killed(deaths: list[str]) -> str:
    how, _, advice = deaths[-1].partition("; ")
    return f"its worker process {how} (in {counted(len(deaths), 'attempt')}); {advice}"
