"""The engine for many machines: dask.distributed gives batches to workers, results go to the shared store.

A batch is a few checkpoints of one model, so that a worker keeps its model in memory, and a worker that is
lost costs little.
Outcomes come as they are recorded; a batch whose worker died goes to another, which skips what is recorded.
"""

import contextlib
import queue
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from tracker.checkpoints import Inspected
from tracker.engines.prefetch import Transfer
from tracker.engines.scheduler import ClusterOptions, connected
from tracker.engines.unit_batch import SweepContext, UnitBatch, UnitBatchReport, carry_out
from tracker.errors import CheckpointError, TrackerError, counted
from tracker.records import Checkpoint, Outcome, PlannedUnit, RecordId
from tracker.store import Store

ASK_SECONDS = 60.0
"""The scheduler is asked whether it lives where nothing was heard for so long, and has as long to answer."""
REPORTED = ("status", "reason", "seconds", "elsewhere")
"""Fields of an outcome that a worker reports while it goes on with its batch."""


def run_dask(
    units: Sequence[PlannedUnit],
    context: SweepContext,
    options: ClusterOptions,
    inspected: Mapping[Checkpoint, Inspected | CheckpointError],
    transfer: Transfer,
) -> Generator[Outcome, None, None]:
    """Yield the outcome of each unit as it is recorded.

    Args:
        units: in the order in which they are wanted.
        context: what all workers need to know.
        options: where they are, how many, and what each is given.
        inspected: what the hub answered for the units' checkpoints.
        transfer: what workers fetch is added to it, with the seconds of each added up.

    Raises:
        RequestError: no scheduler, or the request cannot be carried out by its workers.
        TrackerError: the scheduler is lost; what is recorded stays.
    """
    with connected(options) as client:
        dispatch = Dispatch(client, units, context, options, inspected, transfer)
        try:
            yield from dispatch.outcomes()
        finally:
            client.cancel(dispatch.futures)


