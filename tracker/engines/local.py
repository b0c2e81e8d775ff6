"""The engine for one machine: warm worker processes, one per device, or some that share the processor.

This process plans, fetches and tells; a thread for each worker takes the next checkpoint, hands it over and
waits. A worker that dies or takes too long costs its unit one try; everything measured is in the store.
"""

import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType

from tracker.engines.consistency import Known, Siblings
from tracker.engines.prefetch import FetchedCheckpoint, Prefetch
from tracker.engines.warm_process import ProcessDied, Task, TookTooLong, WarmProcess
from tracker.engines.worker_spec import Placement, WorkerSpec
from tracker.errors import TrackerError
from tracker.records import Outcome, PlannedUnit
from tracker.store import Store

STILLBORN = 5
"""So many processes in a row that die before their first unit: nothing will come of others."""


@dataclass(frozen=True)
class Terms:
    """How workers are treated."""

    placements: tuple[Placement, ...]
    """One per worker."""
    timeout: float | None = None
    """Seconds that a unit may take."""
    retries: int = 2
    """How often a unit is tried again whose worker died."""
    recycle_bytes: int | None = None
    """A worker that holds more memory than this beside its model is replaced."""


def run_local(
    supply: Prefetch, worker_spec: WorkerSpec, terms: Terms, since: float = 0.0
) -> Generator[Outcome, None, None]:
    """Yields what became of each unit as it is recorded, in the order in which they end.

    Args:
        supply: the units, fetched ahead in this process.
        worker_spec: what workers are made from.
        terms: how many, where, and how they are treated.
        since: when the plan was made, by the store's clock: later records are this sweep's.

    Raises:
        TrackerError: the sweep cannot go on: the store cannot be written, or workers do not start.
    """
    with supply, Pool(supply, worker_spec, terms, since) as pool:
        yield from pool.outcomes()


class Pool:
    """Worker processes and the threads that look after them."""

    def __init__(self, supply: Prefetch, worker_spec: WorkerSpec, terms: Terms, since: float = 0.0) -> None:
        self._supply, self._equipment, self._terms, self._since = supply, worker_spec, terms, since
        self._store = Store(worker_spec.store)
        self._siblings = Siblings(worker_spec)
        self._found: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
        self._stopped = False
        count = min(len(terms.placements), len(supply.units))
        self.seats = [Slot(worker_spec, terms.placements[i], f"worker {i + 1}") for i in range(count)]
        self._threads = [threading.Thread(target=self._keep_busy, args=[seat]) for seat in self.seats]

    def __enter__(self) -> "Pool":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._supply.stop()
        self._siblings.stop()
        for seat in self.seats:
            seat.kill()
        for thread in self._threads:
            thread.join()

    def outcomes(self) -> Iterator[Outcome]:
        """One per unit, as they end."""
        for _ in self._supply.units:
            found = self._found.get()
            if isinstance(found, BaseException):
                raise found
            yield found

    def _keep_busy(self, seat: "Slot") -> None:
        """The whole life of the thread that looks after a worker."""
        try:
            seat.process()
            while (delivery := self._supply.take()) is not None:
                outcome = None
                try:
                    outcome = delivery.elsewhere or self._carried_out(delivery, seat)
                finally:
                    self._supply.release(delivery, measured=outcome is not None)
                if outcome is None:
                    break
                self._found.put(outcome)
        except BaseException as error:  # whoever waits for an outcome has to hear of it
            if not self._stopped:
                self._found.put(error)
        finally:
            seat.dismiss()

    def _carried_out(self, delivery: FetchedCheckpoint, seat: "Slot") -> Outcome | None:
        """What became of a unit, however many processes it took; None when the sweep is stopped."""
        planned, deaths = delivery.planned, list[str]()
        known = self._siblings.begin(planned.unit)
        if known is None:
            return None
        told = Known()
        try:
            while not self._stopped:
                try:
                    task = Task(planned, delivery.result, known)
                    report = seat.process().carry_out(task, self._terms.timeout)
                except TookTooLong:
                    return self._recorded(planned) or self._failed(planned, _too_long(self._terms.timeout))
                except ProcessDied as error:
                    if not seat.ready:
                        self._refuse_stillborn(seat, error)
                        continue
                    deaths.append(str(error))
                    outcome = self._after_death(planned, deaths)
                    if outcome is not None:
                        return outcome
                else:
                    told = report.known
                    seat.note(report.memory, self._terms.recycle_bytes)
                    return report.outcome
            return None
        finally:
            self._siblings.end(planned.unit, told)

    def _refuse_stillborn(self, seat: "Slot", error: ProcessDied) -> None:
        if seat.stillborn + 1 >= STILLBORN and not self._stopped:
            raise TrackerError(
                f"{seat.name}: its process {error} while it started, {STILLBORN} times; engine=inline shows "
                "why"
            )

    def _after_death(self, planned: PlannedUnit, deaths: list[str]) -> Outcome | None:
        """What became of a unit whose worker died; None where it is to be tried again."""
        if self._stopped:
            return None
        outcome = self._recorded(planned)
        if outcome is not None or len(deaths) <= self._terms.retries:
            return outcome
        return self._failed(planned, _killed(deaths))

    def _recorded(self, planned: PlannedUnit) -> Outcome | None:
        """What became of a unit whose worker ended behind the record, before it could report."""
        found = self._store.recorded_since(planned, self._since)
        return found and Outcome(planned.unit, found.status, found.reason, found.seconds or 0.0)

    def _failed(self, planned: PlannedUnit, reason: str) -> Outcome:
        told = f"{planned.unit.checkpoint.label}: {reason}"
        self._store.write_hole(planned.unit, "failed", told)
        return Outcome(planned.unit, "failed", told, self._terms.timeout or 0.0)


class Slot:
    """A worker's place, and the process that has it now."""

    def __init__(self, worker_spec: WorkerSpec, placement: Placement, name: str) -> None:
        self.name = name
        self.stillborn = 0
        """Processes in a row that died of their own imports."""
        self._equipment, self._placement = worker_spec, placement
        self._process: WarmProcess | None = None
        self._worn_out = self._closed = False

    def process(self) -> WarmProcess:
        """The process, started where there is none that can be used."""
        if self._worn_out:
            self.dismiss()
        if self._process is None or not self._process.alive:
            died_early = self._process is not None and not self._process.ready
            self.stillborn = self.stillborn + 1 if died_early else 0
            self._process = WarmProcess(self._equipment, self._placement, self.name)
            if self._closed:  # `kill` came while it was being started
                self._process.kill()
        return self._process

    @property
    def ready(self) -> bool:
        """Whether the last process had come through its imports."""
        return self._process is not None and self._process.ready

    def note(self, memory: int, bound: int | None) -> None:
        """Notes a report: a process whose memory has grown too far is replaced before the next unit."""
        self._worn_out = bound is not None and memory > bound

    def dismiss(self) -> None:
        """Lets the process end by itself."""
        if self._process is not None:
            self._process.stop(patience=5.0)
        self._process, self._worn_out = None, False

    def kill(self) -> None:
        """Ends the process at once, whatever it is doing; there will be no other."""
        self._closed = True
        if self._process is not None:
            self._process.kill()


def _too_long(seconds: float | None) -> str:
    return f"took longer than engine.timeout={seconds:g} seconds; raise it, or measure less (probe.number)"


def _killed(deaths: list[str]) -> str:
    return (
        f"its worker process {deaths[-1]} ({len(deaths)} of {len(deaths)} tries); where memory ran out, "
        "engine.stream=always or fewer engine.workers take less"
    )
