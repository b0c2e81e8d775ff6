"""The engine for one machine: warm worker processes, one per device, or several that share the CPU.

This process plans, fetches and reports; a thread for each worker takes the next checkpoint, hands it over
and waits. A worker that dies or takes too long costs its unit one try; everything measured is in the store.
"""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType

from tracker.engines.consistency import UNKNOWN, SignatureExchange
from tracker.engines.placement import Placement
from tracker.engines.prefetch import FetchedCheckpoint, Prefetch
from tracker.engines.warm_process import ProcessDied, Report, Task, TookTooLong, WarmProcess
from tracker.engines.worker_spec import WorkerSpec
from tracker.errors import TrackerError, counted
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store

FAILED_STARTS = 5
"""So many processes in a row that die before their first unit end the sweep."""


@dataclass(frozen=True)
class PoolOptions:
    """How many worker processes there are, and how they are treated."""

    placements: tuple[Placement, ...]
    """One per worker."""
    timeout: float | None = None
    """Seconds that a unit may take."""
    retries: int = 2
    """How often a unit is tried again whose worker died."""
    recycle_bytes: int | None = None
    """A worker that holds more memory than this beside its model is replaced."""


def run_local(
    supply: Prefetch, spec: WorkerSpec, options: PoolOptions, since: float = 0.0
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each unit as it is recorded, in the order in which they end.

    Args:
        supply: the units, fetched ahead in this process.
        spec: what workers are made from.
        options: how many, where, and how they are treated.
        since: when the plan was made, by the store's clock: later records are this sweep's.

    Raises:
        TrackerError: the sweep cannot go on: the store cannot be written, or workers do not start.
    """
    with supply, Pool(supply, spec, options, since) as pool:
        yield from pool.outcomes()


class Pool:
    """Worker processes and the threads that look after them."""

    def __init__(self, supply: Prefetch, spec: WorkerSpec, options: PoolOptions, since: float = 0.0) -> None:
        self._supply, self._options, self._since = supply, options, since
        self._store = Store(spec.store)
        self._signatures = SignatureExchange(spec.signatures)
        self._ended: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._stopped = False
        used = options.placements[: len(supply.units)]
        self.slots = [Slot(spec, place, f"worker {i}") for i, place in enumerate(used, start=1)]
        self._threads = [threading.Thread(target=self._keep_busy, args=[slot]) for slot in self.slots]

    def __enter__(self) -> "Pool":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._supply.stop()
        self._signatures.stop()
        for slot in self.slots:
            slot.kill()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield one outcome per unit, as they end."""
        for _ in self._supply.units:
            ended = self._ended.get()
            if isinstance(ended, BaseException):
                raise ended
            yield ended

    def _keep_busy(self, slot: "Slot") -> None:
        """Give one worker unit after unit; the whole life of its thread."""
        try:
            slot.process()
            while (fetched := self._supply.take()) is not None:
                outcome = None
                try:
                    outcome = fetched.elsewhere or self._measured(fetched, slot)
                finally:
                    self._supply.release(fetched, measured=outcome is not None)
                if outcome is None:
                    break
                self._ended.put(outcome)
        except BaseException as error:  # raised again in ``outcomes``
            if not self._stopped:
                self._ended.put(error)
        finally:
            slot.dismiss()

    def _measured(self, fetched: FetchedCheckpoint, slot: "Slot") -> Outcome | None:
        """Have a unit measured, however many processes it takes; None when the sweep is stopped."""
        unit, deaths = fetched.planned.unit, list[str]()
        known = self._signatures.begin(unit)
        if known is None:
            return None
        found = UNKNOWN
        try:
            while not self._stopped:
                try:
                    task = Task(fetched.planned, fetched.result, known)
                    report = slot.process().carry_out(task, self._options.timeout)
                except TookTooLong:
                    return self._recorded_or_failed(fetched.planned, _too_long(self._options.timeout))
                except ProcessDied as error:
                    if slot.started:
                        deaths.append(str(error))
                        if outcome := self._after_death(fetched.planned, deaths):
                            return outcome
                    elif slot.failed_starts + 1 >= FAILED_STARTS and not self._stopped:
                        raise TrackerError(_does_not_start(slot.name, error)) from error
                else:
                    found = report.signature
                    slot.note(report, self._options.recycle_bytes)
                    return report.outcome
            return None
        finally:
            self._signatures.end(unit, found)

    def _after_death(self, planned: PlannedUnit, deaths: list[str]) -> Outcome | None:
        """Return the outcome of a unit whose worker died; None if it is to be tried again."""
        if self._stopped:
            return None
        if len(deaths) > self._options.retries:
            return self._recorded_or_failed(planned, _killed(deaths))
        return self._recorded(planned)

    def _recorded(self, planned: PlannedUnit) -> Outcome | None:
        """Return the outcome of a unit whose worker recorded it and ended before it could report."""
        found = self._store.recorded_since(planned, self._since)
        return found and Outcome(planned.unit, found.status, found.reason, found.seconds or 0.0)

    def _recorded_or_failed(self, planned: PlannedUnit, why: str) -> Outcome:
        recorded = self._recorded(planned)
        if recorded is not None:
            return recorded
        reason = f"{planned.unit.checkpoint.label}: {why}"
        self._store.write_hole(planned.unit, "failed", reason)
        return Outcome(planned.unit, "failed", reason, self._options.timeout or 0.0)


class Slot:
    """A worker's place, and the process that has it now."""

    def __init__(self, spec: WorkerSpec, placement: Placement, name: str) -> None:
        self.name = name
        self.failed_starts = 0
        """Processes in a row that died during their imports."""
        self._spec, self._placement = spec, placement
        self._process: WarmProcess | None = None
        self._worn_out = self._closed = False

    def process(self) -> WarmProcess:
        """Return the process; a new one if the last cannot be used any more."""
        if self._worn_out:
            self.dismiss()
        if self._process is None or not self._process.alive:
            died_early = self._process is not None and not self._process.ready
            self.failed_starts = self.failed_starts + 1 if died_early else 0
            self._process = WarmProcess(self._spec, self._placement, self.name)
            if self._closed:  # `kill` came while it was being started
                self._process.kill()
        return self._process

    @property
    def started(self) -> bool:
        """Whether the last process had come through its imports."""
        return self._process is not None and self._process.ready

    def note(self, report: Report, bound: int | None) -> None:
        """Replace the process before the next unit if its memory has grown beyond a bound or CUDA failed."""
        self._worn_out = report.broken or (bound is not None and report.memory > bound)

    def dismiss(self) -> None:
        """Let the process end by itself."""
        if self._process is not None:
            self._process.stop(patience=5.0)
        self._process, self._worn_out = None, False

    def kill(self) -> None:
        """End the process at once, whatever it is doing; there will be no other."""
        self._closed = True
        if self._process is not None:
            self._process.kill()


def _too_long(seconds: float | None) -> str:
    return f"took longer than engine.timeout={seconds:g} seconds; raise it, or reduce probe.sequences"


def _killed(deaths: list[str]) -> str:
    return (
        f"its worker process {deaths[-1]} (in {counted(len(deaths), 'attempt')}); if out of memory, use "
        "engine.stream=always or reduce engine.workers"
    )


def _does_not_start(name: str, error: ProcessDied) -> str:
    return (
        f"{name}: its process {error} while starting, in {FAILED_STARTS} attempts; engine=inline shows the "
        "error"
    )