class Dispatch:
    """Hands out batches and collects outcomes, each once; arguments as of ``run_dask``."""

    def __init__(
        self,
        client: Any,
        units: Sequence[PlannedUnit],
        context: SweepContext,
        options: ClusterOptions,
        inspected: Mapping[Checkpoint, Inspected | CheckpointError],
        transfer: Transfer,
    ) -> None:
        self.futures: list[Any] = []
        self._client, self._context, self._options = client, context, options
        self._inspected, self._transfer = inspected, transfer
        self._open: dict[RecordId, PlannedUnit] = {planned.unit.id: planned for planned in units}
        self._order = {planned.unit.id: place for place, planned in enumerate(units)}
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._topic = f"tracker-{uuid.uuid4().hex}"
        self._models: dict[tuple[str, str, int], list[PlannedUnit]] = {}
        for planned in units:
            at = planned.unit.checkpoint
            self._models.setdefault((at.suite, at.model, at.seed), []).append(planned)

    def outcomes(self) -> Generator[Outcome, None, None]:
        """Yield one outcome per unit, as they are recorded."""
        self._client.subscribe_topic(self._topic, lambda event: self._news.put(event[1]))
        for waiting in self._models.values():
            self._hand_out(waiting)
        while self._open:
            news = self._next_news()
            for outcome in [self._heard(news)] if isinstance(news, dict) else self._ended(*news):
                if outcome is not None and self._open.pop(outcome.unit.id, None) is not None:
                    yield outcome

    def _next_news(self) -> Any:
        """Wait for what comes next.

        Raises:
            TrackerError: the scheduler does not answer any more.
        """
        while True:
            with contextlib.suppress(queue.Empty):
                return self._news.get(timeout=ASK_SECONDS)
            try:
                self._client.sync(self._client.scheduler.identity, callback_timeout=ASK_SECONDS)
            except (TimeoutError, OSError) as error:
                if self._news.empty():
                    raise TrackerError(
                        f"engine=dask: its scheduler has not answered for {ASK_SECONDS:g} s; progress saved; "
                        "run the same command to resume"
                    ) from error

    def _hand_out(self, units: list[PlannedUnit]) -> None:
        """Give units of one model to the scheduler, in batches."""
        for start in range(0, len(units), self._options.batch):
            self._submit(units[start : start + self._options.batch])

    def _submit(self, units: list[PlannedUnit]) -> None:
        checkpoints = [planned.unit.checkpoint for planned in units]
        inspected = {each: self._inspected[each] for each in checkpoints if each in self._inspected}
        batch = UnitBatch(tuple(units), inspected)
        future = self._client.submit(
            _on_worker,
            self._context,
            batch,
            self._topic,
            pure=False,
            priority=-self._order[units[0].unit.id],
            resources=dict(self._options.resources) or None,
        )
        self.futures.append(future)
        future.add_done_callback(lambda done: self._news.put((done, units)))

    def _heard(self, event: Mapping[str, Any]) -> Outcome | None:
        """Return an outcome from a worker that goes on with its batch."""
        planned = self._open.get(tuple(event["id"]))  # type: ignore[arg-type]
        return None if planned is None else Outcome(planned.unit, **{name: event[name] for name in REPORTED})

    def _ended(self, future: Any, units: list[PlannedUnit]) -> list[Outcome]:
        """Return the outcomes of a batch that has ended, one way or another."""
        self.futures.remove(future)
        if future.status == "finished":
            report: UnitBatchReport = future.result()
            self._transfer.add(report.transfer)
            outcomes = list(report.outcomes)
            reported = {outcome.unit.id for outcome in outcomes}
            left = [planned for planned in units if planned.unit.id not in reported]
            if left:  # the worker took the sweep for ended
                self._hand_out(left)
        else:
            outcomes = self._after_error(future, units)
        return outcomes

    def _after_error(self, future: Any, units: list[PlannedUnit]) -> list[Outcome]:
        """Try a batch that killed its workers again unit by unit; a unit that does is recorded as failed.

        Raises:
            TrackerError: what a worker raised, or the scheduler is lost.
        """
        from distributed.scheduler import KilledWorker

        error = future.exception() if future.status == "error" else None
        if isinstance(error, TrackerError):
            raise error
        if not isinstance(error, KilledWorker):
            why = f"{type(error).__name__}: {error}" if error else "its scheduler is lost"
            raise TrackerError(f"engine=dask: {why}; progress saved; run the same command to resume")
        left = [planned for planned in units if planned.unit.id in self._open]
        if len(units) == 1:
            return [self._recorded_or_failed(planned) for planned in left]
        for planned in left:
            self._submit([planned])
        return []

    def _recorded_or_failed(self, planned: PlannedUnit) -> Outcome:
        spec = self._context.worker_spec
        store = Store(spec.store, spec.store_inode)
        found = store.recorded_since(planned)
        if found is not None:  # the last worker died after it had recorded the unit
            return Outcome(planned.unit, found.status, found.reason, found.seconds or 0.0)
        reason = (
            f"{planned.unit.checkpoint.label}: its dask worker died or gave no result in time (in "
            f"{counted(self._options.retries + 1, 'attempt')}); if out of memory, use engine.stream=always; "
            "if it needs longer, set engine.timeout=SECONDS"
        )
        store.write_hole(planned.unit, "failed", reason)
        return Outcome(planned.unit, "failed", reason, 0.0)


def _on_worker(context: SweepContext, batch: UnitBatch, topic: str) -> UnitBatchReport:
    """Carry out a batch; runs in a dask worker."""
    from distributed import get_worker

    here = get_worker()

    def report(outcome: Outcome) -> None:
        fields = {name: getattr(outcome, name) for name in REPORTED}
        here.log_event(topic, fields | {"id": list(outcome.unit.id)})

    return carry_out(context, batch, here.name, report)
