"""The engine for many machines: dask.distributed hands stints to workers, results go to the shared store.

A stint is a few checkpoints of one model, so that a worker keeps its live module, and a worker that is lost
costs little. The first checkpoint of a model goes alone; what it tells goes along with the others. Outcomes
come as they are recorded; a stint whose worker died is given to another, which finds what is recorded.
"""

import queue
import uuid
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracker.checkpoints import Inspected
from tracker.engines.consistency import Known, model_of
from tracker.engines.scheduler import ClusterTerms, connected
from tracker.engines.unit_batch import Sweep, UnitBatch, UnitBatchReport, carry_out
from tracker.errors import CheckpointError, TrackerError
from tracker.records import Checkpoint, Outcome, PlannedUnit, RecordId
from tracker.store import Store


def run_dask(
    units: Sequence[PlannedUnit],
    sweep: Sweep,
    terms: ClusterTerms,
    stint: int,
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
    transfer: "Transfer",
) -> Generator[Outcome, None, None]:
    """Yields what became of each unit as it is recorded.

    Args:
        units: in the order in which they are wanted.
        sweep: what all workers are told.
        terms: where they are.
        stint: how many checkpoints a worker is given at once.
        inspected: what the hub has said of the units' checkpoints.
        transfer: is told what workers fetched.

    Raises:
        RequestError: no scheduler, or the request cannot be carried out by its workers.
        TrackerError: the scheduler is lost; what is recorded stays.
    """
    with connected(terms) as client:
        dispatch = _Dispatch(client, units, sweep, terms, stint, inspected, transfer)
        try:
            yield from dispatch.outcomes()
        finally:
            client.cancel(dispatch.futures)


@dataclass
class Transfer:
    """Per model and seed the bytes that workers have fetched, and the seconds of each added up."""

    received: Counter[tuple[str, int]] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass
class _Model:
    """The units of one model that are still to be handed out."""

    waiting: list[PlannedUnit] = field(default_factory=list)
    known: Known = field(default_factory=Known)
    scouting: bool = False


class _Dispatch:
    """Hands out stints and collects outcomes, each once."""

    def __init__(
        self, client: Any, units: Sequence[PlannedUnit], sweep: Sweep, terms: ClusterTerms, stint: int,
        inspected: Mapping[Checkpoint, Inspected | CheckpointError], transfer: Transfer,
    ) -> None:  # fmt: skip
        self.futures: list[Any] = []
        self._client, self._sweep, self._terms, self._stint = client, sweep, terms, stint
        self._inspected, self._transfer = inspected, transfer
        self._open: dict[RecordId, PlannedUnit] = {planned.unit.id: planned for planned in units}
        self._order = {planned.unit.id: place for place, planned in enumerate(units)}
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._topic = f"tracker-{uuid.uuid4().hex}"
        self._models: dict[tuple[object, ...], _Model] = {}
        worker_spec = sweep.worker_spec
        for planned in units:
            name = model_of(planned.unit)
            probe = planned.unit.probe.label
            known = Known(worker_spec.shapes.get(name), worker_spec.token_digests.get((*name, probe)))
            self._models.setdefault(name, _Model(known=known)).waiting.append(planned)

    def outcomes(self) -> Generator[Outcome, None, None]:
        """One per unit, as they are recorded."""
        self._client.subscribe_topic(self._topic, lambda event: self._news.put(event[1]))
        for model in self._models.values():
            self._hand_out(model)
        while self._open:
            news = self._news.get()
            for outcome in [self._heard(news)] if isinstance(news, dict) else self._ended(*news):
                if outcome is not None and self._open.pop(outcome.unit.id, None) is not None:
                    yield outcome

    def _hand_out(self, model: _Model) -> None:
        """Gives a model's units to the scheduler: one alone as long as nothing is known of the model."""
        size = self._stint if model.known.whole else 1
        while model.waiting and not model.scouting:
            units, model.waiting = model.waiting[:size], model.waiting[size:]
            model.scouting = not model.known.whole
            self._submit(model, units)

    def _submit(self, model: _Model, units: list[PlannedUnit]) -> None:
        checkpoints = [planned.unit.checkpoint for planned in units]
        told = {each: self._inspected[each] for each in checkpoints if each in self._inspected}
        stint, first = UnitBatch(tuple(units), model.known, told), units[0].unit.id
        future = self._client.submit(
            _on_worker, self._sweep, stint, self._topic,
            pure=False, priority=-self._order[first], resources=dict(self._terms.resources) or None,
        )  # fmt: skip
        self.futures.append(future)
        future.add_done_callback(lambda done: self._news.put((done, model, units)))

    def _heard(self, told: Mapping[str, Any]) -> Outcome | None:
        """An outcome from a worker that goes on."""
        planned = self._open.get(tuple(told["id"]))  # type: ignore[arg-type]
        if planned is None:
            return None
        return Outcome(planned.unit, told["status"], told["reason"], told["seconds"], told["elsewhere"])

    def _ended(self, future: Any, model: _Model, units: list[PlannedUnit]) -> list[Outcome]:
        """The outcomes of a stint that has ended, one way or another."""
        self.futures.remove(future)
        if future.status == "finished":
            report: UnitBatchReport = future.result()
            self._transfer.received.update(report.received)
            self._transfer.seconds += report.seconds
            outcomes = list(report.outcomes)
            if model.scouting:
                model.known = report.known
            if len(outcomes) < len(units):  # the worker took the sweep for ended
                model.waiting[:0] = units[len(outcomes) :]
                self._hand_out(model)
        else:
            outcomes = self._after_error(future, model, units)
        if model.scouting:
            model.scouting = False
            self._hand_out(model)
        return outcomes

    def _after_error(self, future: Any, model: _Model, units: list[PlannedUnit]) -> list[Outcome]:
        """A stint that killed its workers is tried again unit by unit; a unit that does is a hole.

        Raises:
            TrackerError: what a worker raised, or the scheduler is lost.
        """
        from distributed.scheduler import KilledWorker

        error = future.exception() if future.status == "error" else None
        if isinstance(error, TrackerError):
            raise error
        if not isinstance(error, KilledWorker):
            why = f"{type(error).__name__}: {error}" if error else "its scheduler is lost"
            raise TrackerError(
                f"engine=dask: {why}; what is measured is stored, the same command goes on from there"
            )
        left = [planned for planned in units if planned.unit.id in self._open]
        if len(units) == 1:
            return [self._hole(planned) for planned in left]
        for planned in left:
            self._submit(model, [planned])
        return []

    def _hole(self, planned: PlannedUnit) -> Outcome:
        store = Store(self._sweep.worker_spec.store)
        found = store.recorded_since(planned, self._sweep.since)
        if found is not None:  # the last one died behind the record
            return Outcome(planned.unit, found.status, found.reason, found.seconds or 0.0)
        label, tries = planned.unit.checkpoint.label, self._terms.retries + 1
        reason = (
            f"{label}: its dask worker died, {tries} times; where memory ran out, engine.stream=always takes "
            "less"
        )
        store.write_hole(planned.unit, "failed", reason)
        return Outcome(planned.unit, "failed", reason, 0.0)


def _on_worker(sweep: Sweep, stint: UnitBatch, topic: str) -> UnitBatchReport:
    """Runs in a dask worker."""
    from distributed import get_worker

    here = get_worker()

    def tell(outcome: Outcome) -> None:
        told = {"id": list(outcome.unit.id), "status": outcome.status, "reason": outcome.reason}
        here.log_event(topic, told | {"seconds": outcome.seconds, "elsewhere": outcome.elsewhere})

    return carry_out(sweep, stint, here.name, tell)
